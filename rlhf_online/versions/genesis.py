"""The first policy version."""

import shutil
from pathlib import Path
from typing import Literal

from rlhf_online.errors import InvalidInput
from rlhf_online.versions.manifest import Manifest
from rlhf_online.versions.registry import Registry


def genesis(registry: Registry, model: Path, *, tuning: Literal["full", "lora"]) -> str:
    """Make the first policy version from the base model's folder if there is no live one; returns the live name.

    `full` copies the model's files; `lora` holds no file: it stands for the base model without an adapter.
    """
    if (live := registry.live("policy")) is not None:
        return live
    if tuning == "full" and not any(model.glob("*.safetensors")):
        raise InvalidInput(f"{model} holds no *.safetensors: convert the model's weights first")
    version = registry.reserve("policy")
    staged = registry.stage(version)
    if tuning == "full":
        for path in sorted(model.iterdir()):
            if path.suffix in (".json", ".safetensors", ".jinja", ".txt", ".model"):
                shutil.copyfile(path, staged / path.name)
    registry.publish(Manifest(version=version, tuning=tuning))
    registry.promote(version, reason="the base model")
    return version
