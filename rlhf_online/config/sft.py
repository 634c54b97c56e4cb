"""Settings of supervised fine-tuning."""

from pathlib import Path
from typing import ClassVar

from pydantic import Field

from rlhf_online.config.base import Computed, Device, Only, Positive, Section, Sharding


class SftSettings(Section):
    """Settings of supervised fine-tuning."""

    only_with: ClassVar = {
        "epochs": Only("steps", 0),
        **dict.fromkeys(("log_config", "held_out"), Only("log", "?*")),
    }

    model: Path = Field(description="Folder of the model; without weights in it, training begins with random ones.")
    data: Path | None = Field(
        default=None, description="JSONL file of conversations in OpenAI's format for fine-tuning."
    )
    log: str = Field(
        default="",
        description="Learn people's corrections too: a state folder, 'file:/path' of a log, 'kafka://host:port,…'.",
    )
    log_config: Path | None = Field(
        default=None, description="Settings (TOML) of a service; its table log says the rest."
    )
    out: Path = Field(description="New folder for the fine-tuned model: complete, as `rlhf-online up` takes it.")
    epochs: float = Field(default=3.0, gt=0, description="Passes over the demonstrations.")
    steps: int = Field(default=0, ge=0, description="Optimiser steps; 0: as many as the epochs take.")
    batch: Positive = Field(default=32, description="Demonstrations a step.")
    lr: float = Field(default=2e-5, gt=0, description="AdamW's highest learning rate.")
    seed: int = Field(default=0, description="Seed of the order, and of random weights.")
    held_out: float = Field(
        default=0.05, ge=0, lt=1, description="Share of logged conversations left out, the trainer's reward.held_out."
    )
    device: Device = Field(default="auto", description="Where training computes.")
    dtype: Computed = Field(
        default="auto",
        description="What layers compute in; weights that learn, Adam and losses are float32. auto: bfloat16 on a GPU, "
        "and on a CPU where it is measured to be faster.",
    )
    recompute: bool = Field(
        default=False, description="Layers compute activations again instead of keeping them: slower, in less memory."
    )
    sharding: Sharding = Field(
        default="none",
        description="Where torchrun starts several processes: each keeps all weights, or (full) but a piece of them.",
    )
    threads: int = Field(default=0, ge=0, description="CPU threads; 0: torch's own choice.")
    child: bool = Field(
        default=False, description="Tell progress as JSON lines, and end with the process that started it."
    )
