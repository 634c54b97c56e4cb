"""How many tokens a pass with gradients may have: by what it keeps of them, and by what memory there is."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM

from rlhf_online.models import trunk
from rlhf_online.models.limits import activation_bytes
from rlhf_online.models.policy import Policy
from rlhf_online.simulation.tiny_model import write_tiny_model

GIB = 1 << 30
CPU, GPU = torch.device("cpu"), torch.device("cuda")
WIDTH, INNER, TOKENS = 128, 512, 100


def kept(folder: Path, layers: int, dtype: torch.dtype) -> int:
    """Bytes that autograd keeps of the states of one sequence of TOKENS tokens."""
    write_tiny_model(folder, weights_seed=None)
    sizes = {"hidden_size": WIDTH, "intermediate_size": INNER, "num_hidden_layers": layers, "head_dim": 32}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 4}
    config = json.loads((folder / "config.json").read_text()) | sizes | heads
    (folder / "config.json").write_text(json.dumps(config))
    with torch.random.fork_rng(devices=[]):
        AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder), dtype=torch.bfloat16).save_pretrained(
            folder
        )
    policy = Policy.load(folder, tuning="full", dtype=dtype)
    found: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        if TOKENS in tensor.shape:
            found[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        policy.forward(policy.collate([(tuple(range(5, 45)), tuple(range(5, 65)))]))
    return sum(tensor.untyped_storage().nbytes() for tensor in found.values())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_a_layer_keeps_of_a_token_is_as_reckoned(tmp_path: Path, dtype: torch.dtype) -> None:
    two, four = (kept(tmp_path / str(layers), layers, dtype) for layers in (2, 4))
    assert (four - two) / (2 * TOKENS) == pytest.approx(activation_bytes(1, WIDTH, INNER, dtype.itemsize), rel=0.1)


def test_a_pass_in_bfloat16_has_room_for_more_tokens(tmp_path: Path) -> None:
    write_tiny_model(tmp_path, weights_seed=None)
    config = AutoConfig.from_pretrained(tmp_path)
    wide, narrow = (trunk.token_budget(config, 1 << 30, GIB, dtype) for dtype in (torch.float32, torch.bfloat16))
    assert 1.3 * wide < narrow < 2 * wide
    assert trunk.token_budget(config, 100, GIB, torch.float32) == 100
    assert trunk.token_budget(config, 100, -GIB, torch.float32) == 1, "one answer is tried in any case"


def test_on_a_cpu_passes_are_cut_alike_whatever_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: pytest.fail("nobody asks"))
    assert trunk.free_room(CPU, GIB) == trunk.free_room(CPU) == trunk.usual_room(CPU)


def test_on_a_gpu_half_of_what_is_free_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """What torch has reserved and not given out is free, too; what the step will need besides is not."""
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (10 * GIB, 80 * GIB))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 7 * GIB)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 5 * GIB)
    assert trunk.free_room(GPU) == 6 * GIB
    assert trunk.free_room(GPU, 4 * GIB) == 4 * GIB
