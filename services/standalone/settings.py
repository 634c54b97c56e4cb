"""Settings of services/standalone: of the three services on one machine.

A file holds each service's own table, `[chat]`, `[reward]`, `[trainer]`, in which all its settings may be given. What
they share stands above the tables, is given once, and is handed on:

    state_dir · versions · model · tuning · objectives · log · keystore
                          must be the same for all: refused in a table, by the name to use
    device · log_level · log_levels · log_format · tracing.endpoint
                          hold for each service whose table gives no other
"""

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from rlhf_online.config import (
    ChatSettings,
    Device,
    KeystoreSettings,
    LogSettings,
    Objectives,
    RewardSettings,
    ServiceSettings,
    TracingSettings,
    Tuning,
)
from rlhf_online.config.given import Values, merge
from rlhf_online.training.settings import RewardTraining, TrainerSettings

SERVICES = ("chat", "reward", "trainer")
SHARED = {
    **{f"{service}.{name}": name for service in SERVICES for name in ("state_dir", "ready_file", "die_with_parent")},
    **{f"{service}.versions": "versions" for service in SERVICES},
    "chat.host": "host",
    "chat.log": "log",
    "chat.keystore": "keystore",
    "chat.local_socket": "run/chat.sock in the state folder, where there is chat.tls",
    "chat.objectives": "objectives",
    "chat.engine.model": "model",
    "chat.engine.tuning": "tuning",
    "reward.model": "model (trainer.reward.trunk for another)",
    "trainer.model": "model",
    "trainer.tuning": "tuning",
    "trainer.log": "log",
    "trainer.keystore": "keystore",
    "trainer.reward.objectives": "objectives",
    "trainer.chat_url": "host and chat.http_port",
    "trainer.chat_ca_file": "host and chat.http_port",
    "trainer.reward_address": "reward.host and reward.grpc_port",
}
"""Settings of a service that are no settings here, and the one that decides them."""
FLAT = {
    **{name: f"chat.{name}" for name in ("http_port", "grpc_port", "engine", "limits", "swap")},
    **{name: f"trainer.{name}" for name in ("seed", "min_votes", "cold_votes", "policy_updates", "keep_versions")},
    **{name: f"trainer.{name}" for name in ("policy", "rollout", "gate")},
    **{f"reward.{name}": f"trainer.reward.{name}" for name in RewardTraining.model_fields},
    "reward.objectives": "objectives",
    "trainer_threads": "trainer.threads",
}
"""Names of files from before there were tables of services."""
NO_TABLE: Any = {}


class StandaloneSettings(ServiceSettings):
    """Settings of services/standalone: the three services on one machine, with the local log by default."""

    variables = "RLHF_UP__"
    moved: ClassVar = SHARED | FLAT

    model: str = Field(description="Folder of the base model.")
    tuning: Tuning = Field(default="lora", description="Train a LoRA adapter, or all weights.")
    device: Device = Field(default="auto", description="Where everything computes.")
    objectives: Objectives = Field(default=("helpful",), description="What answers are judged by; votes may name one.")
    log: LogSettings = LogSettings()
    keystore: KeystoreSettings = KeystoreSettings()
    tracing: TracingSettings = TracingSettings()
    # The trainer's first: what it trains decides what the others load.
    trainer: TrainerSettings = Field(default=NO_TABLE, validate_default=True)
    chat: ChatSettings = Field(default=NO_TABLE, validate_default=True)
    reward: RewardSettings = Field(default=NO_TABLE, validate_default=True)

    @field_validator("trainer", mode="before")
    @classmethod
    def _trainer(cls, table: Any, info: ValidationInfo) -> Any:
        given = {"model": ""} | {
            name: info.data[name] for name in ("model", "tuning", "log", "keystore") if name in info.data
        }
        rewards = {name: info.data[name] for name in ("objectives",) if name in info.data}
        addresses = {"chat_url": "", "reward_address": ""}  # known when the services listen
        return _handed_on("trainer", table, info.data, {"metrics_port": 0, **given, **addresses, "reward": rewards})

    @field_validator("chat", mode="before")
    @classmethod
    def _chat(cls, table: Any, info: ValidationInfo) -> Any:
        data, trainer = info.data, info.data.get("trainer")
        engine = {name: data[name] for name in ("model", "tuning") if name in data}
        given = table.get("engine") if isinstance(table, dict) else None
        given = given if isinstance(given, dict) else {}  # what is no table is refused with the others
        if "device" in data and given.get("mode") != "external":
            engine["device"] = data["device"]
        if trainer is not None and trainer.tuning == "lora":
            rank = trainer.policy.lora_rank
            engine["max_lora_rank"] = max(rank, ChatSettings.model_fields["engine"].default.max_lora_rank)
            most = str(given.get("max_lora_rank", ""))  # a variable's or an option's is text
            if most.isdigit() and int(most) < rank:
                raise PydanticCustomError(
                    "rank", "{at} is {most}, less than trainer.policy.lora_rank, which is {rank}",
                    {"at": "chat.engine.max_lora_rank", "most": most, "rank": rank},
                )  # fmt: skip
        shared = {name: data[name] for name in ("host", "log", "keystore", "objectives") if name in data}
        return _handed_on("chat", table, data, {**shared, "engine": engine})

    @field_validator("chat")
    @classmethod
    def _canaries(cls, chat: ChatSettings, info: ValidationInfo) -> ChatSettings:
        """One engine that holds one version cannot answer a share of the conversations by another."""
        trainer = info.data.get("trainer")
        if trainer is not None and trainer.canary.steps and trainer.tuning == "full":
            raise PydanticCustomError(
                "canary", "{at} needs tuning = 'lora' on one machine: an engine holds whole weights of one version",
                {"at": "trainer.canary.steps"},
            )  # fmt: skip
        return chat

    @field_validator("reward", mode="before")
    @classmethod
    def _reward(cls, table: Any, info: ValidationInfo) -> Any:
        trainer = info.data.get("trainer")
        trunk = trainer.reward.trunk if trainer is not None else ""
        model = trunk or info.data.get("model", "")
        return _handed_on("reward", table, info.data, {"model": model, "grpc_port": 0, "metrics_port": 0})


def _handed_on(service: str, table: Any, data: Values, shared: Values) -> Any:
    """The service's table with what is given above it. Refuses what only that decides."""
    if not isinstance(table, dict):
        return table
    for name, new in SHARED.items():
        if name.startswith(f"{service}.") and _holds(table, name.removeprefix(f"{service}.")):
            raise PydanticCustomError("moved", "{at} is no setting: it is {new}", {"at": name, "new": new})
    values = {"state_dir": data.get("state_dir", "."), **shared}
    if "versions" in data:
        values["versions"] = data["versions"]
    values |= {name: data[name] for name in ("log_level", "log_levels", "log_format") if name in data}
    if "tracing" in data:
        values["tracing"] = {"endpoint": data["tracing"].endpoint}
    if service != "chat" and "device" in data:
        values["device"] = data["device"]
    merge(values, table)
    return values


def _holds(table: Mapping[str, Any], name: str) -> bool:
    first, _, rest = name.partition(".")
    if first not in table:
        return False
    return not rest or (isinstance(table[first], dict) and _holds(table[first], rest))
