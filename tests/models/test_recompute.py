from pathlib import Path

import pytest
import torch
from torch import Tensor

from rlhf_online.errors import InvalidInput
from rlhf_online.models import tree_attention
from rlhf_online.models.policy import Policy
from rlhf_online.models.recompute import recompute_layers
from rlhf_online.simulation.tiny_model import write_tiny_model

PAIRS = [((1, 9, 8), (20, 21, 22)), ((1, 9, 8), (30, 31)), ((1, 7), (6, 5, 40, 41))]


def _gradients(policy: Policy) -> tuple[dict[str, Tensor], int]:
    """Of the answers' log-probabilities, and how many values were kept for them."""
    kept = 0

    def count(tensor: Tensor) -> Tensor:
        nonlocal kept
        kept += tensor.numel()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        told = policy.forward(policy.collate(PAIRS)).logprobs_BA.sum()
    told.backward()
    found = {name: parameter.grad for name, parameter in policy.parameters().items() if parameter.grad is not None}
    return found, kept


@pytest.mark.parametrize("tuning", ["full", "lora"])
def test_gradients_are_those_of_kept_activations_and_less_is_kept(tmp_path: Path, tuning):
    write_tiny_model(tmp_path, weights_seed=3)
    plain, recomputed = (Policy.load(tmp_path, tuning=tuning) for _ in range(2))
    recompute_layers(recomputed.lm, lambda: recomputed.forward(recomputed.collate(PAIRS)).logprobs_BA)
    (expected, kept), (found, less) = _gradients(plain), _gradients(recomputed)
    assert found.keys() == expected.keys() and less < kept / 2
    for name, gradient in expected.items():
        assert torch.equal(found[name], gradient), name


@pytest.mark.parametrize("tuning", ["full", "lora"])
def test_what_is_sampled_and_measured_is_the_same(tmp_path: Path, tuning):
    """A layer that trains would forget what it has read, which sampling goes on from."""
    write_tiny_model(tmp_path, weights_seed=3)
    plain, recomputed = (Policy.load(tmp_path, tuning=tuning) for _ in range(2))
    tree_attention.recomputed(recomputed.lm, torch.float32)
    _gradients(recomputed)
    asked = {"max_tokens": 8, "temperature": 1.0, "seed": 5, "eos_ids": (2,)}
    prompts = [prompt for prompt, _ in PAIRS]
    assert recomputed.sample(prompts, **asked) == plain.sample(prompts, **asked)
    assert recomputed.logprobs(PAIRS) == plain.logprobs(PAIRS)
    assert recomputed.logprobs(PAIRS, reference=True) == plain.logprobs(PAIRS, reference=True)


def test_layers_that_would_drop_something_out_are_refused(tmp_path: Path):
    write_tiny_model(tmp_path, weights_seed=3)
    policy = Policy.load(tmp_path, tuning="full")
    layer = policy.lm.model.layers[0]
    forward = layer.forward
    layer.forward = lambda states, *args, **kwargs: forward(
        torch.nn.functional.dropout(states, 0.5, layer.training), *args, **kwargs
    )
    with pytest.raises(InvalidInput, match=r"'llama'.*leave recompute off"):
        recompute_layers(policy.lm, lambda: policy.forward(policy.collate(PAIRS)).logprobs_BA)
