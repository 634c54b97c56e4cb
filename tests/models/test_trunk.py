"""How many tokens a pass with gradients may have: by what it keeps of them, and what memory there is; a full disk."""

import json
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM

from rlhf_online.models import tree_attention, trunk
from rlhf_online.models.limits import activation_bytes
from rlhf_online.models.policy import Policy
from rlhf_online.models.reward import RewardModel
from rlhf_online.simulation.tiny_model import write_tiny_model
from tests.support.small_disk import cannot_mount, small_disk

GIB = 1 << 30
CPU, GPU = torch.device("cpu"), torch.device("cuda")
WIDTH, INNER, TOKENS = 128, 512, 100


def kept(folder: Path, layers: int, dtype: torch.dtype, *, recompute: bool = False) -> int:
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
    if recompute:
        tree_attention.recomputed(policy.lm, dtype)
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


def test_a_layer_that_is_recomputed_keeps_its_input(tmp_path: Path) -> None:
    two, four = (kept(tmp_path / str(layers), layers, torch.bfloat16, recompute=True) for layers in (2, 4))
    added = activation_bytes(4, WIDTH, INNER, 2, recompute=True) - activation_bytes(2, WIDTH, INNER, 2, recompute=True)
    assert (four - two) / TOKENS == pytest.approx(added, rel=0.1)
    assert activation_bytes(1, WIDTH, INNER, recompute=True) > activation_bytes(1, WIDTH, INNER), "and one layer's all"


def test_a_pass_in_bfloat16_has_room_for_more_tokens(tmp_path: Path) -> None:
    write_tiny_model(tmp_path, weights_seed=0)
    lm = trunk.load_lm(tmp_path, device=CPU, dtype=torch.float32)
    wide, narrow = (trunk.token_budget(lm, 1 << 30, GIB, dtype) for dtype in (torch.float32, torch.bfloat16))
    assert 1.3 * wide < narrow < 2 * wide
    assert trunk.token_budget(lm, 100, GIB, torch.float32) == 100
    assert trunk.token_budget(lm, 100, -GIB, torch.float32) == 1, "one answer is tried in any case"
    tree_attention.recomputed(lm, torch.float32)
    assert trunk.token_budget(lm, 1 << 30, GIB, torch.float32) > wide


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


def test_a_full_disk_is_an_error_of_the_system_which_the_trainer_waits_out():
    """safetensors has one of its own, which is none."""
    with pytest.raises(OSError, match=r"weights cannot be written: .*No space left on device"), trunk.writing():
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")


def test_weights_are_written_under_that(tmp_path: Path):
    if reason := cannot_mount(tmp_path / "disk"):
        pytest.skip(reason)
    write_tiny_model(tmp_path / "base", weights_seed=3)
    full = Policy.load(tmp_path / "base", tuning="full")
    adapter = Policy.load(tmp_path / "base", tuning="lora")
    reward = RewardModel.load(tmp_path / "base", tuning="lora")
    with small_disk(tmp_path / "disk", 1) as disk:
        for number, write in enumerate((full.write_version, adapter.write_version, reward.save)):
            (disk.folder / str(number)).mkdir()
            (disk.folder / "room").write_bytes(bytes(16 << 10))  # for what is written before the weights
            disk.fill()
            (disk.folder / "room").unlink()
            with pytest.raises(OSError, match="weights cannot be written"):
                write(disk.folder / str(number))
            disk.free()
