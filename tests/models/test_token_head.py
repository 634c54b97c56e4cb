"""Log-probabilities and entropies in pieces, against softmax written out, and their gradients against autograd's."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from rlhf_online.models import token_head
from rlhf_online.models.token_head import _logits, predictions

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


def test_no_token_has_no_logprob():
    head, hidden_Nd, tokens_N, temperature_N = _inputs(bias=False, learns=True)
    logprobs_N, _ = predictions(head, hidden_Nd[:0], tokens_N[:0], temperature_N[:0])
    assert logprobs_N.shape == (0,)


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
    """Of 200 rows and 40 tokens never more than two rows' logits at once."""
    monkeypatch.setattr(token_head, "PIECE_FLOATS", 2 * V)
    seen: list[Tensor] = []
    monkeypatch.setattr(token_head, "_logits", lambda *args: seen.append(made := _logits(*args)) or made)
    head, hidden_Nd, tokens_N, temperature_N = _inputs(bias=False, learns=True)
    predictions(head, hidden_Nd, tokens_N, temperature_N)[0].sum().backward()
    assert len(seen) == 2 * -(-N // 2) and max(made.numel() for made in seen) == 2 * V
