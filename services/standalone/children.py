"""The settings files of the three services, and their ready files.

Ports that are not given (reward, metrics) are chosen by the system at the first start, and kept for restarts, so that
the others find them again.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from rlhf_online import config
from rlhf_online.state import StateDir
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
    """The file in which service `name` writes its ports once it is ready."""
    return state.run / f"{name}.ready.json"


def read_ready(path: Path) -> dict[str, int] | None:
    """Ports and pid of the ready file, None if there is none (yet)."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return None


def write_settings(name: Name, settings: StandaloneSettings, ports: Ports) -> Path:
    """Write the service's settings file and return its path. The trainer's needs the others' ports in `ports`."""
    state = StateDir(settings.state_dir)
    update = {"ready_file": ready_file(state, name), "die_with_parent": True}
    match name:
        case "chat":
            own = settings.chat
            update["http_port"] = ports.get("chat", "http", own.http_port)
            update["grpc_port"] = ports.get("chat", "grpc", own.grpc_port)
            update["local_socket"] = local_socket(settings)
        case "reward":
            own = settings.reward
            update["grpc_port"] = ports.get("reward", "grpc", own.grpc_port)
            update["metrics_port"] = ports.get("reward", "metrics", own.metrics_port)
        case "trainer":
            own = settings.trainer
            update["metrics_port"] = ports.get("trainer", "metrics", own.metrics_port)
            update["chat_url"] = chat_url(settings, ports)
            update["reward_address"] = f"{address(settings.reward.host)}:{ports.get('reward', 'grpc')}"
    path = state.run / f"{name}.toml"
    config.dump(own.model_copy(update=update), path)
    return path


def local_socket(settings: StandaloneSettings) -> Path | None:
    """Where chat listens for this user's own processes, if its ports speak TLS: they then need no certificate."""
    return StateDir(settings.state_dir.resolve()).run / "chat.sock" if settings.chat.tls.cert_file else None


def chat_url(settings: StandaloneSettings, ports: Ports) -> str:
    """Where this user's own processes reach chat."""
    path = local_socket(settings)
    return f"unix:{path}" if path else f"http://{address(settings.host)}:{ports.get('chat', 'http')}"


def address(host: str) -> str:
    """The host that a process on this machine connects to, for a service that listens on `host`."""
    if host in ANY:
        return LOOPBACK
    return f"[{host}]" if ":" in host else host
