"""The services' settings against each other: what two of them have to agree on.

Under `rlhf-online up` one file decides for all; services with files of their own agree by hand, or the chart's.
"""

from pathlib import Path
from typing import Any

from rlhf_online.config import ChatSettings, RewardSettings
from rlhf_online.doctor.finding import Finding, ok, refuse, warn
from rlhf_online.models.check.folder import inspect_folder
from rlhf_online.training.settings import TrainerSettings


def agreement(
    chat: ChatSettings | None, reward: RewardSettings | None, trainer: TrainerSettings | None
) -> list[Finding]:
    """A finding for each setting that differs where it must not; of services that are not known nothing is said."""
    services = {"chat": chat, "reward": reward, "trainer": trainer}
    there = {name: settings for name, settings in services.items() if settings is not None}
    pairs = _same("versions.url", {name: settings.versions.url for name, settings in there.items()})
    if chat and trainer:
        ours: dict[str, tuple[Any, Any]] = {
            "log.url": (chat.log.url, trainer.log.url),
            "keystore.url": (chat.keystore.url, trainer.keystore.url),
            "log.topic_prefix": (chat.log.topic_prefix, trainer.log.topic_prefix),
            "engine.tuning, tuning": (chat.engine.tuning, trainer.tuning),
            "objectives, reward.objectives": (chat.objectives, trainer.reward.objectives),
        }
        for name, (one, other) in ours.items():
            pairs += _same(name, {"chat": one, "trainer": other})
        if trainer.tuning == "lora" and chat.engine.max_lora_rank < trainer.policy.lora_rank:
            what = f"chat's engine.max_lora_rank is {chat.engine.max_lora_rank}, trainer's policy.lora_rank larger"
            pairs.append(refuse("settings", what, f"set the first to {trainer.policy.lora_rank} or more"))
    return pairs or ([ok("settings", f"{', '.join(there)} agree")] if len(there) > 1 else [])


def _same(name: str, values: dict[str, Any]) -> list[Finding]:
    if len(set(values.values())) < 2:
        return []
    told = ", ".join(f"{value!r} for {service}" for service, value in values.items())
    return [refuse("settings", f"{name} differ: {told}", "give all of them the same")]


def model(folder: Path, tuning: str, *, served: bool) -> list[Finding]:
    """What files and headers say of the model's folder; `rlhf-online doctor MODEL` looks further, with transformers."""
    found = [
        (refuse if each.severity == "refuse" else warn)(f"model {folder}", each.what, each.todo)
        for each in inspect_folder(folder, tuning=tuning, served=served)
    ]
    return found or [ok(f"model {folder}", "complete")]
