"""Settings of learning from a file or a log without serving."""

from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from rlhf_online.config.base import Device, Objectives, Only, Positive, Section, Tuning

Algorithm = Literal["reward", "dpo", "ipo", "kto", "best-of-n", "ilql"]


class VotesSettings(Section):
    """Which votes are taken from a file or a log, and what they are about."""

    only_with: ClassVar = {
        "format": Only("data", "?*"),
        **dict.fromkeys(("log_config", "without"), Only("log", "?*")),
    }

    data: str = Field(default="", description="A file of votes, of any format of `data formats`.")
    format: str = Field(default="", description="Its format.")
    log: str = Field(
        default="", description="Learn a log's votes: a state folder, 'file:/path' of a log, 'kafka://host:port,…'."
    )
    log_config: Path | None = Field(
        default=None, description="Settings (TOML) of a service; its table log says the rest."
    )
    without: tuple[str, ...] = Field(
        default=(),
        description="People, by name or hash (32 digits), as if they had erased everything: neither their votes nor "
        "any on what they asked. Who did erase it is left out by itself.",
    )
    objectives: Objectives = Field(
        default=("helpful",), description="What answers are judged by; votes that name none are about the first."
    )
    held_out: float = Field(
        default=0.15, ge=0, lt=1, description="Share of conversations that are measured on, and never learned."
    )
    seed: int = Field(default=0, description="Seed of every random choice.")
    device: Device = Field(default="auto", description="Where training computes.")
    threads: int = Field(default=0, ge=0, description="CPU threads; 0: torch's own choice.")


class OfflineSettings(VotesSettings):
    """Settings of learning from a file or a log without serving."""

    only_with: ClassVar = {
        **VotesSettings.only_with,
        **dict.fromkeys(("lora_rank", "lora_layers", "merged"), Only("tuning", "lora")),
        "beta": Only("algorithm", "dpo", "ipo", "kto", "ilql"),
        "weights": Only("algorithm", "dpo", "ipo", "kto", "best-of-n", "ilql"),
        **dict.fromkeys(("heads", "readout"), Only("algorithm", "reward")),
    }

    model: Path = Field(description="Folder of the model that learns, or that the reward model's trunk begins as.")
    out: Path = Field(description="New folder for what was learned, and for report.json.")
    algorithm: Algorithm = Field(
        default="reward",
        description="A reward model; or a policy, directly from votes: by pairs (dpo, ipo), by thumbs (kto), on the "
        "best answers (best-of-n), or by values of tokens (ilql).",
    )
    weights: dict[str, Annotated[float, Field(ge=0)]] = Field(
        default={},
        description="What votes about each objective count for a policy, beside each other; 1 where none is given.",
    )
    minutes: float = Field(
        default=25.0,
        gt=0,
        description="What learning may take: where all votes would take longer, some of them are learned.",
    )
    epochs: Positive = Field(default=2, description="Passes over the votes, if there is time for them.")
    batch: Positive = Field(default=8, description="Votes a step.")
    lr: float | None = Field(
        default=None,
        gt=0,
        description="Adam's highest learning rate; 1e-3 for a reward model's adapter, 2e-4 for a policy's, 1e-5 for "
        "all weights.",
    )
    beta: float = Field(
        default=0.1, gt=0, description="How closely a policy holds to what it was: β of dpo and kto, 1/β of ilql."
    )
    tuning: Tuning = Field(default="lora", description="Train an adapter, or all weights.")
    lora_rank: Positive = Field(default=8, description="Rank of the adapter.")
    lora_layers: int = Field(
        default=0, ge=0, description="How many of the model's layers, from the top, the adapter changes; 0: all."
    )
    merged: bool = Field(
        default=True,
        description="Of a policy's adapter: add it to the model's weights, so that the folder serves by itself.",
    )
    heads: Positive = Field(default=4, description="Ensemble members of each objective.")
    readout: Literal["last", "mean"] = Field(
        default="mean", description="A score is read at an answer's last token, or is the mean over its tokens."
    )

    @property
    def rate(self) -> float:
        """The learning rate."""
        if self.lr is not None or self.tuning == "full":
            return self.lr or 1e-5
        return 1e-3 if self.algorithm == "reward" else 2e-4

    def counts(self, objective: str) -> float:
        """What a vote about that objective ("" for the first) teaches a policy, beside 1 of the weightiest."""
        most = max(self.weights.get(name, 1.0) for name in self.objectives)
        return self.weights.get(objective or self.objectives[0], 1.0) / most if most else 0.0


class ProfilesSettings(VotesSettings):
    """Settings of profiles of people, beside a reward model."""

    model: Path = Field(description="Folder of the model that the reward model's trunk began as.")
    reward: Path = Field(description="Folder of the reward model.")
    tuning: Tuning = Field(default="lora", description="What it consists of: an adapter, or all weights.")
