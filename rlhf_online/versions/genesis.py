"""The first policy version: the base model, with what transformers says that it says; and versions beside it that are
adapters which no trainer has written.

Invariant: a first version has a probe as any other has, so that an engine that computes something else never serves it.
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from rlhf_online.errors import InvalidInput, VersionConflict, VersionCorrupt
from rlhf_online.versions.manifest import Kind, Manifest, ProbeSequence
from rlhf_online.versions.registry import Registry
from rlhf_online.versions.weight_files import BadIndex, weight_files

TEXTS = (".json", ".jinja", ".txt", ".model")
"""Endings of configuration and tokenizer files."""
ADAPTER = ("adapter_config.json", "adapter_model.safetensors")

ProbeOf = Callable[[Path], tuple[ProbeSequence, ...]]
"""The probe of the model in a folder. Raises InvalidInput."""


def compute_apart(model: Path, *adapter: Path) -> tuple[ProbeSequence, ...]:
    """The model's probe, or that of an adapter of it, computed in a process of its own. Raises InvalidInput."""
    command = [sys.executable, "-m", "rlhf_online.models.first_probe", str(model), *map(str, adapter)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        _, reported, said = done.stderr.rpartition("error: ")
        why = said if reported else "".join(done.stderr.splitlines()[-1:]) or f"it ended with {done.returncode}"
        raise InvalidInput(f"the model in {model} cannot be computed: {' '.join(why.split())}")
    return tuple(map(ProbeSequence.from_json, json.loads(done.stdout.splitlines()[-1])))


def genesis(
    registry: Registry, model: Path, *, tuning: Literal["full", "lora"], probe_of: ProbeOf = compute_apart
) -> str:
    """Make the first policy version from the base model's folder if there is no live one; returns the live name.

    `full` copies the model's files; `lora` holds no file: it stands for the base model without an adapter. A first
    version that an earlier release made without a probe gets one. Raises InvalidInput for a model without weights, or
    that transformers cannot load.
    """
    if (live := registry.live("policy")) is not None:
        _complete(registry, model, probe_of)
        return live
    try:
        weights = weight_files(model)
    except BadIndex as error:
        raise InvalidInput(f"the index of the weights in {model} {error}: fetch the model again") from error
    if not weights:
        raise InvalidInput(f"{model} holds no *.safetensors: convert the model's weights first")
    probe = probe_of(model)
    if (live := registry.live("policy")) is not None:  # another machine was quicker to compute it
        return live
    version = registry.reserve("policy")
    staged = registry.stage(version)
    if tuning == "full":
        for path in sorted(model.iterdir()):
            if path.suffix in TEXTS or path in weights:
                shutil.copyfile(path, staged / path.name)
    registry.publish(Manifest(version=version, tuning=tuning, probe=probe))
    try:
        registry.promote(version, reason="the base model")
    except VersionConflict:  # or to promote it
        registry.mark(version, "rejected", reason="another machine has made the first version")
    return registry.live("policy") or version


def publish_adapter(
    registry: Registry, model: Path, folder: Path, kind: Kind, *, weights: dict[str, float], reason: str
) -> str:
    """Make the adapter of the base model in `folder` the live version of that kind; its name. `weights` are what
    objectives counted as it learned. Raises InvalidInput for one that does not fit the model."""
    genesis(registry, model, tuning="lora")
    first, probe = registry.versions("policy")[0], compute_apart(model, folder)
    version = registry.reserve(kind)
    staged = registry.stage(version)
    for name in ADAPTER:
        shutil.copyfile(folder / name, staged / name)
    registry.publish(
        Manifest(version=version, tuning="lora", parent=first, reference=first, probe=probe, weights=weights)
    )
    registry.promote(version, reason=reason)
    return version


def _complete(registry: Registry, model: Path, probe_of: ProbeOf) -> None:
    first = registry.versions("policy")[0]
    try:
        manifest = registry.manifest(first)
        if not manifest.probe:
            registry.add_probe(first, probe_of(registry.path(first) if manifest.files else model))
    except VersionCorrupt:  # no reason to serve no other version; the engine's host says so when it comes to this one
        pass
