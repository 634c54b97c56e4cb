"""Log-probabilities, entropies and divergences in pieces, against softmax written out; gradients against autograd's."""

import copy
import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from rlhf_online.algorithms.masked import masked_fill
from rlhf_online.models import token_head
from rlhf_online.models.token_head import _logits, compared, predictions
from tests.support import enumerable

N, D, V = 23, 8, 40


def _inputs(*, bias: bool, learns: bool) -> tuple[nn.Linear, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    head = nn.Linear(D, V, bias=bias, dtype=torch.float64).requires_grad_(learns)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.copy_(normal(*parameter.shape))
    tokens_N = torch.randint(V, (N,), generator=generator)
    return head, normal(N, D).requires_grad_(), tokens_N, torch.linspace(0.5, 2, N, dtype=torch.float64)


def _plain(head: nn.Linear, hidden_Nd: Tensor, tokens_N: Tensor, temperature_N: Tensor) -> tuple[Tensor, Tensor]:
    logprobs_NV = (head(hidden_Nd) / temperature_N.unsqueeze(1)).log_softmax(1)
    return logprobs_NV[torch.arange(N), tokens_N], -(logprobs_NV.exp() * logprobs_NV).sum(1)


@pytest.mark.parametrize("entropies", [True, False])
@pytest.mark.parametrize("learns", [True, False])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("floats", [1, 5 * V, 1 << 20])
def test_values_and_gradients_are_those_of_softmax(
    monkeypatch: pytest.MonkeyPatch, floats: int, bias: bool, learns: bool, entropies: bool
):
    monkeypatch.setattr(token_head, "PIECE_FLOATS", floats)
    found = []
    for said in (_plain, lambda *inputs: predictions(*inputs, entropies=entropies)):
        inputs = _inputs(bias=bias, learns=learns)
        logprobs_N, entropies_N = said(*inputs)
        weights_N = torch.linspace(-1, 2, N, dtype=torch.float64)
        loss = (weights_N * logprobs_N).sum()
        if entropies_N is not None and entropies:
            loss = loss + (weights_N.square() * entropies_N).sum()
        loss.backward()
        gradients = [inputs[1].grad, *(p.grad for p in inputs[0].parameters() if learns)]
        found.append([logprobs_N, *([entropies_N] if entropies else []), *gradients])
    for one, other in zip(*found, strict=True):
        assert one.abs().max() > 0.1 and torch.allclose(one, other, rtol=0, atol=1e-10)


def test_without_a_gradient_nothing_is_kept_and_without_entropies_none_are_told():
    inputs = _inputs(bias=False, learns=True)
    with torch.no_grad():
        logprobs_N, entropies_N = predictions(*inputs)
    assert entropies_N is None and not logprobs_N.requires_grad
    assert torch.allclose(logprobs_N, _plain(*inputs)[0])


def _nearby(head: nn.Linear, hidden_Nd: Tensor, apart: float) -> tuple[nn.Linear, Tensor]:
    """Another output layer, and other states."""
    generator = torch.Generator().manual_seed(1)
    other = nn.Linear(D, V, bias=head.bias is not None, dtype=torch.float64)
    with torch.no_grad():
        for theirs, ours in zip(other.parameters(), head.parameters(), strict=True):
            theirs.copy_(ours + apart * torch.randn(ours.shape, generator=generator, dtype=torch.float64))
    return other, hidden_Nd + apart * torch.randn(hidden_Nd.shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("floats", [1, 5 * V, 1 << 20])
def test_a_divergence_is_that_of_softmax(monkeypatch: pytest.MonkeyPatch, floats: int, bias: bool):
    monkeypatch.setattr(token_head, "PIECE_FLOATS", floats)
    head, hidden_Nd, tokens_N, temperature_N = _inputs(bias=bias, learns=True)
    others = _nearby(head, hidden_Nd, 0.5)
    logprobs_N, others_N, kl_N = compared((head, hidden_Nd), others, tokens_N, temperature_N)
    p_NV, q_NV = (
        (layer(states_Nd) / temperature_N.unsqueeze(1)).log_softmax(1)
        for layer, states_Nd in ((head, hidden_Nd), others)
    )
    rows_N = torch.arange(N)
    for found, expected in ((logprobs_N, p_NV[rows_N, tokens_N]), (others_N, q_NV[rows_N, tokens_N])):
        assert torch.allclose(found, expected, rtol=0, atol=1e-10)
    assert torch.allclose(kl_N, (p_NV.exp() * (p_NV - q_NV)).sum(1), rtol=0, atol=1e-10) and kl_N.min() > 0.01
    assert not kl_N.requires_grad


def test_the_divergences_at_an_answers_tokens_are_on_average_the_kl_of_whole_answers_and_vary_less_than_k1():
    """Over all 781 answers to each prompt of an enumerable world, each as often as the policy gives it."""
    world, answers = enumerable.EnumerableWorld.drawn(0), enumerable.all_answers()
    generator = torch.Generator().manual_seed(0)
    shift_PXV = 0.5 * torch.randn(world.reference_PXV.shape, generator=generator, dtype=torch.float64)
    policy_PXV = (world.reference_PXV + shift_PXV).log_softmax(-1)
    size = policy_PXV.shape[-1]
    says = nn.Linear(size, size, bias=False, dtype=torch.float64)
    nn.init.eye_(says.weight)
    one, other = ((says, table_PXV.reshape(-1, size)) for table_PXV in (policy_PXV, world.reference_PXV))
    states = len(one[1])
    _, _, kl_N = compared(one, other, torch.zeros(states, dtype=torch.long), torch.ones(states, dtype=torch.float64))
    each_PAT = kl_N.reshape(policy_PXV.shape[:2])[:, answers.prefixes_AT]
    exact_PA = masked_fill(each_PAT, answers.mask_AT).sum(2)
    k1_PA = enumerable.answer_logprobs(policy_PXV) - enumerable.answer_logprobs(world.reference_PXV)
    p_PA = enumerable.answer_logprobs(policy_PXV).exp()

    def variance(told_PA: Tensor) -> Tensor:
        return (p_PA * (told_PA - (p_PA * told_PA).sum(1, keepdim=True)).square()).sum(1)

    assert (p_PA * exact_PA).sum(1).mean().item() == pytest.approx(world.kl(policy_PXV).item(), abs=1e-10)
    assert (variance(exact_PA) < variance(k1_PA) / 5).all()
    assert k1_PA.min() < 0 < exact_PA.min()


def test_rounding_takes_no_divergence_below_0():
    """Of distributions that are equal, and of such as differ by less than float32 can tell."""
    head, hidden_Nd, tokens_N, temperature_N = _inputs(bias=True, learns=True)
    for apart in (0.0, 1e-8, 1e-7, 1e-6, 1e-5):
        other, others_Nd = _nearby(head, hidden_Nd, apart)
        one = copy.deepcopy(head).float(), hidden_Nd.float()
        *_, kl_N = compared(one, (other.float(), others_Nd.float()), tokens_N, temperature_N)
        assert kl_N.min() >= 0 and kl_N.max() < 1e-5 and (apart > 0 or not kl_N.any())


def test_a_divergence_is_infinite_where_the_other_cannot_draw_what_one_draws_and_no_number_where_one_says_none():
    head, hidden_Nd, tokens_N, temperature_N = _inputs(bias=True, learns=False)
    never, _ = _nearby(head, hidden_Nd, 0.0)
    with torch.no_grad():
        never.bias[-1] = -math.inf
    finite, fewer, infinite, none = (
        compared(one, other, tokens_N % (V - 1), temperature_N)[2]
        for one, other in (
            ((never, hidden_Nd), (never, 2 * hidden_Nd)),
            ((never, hidden_Nd), (head, hidden_Nd)),
            ((head, hidden_Nd), (never, hidden_Nd)),
            ((head, hidden_Nd * math.nan), (head, hidden_Nd)),
        )
    )
    assert finite.isfinite().all() and fewer.isfinite().all() and finite.min() > 0 and fewer.min() > 0
    assert infinite.isposinf().all() and none.isnan().all()


def test_no_token_has_no_logprob():
    head, hidden_Nd, tokens_N, temperature_N = _inputs(bias=False, learns=True)
    logprobs_N, _ = predictions(head, hidden_Nd[:0], tokens_N[:0], temperature_N[:0])
    *_, kl_N = compared((head, hidden_Nd[:0]), (head, hidden_Nd[:0]), tokens_N[:0], temperature_N[:0])
    assert logprobs_N.shape == kl_N.shape == (0,)


def test_under_autocast_products_are_bfloat16_and_the_softmax_is_not():
    """Its rounding is that of logits, about a hundredth of them; a softmax in bfloat16 could not tell .001 from 0."""
    head, hidden_Nd, tokens_N, temperature_N = _inputs(bias=False, learns=True)
    head, hidden_Nd = head.float(), hidden_Nd.detach().float().requires_grad_()
    exact_N, _ = predictions(head, hidden_Nd, tokens_N, temperature_N)
    (expected_Nd,) = torch.autograd.grad(exact_N.sum(), hidden_Nd)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logprobs_N, _ = predictions(head, hidden_Nd, tokens_N, temperature_N)
    logprobs_N.sum().backward()
    assert logprobs_N.dtype == torch.float32 and not torch.equal(logprobs_N, exact_N)
    assert (logprobs_N - exact_N).abs().max() < 0.2
    assert hidden_Nd.grad is not None
    assert functional.cosine_similarity(hidden_Nd.grad, expected_Nd).min() > 0.99
    assert head.weight.grad is not None and head.weight.grad.dtype == torch.float32
    with torch.autocast("cpu", dtype=torch.bfloat16):
        same_N, _, kl_N = compared((head, hidden_Nd), (head, 2 * hidden_Nd), tokens_N, temperature_N)
    assert torch.equal(same_N, logprobs_N) and kl_N.dtype == torch.float32
    *_, exact_N = compared((head, hidden_Nd), (head, 2 * hidden_Nd), tokens_N, temperature_N)
    assert not torch.equal(kl_N, exact_N) and torch.allclose(kl_N, exact_N, rtol=0.05, atol=0.01)


def test_a_token_that_cannot_be_adds_nothing_to_an_entropy_nor_to_a_gradient():
    """Its logit is −∞, and 0 log 0 is 0."""
    head, hidden_Nd, tokens_N, temperature_N = _inputs(bias=True, learns=False)
    tokens_N = tokens_N % (V - 1)
    shorter = nn.Linear(D, V - 1, dtype=torch.float64).requires_grad_(False)
    with torch.no_grad():
        shorter.weight.copy_(head.weight[:-1])
        shorter.bias.copy_(head.bias[:-1])
        head.bias[-1] = -math.inf
    found = []
    for layer in (head, shorter):
        logprobs_N, entropies_N = predictions(layer, hidden_Nd, tokens_N, temperature_N, entropies=True)
        assert entropies_N is not None
        gradients = torch.autograd.grad((logprobs_N + entropies_N).sum(), hidden_Nd)
        found.append((logprobs_N, entropies_N, *gradients))
    for one, other in zip(*found, strict=True):
        assert torch.allclose(one, other, rtol=0, atol=1e-10)


def test_a_softmax_too_wide_for_memory_is_never_whole(monkeypatch: pytest.MonkeyPatch):
    """Of many rows and 40 tokens never more than two rows' logits at once, or one row's of each of two models."""
    monkeypatch.setattr(token_head, "PIECE_FLOATS", 2 * V)
    seen: list[Tensor] = []
    monkeypatch.setattr(token_head, "_logits", lambda *args: seen.append(made := _logits(*args)) or made)
    head, hidden_Nd, tokens_N, temperature_N = _inputs(bias=False, learns=True)
    predictions(head, hidden_Nd, tokens_N, temperature_N)[0].sum().backward()
    assert len(seen) == 2 * -(-N // 2) and max(made.numel() for made in seen) == 2 * V
    seen.clear()
    compared((head, hidden_Nd), (head, hidden_Nd), tokens_N, temperature_N)
    assert len(seen) == 2 * N and max(made.numel() for made in seen) == V
