"""The first policy version."""

import shutil
from pathlib import Path
from typing import Literal

from rlhf_online.errors import InvalidInput
from rlhf_online.versions.manifest import Manifest
from rlhf_online.versions.registry import Registry
from rlhf_online.versions.weight_files import BadIndex, weight_files

TEXTS = (".json", ".jinja", ".txt", ".model")
"""Endings of configuration and tokenizer files."""


def genesis(registry: Registry, model: Path, *, tuning: Literal["full", "lora"]) -> str:
    """Make the first policy version from the base model's folder if there is no live one; returns the live name.

    `full` copies the model's files; `lora` holds no file: it stands for the base model without an adapter.
    """
    if (live := registry.live("policy")) is not None:
        return live
    try:
        weights = weight_files(model) if tuning == "full" else []
    except BadIndex as error:
        raise InvalidInput(f"the index of the weights in {model} {error}: fetch the model again") from error
    if tuning == "full" and not weights:
        raise InvalidInput(f"{model} holds no *.safetensors: convert the model's weights first")
    version = registry.reserve("policy")
    staged = registry.stage(version)
    if tuning == "full":
        for path in sorted(model.iterdir()):
            if path.suffix in TEXTS or path in weights:
                shutil.copyfile(path, staged / path.name)
    registry.publish(Manifest(version=version, tuning=tuning))
    registry.promote(version, reason="the base model")
    return version
