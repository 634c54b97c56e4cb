"""Weights that do not learn: kept small where that loses nothing, and once for all models of a process."""

import gc
import json
from pathlib import Path

import pytest
import torch
from torch import nn

from rlhf_online.models import frozen, trunk
from rlhf_online.models.frozen import FrozenWeights
from rlhf_online.models.policy import Policy
from rlhf_online.models.precision import computing
from rlhf_online.models.reward import Heads, RewardModel
from rlhf_online.models.tokens import Pair
from rlhf_online.models.trunk import Lora
from rlhf_online.simulation.tiny_model import write_tiny_model
from tests.models.test_precision import cast

CPU = torch.device("cpu")
PAIRS: list[Pair] = [((1, 10, 20, 3), (30, 31, 2)), ((1, 11, 3), (40, 2)), ((1, 12, 21, 22, 23, 3), (50, 51, 52, 53))]
TOKENS = torch.tensor([[1, 10, 20, 3, 30, 31, 2]])


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model in bfloat16."""
    folder = tmp_path_factory.mktemp("narrow")
    write_tiny_model(folder, weights_seed=3)
    cast(folder, torch.bfloat16)
    return folder


def size(model: nn.Module) -> int:
    return sum(parameter.nbytes for parameter in model.parameters())


def test_what_is_narrowed_computes_the_same_bits(narrow: Path) -> None:
    lm = trunk.load_lm(narrow, device=CPU, dtype=torch.float32).requires_grad_(False)
    before = size(lm)
    with torch.no_grad(), computing(CPU, torch.bfloat16):
        expected = lm(TOKENS).logits
        frozen.narrow(lm.model, torch.bfloat16)
        assert torch.equal(lm(TOKENS).logits, expected)
    others = sum(p.nbytes for name, p in lm.named_parameters() if "layers" not in name or "norm" in name)
    assert size(lm) == (before - others) // 2 + others


def test_what_learns_what_is_tied_and_what_would_lose_a_bit_stays(tmp_path: Path) -> None:
    write_tiny_model(tmp_path, weights_seed=3)
    lm = trunk.load_lm(tmp_path, device=CPU, dtype=torch.float32).requires_grad_(False)
    frozen.narrow(lm, torch.bfloat16)
    assert {parameter.dtype for parameter in lm.parameters()} == {torch.float32}, "of a model in float32"
    write_tiny_model(tmp_path, weights_seed=3, tied=True)
    cast(tmp_path, torch.bfloat16)
    lm = trunk.load_lm(tmp_path, device=CPU, dtype=torch.float32).requires_grad_(False)
    learning = lm.get_parameter("model.layers.0.mlp.up_proj.weight").requires_grad_(True)
    frozen.narrow(lm, torch.bfloat16)
    assert learning.dtype == trunk.output_head(lm).weight.dtype == torch.float32
    assert lm.get_parameter("model.layers.1.mlp.up_proj.weight").dtype == torch.bfloat16


def test_a_probe_of_narrowed_weights_is_that_of_wide_ones(narrow: Path) -> None:
    sequences = [(*prompt, *answer) for prompt, answer in PAIRS]
    wide, small = (Policy.load(narrow, tuning="lora", dtype=dtype) for dtype in (torch.float32, torch.bfloat16))
    assert size(small.lm) < 0.7 * size(wide.lm)
    before = size(small.lm)
    assert small.probe(sequences) == wide.probe(sequences)
    assert size(small.lm) == before and not small.lm.model.layers[0].mlp.up_proj.base_layer._forward_hooks  # noqa: SLF001


def test_a_layer_of_which_the_bias_alone_is_narrow_is_probed_too(tmp_path: Path) -> None:
    """As of a float32 model whose biases are 0."""
    write_tiny_model(tmp_path, weights_seed=3)
    config = json.loads((tmp_path / "config.json").read_text()) | {"attention_bias": True}
    (tmp_path / "config.json").write_text(json.dumps(config))
    trunk.random_lm(tmp_path, seed=0, device=CPU).save_pretrained(tmp_path)
    sequences = [(*prompt, *answer) for prompt, answer in PAIRS]
    wide, small = (Policy.load(tmp_path, tuning="lora", dtype=dtype) for dtype in (torch.float32, torch.bfloat16))
    layer = small.lm.model.layers[0].self_attn.q_proj.base_layer
    assert (layer.weight.dtype, layer.bias.dtype) == (torch.float32, torch.bfloat16)
    assert small.probe(sequences) == wide.probe(sequences) and layer.bias.dtype == torch.bfloat16


def test_policy_and_reward_model_are_adapters_on_one_trunk(narrow: Path) -> None:
    once = FrozenWeights()
    policy = Policy.load(narrow, tuning="lora", lora=Lora(4), dtype=torch.bfloat16)
    reward = RewardModel.load(narrow, tuning="lora", lora=Lora(4), heads=Heads(members=2), dtype=torch.bfloat16)
    expected = policy.logprobs(PAIRS), reward.utilities(PAIRS)
    once.keep(policy.lm)
    once.keep(reward.decoder)
    places = {parameter.data_ptr() for parameter in policy.lm.parameters()}
    own = [name for name, parameter in reward.decoder.named_parameters() if parameter.data_ptr() not in places]
    assert own and all("lora_" in name for name in own)
    assert policy.logprobs(PAIRS) == expected[0] and torch.equal(reward.utilities(PAIRS), expected[1])
    reward.forward(reward.packer.pack(PAIRS)).sum().backward()
    with torch.no_grad():
        for parameter in reward.parameters().values():
            parameter -= 0.1 * parameter.grad if parameter.grad is not None else 0
    assert policy.logprobs(PAIRS) == expected[0], "what the other adapter learns is not the policy's"


def test_another_models_weights_are_left_alone_and_those_of_a_model_that_is_gone_are_forgotten(
    narrow: Path, tmp_path: Path
) -> None:
    once, write = FrozenWeights(), write_tiny_model
    write(tmp_path, weights_seed=4)
    policy, other = Policy.load(narrow, tuning="lora"), RewardModel.load(tmp_path, tuning="lora")
    utilities = other.utilities(PAIRS)
    once.keep(policy.lm)
    once.keep(other.decoder)
    assert torch.equal(other.utilities(PAIRS), utilities)
    del policy
    gc.collect()
    again = RewardModel.load(tmp_path, tuning="lora")
    once.keep(other.decoder)
    once.keep(again.decoder)
    name = "layers.0.mlp.up_proj.base_layer.weight"
    assert again.decoder.get_parameter(name).data_ptr() == other.decoder.get_parameter(name).data_ptr()
