"""Each kind of wrong version once, as a trainer may publish it and as a disk may leave it: which defence catches it.

`tests/benches/corrupt_versions.py` tries a thousand of them with a real engine; here transformers computes the probe.
"""

import random
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from rlhf_online.config import EngineSettings
from rlhf_online.engine.fitness import Fitness
from rlhf_online.engine.loader import EXACT
from rlhf_online.engine.swap import check_probe
from rlhf_online.errors import SwapFailed, VersionCorrupt
from rlhf_online.simulation.tiny_model import write_tiny_model
from rlhf_online.versions.manifest import Manifest, ProbeSequence
from rlhf_online.versions.registry import Registry
from tests.support.corruption import KINDS, WEIGHTS, Change, leave_folder
from tests.support.engine import PROBE_TOKENS, recompute_all

PASS_PREFLIGHT = ("a layer of zeros", "smallest exponent bits flipped")
"""Their values are of the right shape and finite: only the hash knows that they are wrong, or the probe."""


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("good")
    write_tiny_model(folder, weights_seed=1)
    return folder


@pytest.fixture(scope="module")
def probe(good: Path) -> tuple[ProbeSequence, ...]:
    rows = zip(PROBE_TOKENS, recompute_all(good, PROBE_TOKENS), strict=True)
    return tuple(ProbeSequence(token_ids=tuple(tokens), logprobs=tuple(row)) for tokens, row in rows)


def publish(registry: Registry, good: Path, probe: tuple[ProbeSequence, ...], change: Change | None = None) -> str:
    version = registry.reserve("policy")
    staged = registry.stage(version)
    shutil.copytree(good, staged, dirs_exist_ok=True)
    if change is not None:
        change(staged, random.Random(1))
    registry.publish(Manifest(version=version, tuning="full", probe=probe))
    return version


@pytest.mark.parametrize("kind", KINDS)
def test_wrong_bytes_that_were_published(
    registry: Registry, good: Path, probe: tuple[ProbeSequence, ...], kind: str
) -> None:
    version = publish(registry, good, probe, KINDS[kind])
    fitness = Fitness(registry, EngineSettings(model=str(good)))
    if kind not in PASS_PREFLIGHT:
        with pytest.raises(VersionCorrupt):
            fitness.check(version)
        return
    weights = fitness.check(version)
    with pytest.raises(SwapFailed, match="log-probs differ from those of its manifest"):
        check_probe(weights, recompute_all(weights.folder, PROBE_TOKENS), tolerance=EXACT)


@pytest.mark.parametrize("layer", [0, 1])
def test_a_layer_that_is_one_percent_off_is_refused_by_an_engine_that_computes_in_float32(
    registry: Registry, good: Path, probe: tuple[ProbeSequence, ...], layer: int
) -> None:
    def disturb(folder: Path, draw: random.Random) -> None:
        tensors, noise = load_file(folder / WEIGHTS), np.random.default_rng(1)
        for name, tensor in tensors.items():
            if f"layers.{layer}." in name and tensor.ndim == 2:
                tensors[name] = (tensor * (1 + 0.01 * noise.standard_normal(tensor.shape))).astype(tensor.dtype)
        save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})

    version = publish(registry, good, probe, disturb)
    weights = Fitness(registry, EngineSettings(model=str(good))).check(version)
    with pytest.raises(SwapFailed, match="log-probs differ from those of its manifest"):
        check_probe(weights, recompute_all(weights.folder, PROBE_TOKENS), tolerance=EXACT)


@pytest.mark.parametrize("kind", KINDS)
def test_bytes_that_went_wrong_afterwards(
    registry: Registry, good: Path, probe: tuple[ProbeSequence, ...], kind: str
) -> None:
    version = publish(registry, good, probe)
    fitness = Fitness(registry, EngineSettings(model=str(good)))
    assert fitness.check(version).probe == probe
    KINDS[kind](registry.path(version), random.Random(1))
    with pytest.raises(VersionCorrupt, match=r"does not have the SHA-256|is missing or not \d+ bytes long"):
        fitness.check(version)


@pytest.mark.parametrize("seed", range(6))
def test_a_manifest_whose_paths_leave_the_folder(
    registry: Registry, good: Path, probe: tuple[ProbeSequence, ...], seed: int
) -> None:
    version = publish(registry, good, probe)
    leave_folder(registry.path(version), random.Random(seed))
    with pytest.raises(VersionCorrupt, match="which is not in the version's folder"):
        Fitness(registry, EngineSettings(model=str(good))).check(version)
    assert registry.live("policy") is None


def test_the_largest_weights_that_models_have_are_fine(
    registry: Registry, good: Path, probe: tuple[ProbeSequence, ...]
) -> None:
    def grow(folder: Path, draw: random.Random) -> None:
        tensors = load_file(folder / WEIGHTS)
        tensors["model.norm.weight"][:2] = (65504.0, -65504.0)  # float16's largest
        save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})

    version = publish(registry, good, probe, grow)
    assert Fitness(registry, EngineSettings(model=str(good))).check(version).version == version
