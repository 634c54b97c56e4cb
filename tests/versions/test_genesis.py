"""The first version is the base model, and has the probe that transformers computes for it."""

from pathlib import Path

import pytest

from rlhf_online.config import Tuning
from rlhf_online.errors import InvalidInput
from rlhf_online.models.first_probe import first_probe
from rlhf_online.simulation.tiny_model import write_tiny_model
from rlhf_online.versions import open_registry
from rlhf_online.versions.genesis import compute_apart, genesis
from rlhf_online.versions.manifest import ProbeSequence
from rlhf_online.versions.registry import Registry
from tests.support.engine import recompute_all


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return open_registry(tmp_path / "versions")


def test_genesis_makes_the_base_model_live_once(registry: Registry, tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    with pytest.raises(InvalidInput, match=r"no \*\.safetensors"):
        genesis(registry, model, tuning="full", probe_of=says)
    (model / "model.safetensors").write_bytes(b"w")
    version = genesis(registry, model, tuning="full", probe_of=says)
    again = genesis(registry, model, tuning="full", probe_of=refuse)
    assert again == version == registry.live("policy") == "policy-000000"
    manifest = registry.verify(version)
    assert {item.path for item in manifest.files} == {"config.json", "model.safetensors"}
    assert manifest.probe == says(model)


def says(model: Path) -> tuple[ProbeSequence, ...]:
    """A probe that depends on the weights."""
    return (ProbeSequence(token_ids=(1, 2), logprobs=(-len((model / "model.safetensors").read_bytes()),)),)


def refuse(model: Path) -> tuple[ProbeSequence, ...]:
    raise AssertionError("computed once")


def test_of_two_machines_that_begin_at_once_one_makes_the_first_version(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether the other is quicker while the probe is computed here, or only when it is promoted."""
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    other = open_registry(tmp_path / "versions")
    replace = registry.store.replace

    def too_late(key: str, value: str, *, expected: str | None) -> bool:
        if key == "live/policy":
            genesis(other, tmp_path, tuning="lora", probe_of=says)
        return replace(key, value, expected=expected)

    monkeypatch.setattr(registry.store, "replace", too_late)
    assert genesis(registry, tmp_path, tuning="lora", probe_of=says) == "policy-000001"
    assert [registry.status(version).state for version in registry.versions()] == ["rejected", "live"]

    third = open_registry(tmp_path / "elsewhere")

    def computed_late(model: Path) -> tuple[ProbeSequence, ...]:
        genesis(open_registry(tmp_path / "elsewhere"), model, tuning="lora", probe_of=says)
        return says(model)

    assert genesis(third, tmp_path, tuning="lora", probe_of=computed_late) == "policy-000000"
    assert third.versions() == ["policy-000000"]


@pytest.mark.parametrize("tuning", ["full", "lora"])
def test_a_first_version_of_an_earlier_release_gets_its_probe_later(
    registry: Registry, tmp_path: Path, tuning: Tuning
) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    version = genesis(registry, tmp_path, tuning=tuning, probe_of=lambda model: ())
    assert registry.manifest(version).probe == ()
    for probe_of in (says, refuse):
        genesis(registry, tmp_path, tuning=tuning, probe_of=probe_of)
        assert registry.manifest(version).probe == says(tmp_path)


def test_a_model_that_cannot_be_computed_gives_no_version(registry: Registry, tmp_path: Path) -> None:
    """The computing process itself says why, in one line."""
    write_tiny_model(tmp_path, weights_seed=1)
    (tmp_path / "model.safetensors").write_bytes(b"w")
    with pytest.raises(InvalidInput, match=r"the model in \S+ cannot be computed: .*header too small"):
        genesis(registry, tmp_path, tuning="full")
    assert registry.live("policy") is None and registry.versions() == []


def test_genesis_of_an_adapter_line_holds_no_file(registry: Registry, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    version = genesis(registry, tmp_path, tuning="lora", probe_of=says)
    assert registry.verify(version).files == ()


@pytest.mark.parametrize("tied", [False, True])
def test_the_probe_is_what_transformers_computes_in_float32(tmp_path: Path, tied: bool) -> None:
    write_tiny_model(tmp_path, weights_seed=3, tied=tied)
    probe = compute_apart(tmp_path) if tied else first_probe(tmp_path)
    assert len(probe) == 8 and min(len(item.token_ids) for item in probe) >= 4
    expected = recompute_all(tmp_path, [item.token_ids for item in probe])
    for item, row in zip(probe, expected, strict=True):
        assert item.logprobs == pytest.approx(row, abs=1e-5)
