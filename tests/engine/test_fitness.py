"""A version that passed is not read again while its files stay as they were; otherwise it is, every time."""

import os
from pathlib import Path
from typing import Any

import pytest

from rlhf_online.config import EngineSettings
from rlhf_online.engine import fitness, preflight
from rlhf_online.engine.fitness import Fitness
from rlhf_online.engine.reading import warm
from rlhf_online.errors import VersionCorrupt, VersionUnfit
from rlhf_online.simulation.tiny_model import write_tiny_model
from rlhf_online.versions.registry import Registry
from tests.engine.test_host import PROBE, publish
from tests.engine.test_reading import out_of_memory


@pytest.fixture
def checked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The versions that were read through, in order."""
    names: list[str] = []
    check = preflight.check

    def noted(registry: Registry, version: str, **more: Any) -> object:
        names.append(version)
        return check(registry, version, **more)

    monkeypatch.setattr(fitness.preflight, "check", noted)
    return names


def fit(tmp_path: Path, registry: Registry) -> Fitness:
    write_tiny_model(tmp_path / "base", weights_seed=1)
    return Fitness(registry, EngineSettings(model=str(tmp_path / "base")))


def test_a_version_that_passed_is_read_once(tmp_path: Path, registry: Registry, checked: list[str]) -> None:
    version, fitness = publish(registry), fit(tmp_path, registry)
    first, again = fitness.check(version), fitness.check(version)
    assert first == again
    assert (first.version, first.folder, first.probe) == (version, registry.path(version), PROBE)
    assert checked == [version]


def test_what_the_page_cache_lost_of_it_is_read_before_the_engine_is_paused_for_it(
    tmp_path: Path, registry: Registry, checked: list[str]
) -> None:
    version, fitness = publish(registry), fit(tmp_path, registry)
    weights = fitness.check(version).folder / "model.safetensors"
    out_of_memory(weights)
    fitness.check(version)
    assert checked == [version] and warm(weights) == 0


def test_what_was_changed_since_is_read_again_also_if_size_and_time_are_as_before(
    tmp_path: Path, registry: Registry, checked: list[str]
) -> None:
    version, fitness = publish(registry), fit(tmp_path, registry)
    fitness.check(version)
    weights = registry.path(version) / "model.safetensors"
    before = weights.stat()
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    os.utime(weights, ns=(before.st_atime_ns, before.st_mtime_ns))
    for _ in range(2):
        with pytest.raises(VersionCorrupt, match="SHA-256"):
            fitness.check(version)
    assert checked == [version] * 3


def test_a_file_that_versions_share_is_not_read_again_when_one_more_has_it(
    tmp_path: Path, registry: Registry, checked: list[str]
) -> None:
    """As copies of a bucket's versions share their tokenizer."""
    version, fitness = publish(registry), fit(tmp_path, registry)
    shared = registry.path(version) / "model.safetensors"
    os.link(shared, tmp_path / "blob")
    fitness.check(version)
    os.link(shared, tmp_path / "the next version's")
    fitness.check(version)
    assert checked == [version]
    shared.write_bytes(shared.read_bytes()[:-1] + b"!")
    with pytest.raises(VersionCorrupt, match="SHA-256"):
        fitness.check(version)


def test_a_file_that_came_since_is_noticed(tmp_path: Path, registry: Registry) -> None:
    version, fitness = publish(registry), fit(tmp_path, registry)
    fitness.check(version)
    (registry.path(version) / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(VersionCorrupt, match="not in the manifest"):
        fitness.check(version)


def test_only_the_latest_are_remembered(tmp_path: Path, registry: Registry, checked: list[str]) -> None:
    versions, fitness = [publish(registry, seed) for seed in range(10)], fit(tmp_path, registry)
    for version in (*versions, versions[-1], versions[0]):
        fitness.check(version)
    assert checked == [*versions, versions[0]]


def test_an_adapter_does_not_fit_an_engine_of_full_weights(tmp_path: Path, registry: Registry) -> None:
    version, fitness = publish(registry, tuning="lora"), fit(tmp_path, registry)
    for _ in range(2):
        with pytest.raises(VersionUnfit, match=r"engine\.tuning is full"):
            fitness.check(version)


def test_a_version_without_files_stands_for_the_base_model(tmp_path: Path, registry: Registry) -> None:
    version = publish(registry, tuning="lora", files=False)
    write_tiny_model(tmp_path / "base", weights_seed=1)
    fitness = Fitness(registry, EngineSettings(model=str(tmp_path / "base"), tuning="lora"))
    assert not fitness.check(version).has_files


def test_a_probe_that_was_added_since_counts(tmp_path: Path, registry: Registry) -> None:
    """As earlier releases made the first version: without one."""
    version = publish(registry, tuning="lora", files=False)
    write_tiny_model(tmp_path / "base", weights_seed=1)
    registry.add_probe(version, PROBE)
    assert Fitness(registry, EngineSettings(model=str(tmp_path / "base"), tuning="lora")).check(version).probe == PROBE
