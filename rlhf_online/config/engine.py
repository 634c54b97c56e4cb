"""Settings of services/engine: an engine that runs beside the chat service, in a container of its own."""

from pathlib import Path

from pydantic import Field, field_validator

from rlhf_online.config.base import ProcessSettings
from rlhf_online.config.chat import EngineSettings


class EngineServerSettings(EngineSettings, ProcessSettings):
    """Settings of services/engine. The chat service that uses it has `engine.mode = "external"`, and the same model and
    tuning."""

    variables = "RLHF_ENGINE__"

    socket: Path = Field(
        default=Path("/run/rlhf-online/engine/engine.sock"),
        description="Unix socket that it listens on; whoever reaches it may load weights, so its folder is closed to "
        "other users.",
    )

    @field_validator("mode")
    @classmethod
    def _starts_it(cls, mode: str) -> str:
        if mode != "managed":
            raise ValueError("this is where the engine is started: expected 'managed', or nothing")
        return mode
