"""By how much an engine may differ from transformers, by the type that it computes in (decision 35).

An engine is played by transformers itself, in that type.
"""

import random
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from rlhf_online.config import EngineSettings, SwapSettings
from rlhf_online.engine import loader
from rlhf_online.engine.loader import EXACT, ROUNDED, VersionLoader
from rlhf_online.engine.swap import Weights, check_probe
from rlhf_online.engine.vllm import EngineClient
from rlhf_online.errors import SwapFailed
from rlhf_online.models.policy import Policy
from rlhf_online.simulation.tiny_model import write_tiny_model
from rlhf_online.versions import open_registry

Change = Callable[[Tensor, torch.Generator], Tensor]
CHANGES: dict[str, Change] = {
    "larger": lambda tensor, generator: 1.01 * tensor,
    "noise": lambda tensor, generator: tensor * (1 + 0.01 * torch.randn(tensor.shape, generator=generator)),
}
"""Of all weights of a layer, by 1 %."""
SEQUENCES = [(1, *(random.Random(row).randrange(5, 78) for _ in range(40))) for row in range(8)]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    write_tiny_model(folder, weights_seed=3)
    return folder


@pytest.fixture(scope="module")
def version(base: Path) -> Weights:
    return Weights("policy-000001", base, Policy.load(base, tuning="full").probe(SEQUENCES))


def _told(policy: Policy) -> list[tuple[float, ...]]:
    return policy.logprobs([(ids[:1], ids[1:]) for ids in SEQUENCES])


def _layer(policy: Policy, number: int) -> Sequence[nn.Parameter]:
    return list(policy.lm.get_submodule(f"model.layers.{number}").parameters())


@torch.no_grad()
@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("number", [0, 1])
def test_float32_refuses_a_layer_one_percent_off(base: Path, version: Weights, number: int, change: str) -> None:
    policy, generator = Policy.load(base, tuning="full"), torch.Generator().manual_seed(0)
    check_probe(version, _told(policy), EXACT)
    for parameter in _layer(policy, number):
        parameter.copy_(CHANGES[change](parameter, generator))
    with pytest.raises(SwapFailed, match=r"0\.001 are allowed \(swap\.probe_tolerance\)"):
        check_probe(version, _told(policy), EXACT)


@torch.no_grad()
def test_bfloat16_is_passed_and_a_layer_of_another_model_is_not(base: Path, version: Weights, tmp_path: Path) -> None:
    """Rounding alone is beyond what float32 allows."""
    policy = Policy.load(base, tuning="full", dtype=torch.bfloat16)
    check_probe(version, _told(policy), ROUNDED)
    with pytest.raises(SwapFailed):
        check_probe(version, _told(policy), EXACT)
    write_tiny_model(tmp_path, weights_seed=4)
    other = Policy.load(tmp_path, tuning="full")
    for parameter, replaced in zip(_layer(policy, 1), _layer(other, 1), strict=True):
        parameter.copy_(replaced)
    with pytest.raises(SwapFailed, match=r"0\.1 are allowed"):
        check_probe(version, _told(policy), ROUNDED)


@pytest.mark.parametrize(
    ("engine", "device", "bound"),
    [
        ({}, "cpu", EXACT),
        ({"dtype": "float32"}, "cpu", EXACT),
        ({"dtype": "bfloat16"}, "cpu", ROUNDED),
        ({"dtype": "float32"}, "cuda", ROUNDED),
        ({}, "cuda", ROUNDED),
        ({"mode": "external", "url": "http://127.0.0.1:9"}, "cpu", ROUNDED),
    ],
)
def test_the_bound_follows_the_engines_type_unless_the_settings_name_one(
    engine: dict[str, str], device: str, bound: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loader, "resolve_device", lambda settings: device)

    def tolerance(swap: SwapSettings) -> float:
        settings = EngineSettings.model_validate(engine)
        registry, client = open_registry(tmp_path), EngineClient("http://127.0.0.1:9")
        return VersionLoader(client, registry, settings, swap, tmp_path)._tolerance()  # noqa: SLF001

    assert tolerance(SwapSettings()) == bound
    assert tolerance(SwapSettings(probe_tolerance=0.5)) == 0.5
