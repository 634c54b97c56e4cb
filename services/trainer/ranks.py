"""Processes that train together must be of one release, and have one configuration."""

import json
from collections.abc import Iterator
from importlib import metadata
from typing import Any

from rlhf_online.config.explain import masked
from rlhf_online.errors import ConfigError
from rlhf_online.training import distributed
from rlhf_online.training.settings import TrainerSettings

PACKAGES = ("rlhf-online", "torch", "transformers", "peft")


def check_alike(settings: TrainerSettings) -> None:
    """Raises ConfigError that names the first setting, or package, in which a rank differs from rank 0."""
    if distributed.alone():
        return
    own = dict(_leaves(settings.model_dump(mode="json"), "")) | {name: metadata.version(name) for name in PACKAGES}
    said = [json.loads(text) for text in distributed.texts(json.dumps(own), "comparing settings")]
    for rank, other in enumerate(said):
        for name in sorted(other.keys() | said[0].keys()):
            theirs, ours = other.get(name), said[0].get(name)
            if theirs != ours:
                raise ConfigError(
                    masked(f"{name} is {theirs!r} for rank {rank} and {ours!r} for rank 0")
                    + ": give all processes that torchrun starts the same --config, variables and packages"
                )


def _leaves(values: dict[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
