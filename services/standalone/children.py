"""The settings of the three services, from those of the whole; and where each of them says that it is ready.

Ports that only the services themselves use (reward, metrics) are chosen by the system at the first start, and kept for
restarts, so that the others find them again.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from rlhf_online import config
from rlhf_online.config import ChatSettings, RewardSettings, ServiceSettings
from rlhf_online.state import StateDir
from rlhf_online.training.settings import TrainerSettings
from services.standalone.settings import StandaloneSettings

Name = Literal["chat", "reward", "trainer"]
LOOPBACK = "127.0.0.1"
ANY = ("", "0.0.0.0", "::", "[::]")


@dataclass(slots=True)
class Ports:
    """Real port numbers by service and use, as far as known: `{"chat": {"http": 8000, "grpc": 8001}, …}`."""

    known: dict[str, dict[str, int]] = field(default_factory=dict)

    def get(self, service: Name, use: str, default: int = 0) -> int:
        return self.known.get(service, {}).get(use, default)


def ready_file(state: StateDir, name: str) -> Path:
    """Where service `name` announces its ports."""
    return state.run / f"{name}.ready.json"


def read_ready(path: Path) -> dict[str, int] | None:
    """The announced ports and pid, None if there is no announcement (yet)."""
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        return None


def write_settings(name: Name, settings: StandaloneSettings, ports: Ports) -> Path:
    """Write the service's settings file and return its path. The trainer's needs the others' ports in `ports`."""
    match name:
        case "chat":
            values: ServiceSettings = chat(settings, ports)
        case "reward":
            values = reward(settings, ports)
        case "trainer":
            values = trainer(settings, ports)
    path = StateDir(settings.state_dir).run / f"{name}.toml"
    config.dump(values, path)
    return path


def address(host: str) -> str:
    """The host that a process on this machine connects to, for a service that listens on `host`."""
    if host in ANY:
        return LOOPBACK
    return f"[{host}]" if ":" in host else host


def chat(settings: StandaloneSettings, ports: Ports) -> ChatSettings:
    """Settings of the chat service."""
    update: dict[str, Any] = {"model": settings.model, "tuning": settings.tuning, "device": settings.device}
    if settings.tuning == "lora":
        update["max_lora_rank"] = max(settings.engine.max_lora_rank, settings.policy.lora_rank)
    engine = settings.engine.model_copy(update=update)
    return ChatSettings(
        **_common(settings, "chat"),
        host=settings.host,
        http_port=ports.get("chat", "http", settings.http_port),
        grpc_port=ports.get("chat", "grpc", settings.grpc_port),
        log=settings.log,
        engine=engine,
        limits=settings.limits,
        swap=settings.swap,
        objectives=settings.reward.objectives,
    )


def reward(settings: StandaloneSettings, ports: Ports) -> RewardSettings:
    """Settings of the reward service, which listens on the loopback interface alone."""
    return RewardSettings(
        **_common(settings, "reward"),
        host=LOOPBACK,
        grpc_port=ports.get("reward", "grpc"),
        metrics_port=ports.get("reward", "metrics"),
        model=settings.reward.trunk or settings.model,
        device=settings.device,
    )


def trainer(settings: StandaloneSettings, ports: Ports) -> TrainerSettings:
    """Settings of the trainer."""
    return TrainerSettings(
        **_common(settings, "trainer"),
        host=LOOPBACK,
        metrics_port=ports.get("trainer", "metrics"),
        seed=settings.seed,
        chat_url=f"http://{address(settings.host)}:{ports.get('chat', 'http')}",
        reward_address=f"{LOOPBACK}:{ports.get('reward', 'grpc')}",
        model=settings.model,
        tuning=settings.tuning,
        device=settings.device,
        threads=settings.trainer_threads,
        min_votes=settings.min_votes,
        cold_votes=settings.cold_votes,
        policy_updates=settings.policy_updates,
        keep_versions=settings.keep_versions,
        log=settings.log,
        reward=settings.reward,
        policy=settings.policy,
        rollout=settings.rollout,
        gate=settings.gate,
    )


def _common(settings: StandaloneSettings, name: str) -> dict:
    return {
        "state_dir": settings.state_dir,
        "ready_file": ready_file(StateDir(settings.state_dir), name),
        "die_with_parent": True,
        "log_level": settings.log_level,
    }
