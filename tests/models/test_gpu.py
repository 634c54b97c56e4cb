"""What runs on a GPU alone: attention by spans, products that stay float32, snapshots (`scripts/gpu_check.sh`)."""

import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from rlhf_online.models import tree_attention
from rlhf_online.models.packing import Spans
from rlhf_online.models.policy import Policy
from rlhf_online.models.token_head import predictions
from rlhf_online.models.tokens import Pair
from rlhf_online.models.transfer import onto
from rlhf_online.simulation.tiny_model import write_tiny_model
from rlhf_online.training.optimiser import NamedAdam

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def _pairs() -> list[Pair]:
    rng = random.Random(0)

    def ids(most: int) -> tuple[int, ...]:
        return tuple(rng.randrange(5, 78) for _ in range(rng.randint(1, most)))

    return [((1, 9, 8, *prompt), ids(9)) for prompt in (ids(8) for _ in range(10)) for _ in range(4)]


def test_attention_by_spans_is_that_by_masks_and_so_is_the_gradient(tmp_path: Path):
    """Both in bfloat16, and rounded otherwise."""
    write_tiny_model(tmp_path, weights_seed=3)
    found = []
    for spans in (True, False):
        policy = Policy.load(tmp_path, tuning="full", device="cuda", dtype=torch.bfloat16)
        assert policy.packer.spans, "this GPU has a kernel for heads of 32"
        policy.packer = replace(policy.packer, spans=spans)
        logprobs_BA = policy.forward(policy.collate(_pairs())).logprobs_BA
        logprobs_BA.sum().backward()
        found.append((logprobs_BA.detach(), {n: p.grad for n, p in policy.parameters().items()}))
    (logprobs_BA, gradients), (masked_BA, masked) = found
    assert (logprobs_BA - masked_BA).abs().mean() < 0.02
    for name, gradient in gradients.items():
        other = masked[name]
        assert gradient is not None and other is not None
        assert nn.functional.cosine_similarity(gradient.flatten(), other.flatten(), dim=0) > 0.98, name


def test_gradients_of_a_token_that_many_see_add_up_though_each_is_small_beside_the_sum():
    row = torch.zeros(1, 1, 1, 8, device="cuda", dtype=torch.bfloat16, requires_grad=True)
    nothing = torch.zeros(1, device="cuda", dtype=torch.int32)
    spans = Spans(torch.zeros(2000, device="cuda", dtype=torch.long), nothing, nothing, 1, 1)
    tree_attention._seen_KHd(row, spans).sum().backward()  # noqa: SLF001
    assert row.grad is not None and row.grad.flatten().tolist() == [2000] * 8


def test_logits_are_not_rounded_to_the_type_of_their_product():
    generator = torch.Generator("cuda").manual_seed(0)
    head = nn.Linear(64, 500, bias=False, device="cuda")
    hidden_Nd = torch.randn(40, 64, device="cuda", generator=generator).bfloat16().float().requires_grad_()
    with torch.no_grad():
        head.weight.copy_(head.weight.bfloat16())
    tokens_N, ones_N = torch.arange(40, device="cuda"), torch.ones(40, device="cuda")
    exact_N, _ = predictions(head, hidden_Nd, tokens_N, ones_N)
    with torch.autocast("cuda", dtype=torch.bfloat16):
        found_N, _ = predictions(head, hidden_Nd, tokens_N, ones_N)
    found_N.sum().backward()
    assert (found_N - exact_N).abs().max() < 1e-4
    assert head.weight.grad is not None and head.weight.grad.dtype == torch.float32


@pytest.mark.parametrize("room", [True, False])
def test_a_snapshot_takes_a_step_back_wherever_it_lies(monkeypatch: pytest.MonkeyPatch, room: bool):
    weight = nn.Parameter(torch.ones(1000, device="cuda"))
    adam = NamedAdam({"w": weight}, betas=(0.9, 0.999), eps=1e-8)
    if not room:
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (0, 0))
    put_back = adam.snapshot()
    weight.square().sum().backward()
    adam.step(0.1)
    assert not torch.equal(weight, torch.ones_like(weight))
    put_back()
    assert torch.equal(weight, torch.ones_like(weight)) and not adam.state()


def test_moments_on_the_host_make_the_same_steps_and_take_them_back():
    weights = [nn.Parameter(torch.linspace(-1, 1, 1 << 20, device="cuda")) for _ in range(2)]
    adams = [
        NamedAdam({"w": weight}, betas=(0.9, 0.999), eps=1e-8, on_cpu=on_cpu)
        for weight, on_cpu in zip(weights, (False, True), strict=True)
    ]
    for weight, adam in zip(weights, adams, strict=True):
        for step in range(4):
            put_back = adam.snapshot()
            weight.grad = weight.detach() * (step + 1)
            adam.step(0.1)
            if step == 2:
                put_back()
    states = [adam.state() for adam in adams]
    assert torch.equal(*weights) and all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert all(adams[1]._state["w"][slot].is_pinned() for slot in ("exp_avg", "exp_avg_sq"))  # noqa: SLF001


def test_what_is_on_its_way_to_the_card_may_be_changed_at_once():
    values = torch.ones(1 << 20)
    there = onto(values, "cuda")
    values.zero_()
    assert there.sum().item() == 1 << 20
