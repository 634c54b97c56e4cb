"""Log-probabilities of tokens after the states that predict them, entropies and divergences, without all logits in
memory.

The output layer and its softmax are computed for some rows at a time, and the gradient with respect to a row's state as
soon as its softmax is there:

    ∂ log p(token) / ∂h = (W[token] − p W) / temperature        ∂H / ∂h = (−p log p − H p) W / temperature

so that only those, (N, d), are kept, and logits are computed a second time only for an output layer that learns.
Products are of the type that layers compute in, softmax and sums in float32 or better.

Shapes: N tokens, d hidden width, V vocabulary; n rows of a piece.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from rlhf_online.models.compiled import fused

PIECE_FLOATS = 1 << 24
"""Logits in memory at once, on a CPU."""
GPU_ROWS = 4096
"""Rows of a piece on a GPU, which smaller products leave idle."""

States = tuple[nn.Module, Tensor]
"""A model's output layer, and the states that it reads, (N, d)."""


def predictions(
    head: nn.Module, hidden_Nd: Tensor, tokens_N: Tensor, temperature_N: Tensor, *, entropies: bool = False
) -> tuple[Tensor, Tensor | None]:
    """Log-probabilities of N tokens by softmax(head(hidden) / temperature), and the entropies of these distributions
    (nats) if asked for: (N,) each, float32 or better."""
    layer = _linear(head)
    found: Any = _Predictions.apply(
        hidden_Nd, layer.weight, layer.bias, tokens_N, temperature_N.reshape(-1, 1), entropies
    )
    return found[0], found[1] if entropies else None


@torch.no_grad()
def compared(one: States, other: States, tokens_N: Tensor, temperature_N: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Log-probabilities of N tokens by one model and by another of the same vocabulary, and how far the distributions
    that they come from are apart, KL(one ‖ other), nats, never below 0: (N,) each, float32 or better."""
    tokens_N1, temperature_N1 = tokens_N.unsqueeze(1), temperature_N.reshape(-1, 1)
    first, second = (_logits_of(*states, temperature_N1) for states in (one, other))
    found_3N = one[1].new_zeros(3, len(tokens_N), dtype=torch.promote_types(one[1].dtype, torch.float32))
    for piece in _pieces(one[1], _linear(one[0]).weight, models=2):
        logits_nV, others_nV = first(piece), second(piece)
        found_3N[0, piece], total_n = _read(logits_nV, tokens_N1[piece])
        found_3N[1, piece], others_total_n = _read(others_nV, tokens_N1[piece])
        found_3N[2, piece] = _divergence(logits_nV, total_n.unsqueeze(1), others_nV, others_total_n.unsqueeze(1))
    return found_3N[0], found_3N[1], found_3N[2]


class _Predictions(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden_Nd: Tensor,
        weight_Vd: Tensor,
        bias_V: Tensor | None,
        tokens_N: Tensor,
        temperature_N1: Tensor,
        entropies: bool,
    ) -> tuple[Tensor, Tensor]:
        scaled_Nd, cast_Vd, temperature_N1 = _operands(hidden_Nd, weight_Vd, temperature_N1)
        dtype, wide = scaled_Nd.dtype, temperature_N1.dtype
        logprobs_N, total_N, entropies_N = (scaled_Nd.new_zeros(len(tokens_N), dtype=wide) for _ in range(3))
        towards_Nd = torch.zeros_like(scaled_Nd, dtype=wide) if ctx.needs_input_grad[0] else None
        spread_Nd = torch.zeros_like(scaled_Nd, dtype=wide) if ctx.needs_input_grad[0] and entropies else None
        for piece in _pieces(scaled_Nd, weight_Vd):
            logits_nV = _logits(scaled_Nd[piece], cast_Vd, bias_V, temperature_N1[piece])
            logprobs_N[piece], total_N[piece] = _read(logits_nV, tokens_N[piece].unsqueeze(1))
            if towards_Nd is None and not entropies:
                continue
            share_nV, surprise_nV, entropies_n = _shares(logits_nV, total_N[piece].unsqueeze(1), entropies, dtype)
            if entropies_n is not None:
                entropies_N[piece] = entropies_n
            if towards_Nd is not None:
                mean_nd = _product(share_nV, cast_Vd)
                towards_Nd[piece] = cast_Vd[tokens_N[piece]] - mean_nd
                if spread_Nd is not None:
                    spread_Nd[piece] = _product(surprise_nV, cast_Vd)
                    spread_Nd[piece] -= entropies_N[piece].unsqueeze(1) * mean_nd
        ctx.save_for_backward(scaled_Nd, weight_Vd, bias_V, tokens_N, temperature_N1, total_N, towards_Nd, spread_Nd)
        ctx.entropies = entropies
        return logprobs_N, entropies_N

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> Any:
        with torch.no_grad():  # there is no gradient of it
            return _gradients(ctx, *grad_outputs)


def _gradients(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
    scaled_Nd, weight_Vd, bias_V, tokens_N, temperature_N1, total_N, towards_Nd, spread_Nd = ctx.saved_tensors
    chosen_N1, entropy_N1 = (gradient_N.unsqueeze(1) for gradient_N in gradients)
    hidden_Nd = weight_gradient_Vd = bias_gradient_V = None
    if towards_Nd is not None:
        hidden_Nd = chosen_N1 * towards_Nd
        if spread_Nd is not None:
            hidden_Nd += entropy_N1 * spread_Nd
        hidden_Nd /= temperature_N1
    if ctx.needs_input_grad[1]:
        dtype, wide = scaled_Nd.dtype, total_N.dtype
        cast_Vd = weight_Vd.to(dtype)
        weight_gradient_Vd = torch.zeros_like(weight_Vd, dtype=wide)
        weight_gradient_Vd.index_add_(0, tokens_N, chosen_N1 * scaled_Nd)
        bias_gradient_V = None if bias_V is None else torch.zeros_like(bias_V, dtype=wide)
        if bias_gradient_V is not None:
            bias_gradient_V.index_add_(0, tokens_N, (chosen_N1 / temperature_N1).squeeze(1))
        for piece in _pieces(scaled_Nd, weight_Vd):
            logits_nV = _logits(scaled_Nd[piece], cast_Vd, bias_V, temperature_N1[piece])
            entropy_n1 = entropy_N1[piece] if ctx.entropies else None
            pull_nV = _pull(logits_nV, total_N[piece].unsqueeze(1), chosen_N1[piece], entropy_n1, dtype)
            weight_gradient_Vd += _product(pull_nV.T, scaled_Nd[piece])
            if bias_gradient_V is not None:
                bias_gradient_V += (pull_nV / temperature_N1[piece]).sum(0)
    return hidden_Nd, weight_gradient_Vd, bias_gradient_V, None, None, None


@fused
def _read(logits_nV: Tensor, tokens_n1: Tensor) -> tuple[Tensor, Tensor]:
    """Log-probabilities of the tokens, and what all of a row's logits add up to."""
    total_n = logits_nV.logsumexp(1)
    return logits_nV.gather(1, tokens_n1).squeeze(1) - total_n, total_n


@fused
def _shares(
    logits_nV: Tensor, total_n1: Tensor, entropies: bool, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor | None]:
    """p and, where asked for, −p log p, in `dtype`, and the sums of those."""
    share_nV = _share(logits_nV, total_n1)
    if not entropies:
        return share_nV.to(dtype), share_nV, None
    surprise_nV = torch.special.entr(share_nV)
    return share_nV.to(dtype), surprise_nV.to(dtype), surprise_nV.sum(1)


@fused
def _divergence(logits_nV: Tensor, total_n1: Tensor, others_nV: Tensor, others_total_n1: Tensor) -> Tensor:
    """Σ p (log p − log q), to which a token that p cannot draw adds nothing. It is rounded, to 0 at least."""
    logprobs_nV = logits_nV - total_n1
    share_nV = logprobs_nV.exp()
    apart_nV = share_nV * (logprobs_nV - (others_nV - others_total_n1))
    return apart_nV.masked_fill(share_nV == 0, 0).sum(1).clamp(min=0)


@fused
def _pull(
    logits_nV: Tensor, total_n1: Tensor, chosen_n1: Tensor, entropy_n1: Tensor | None, dtype: torch.dtype
) -> Tensor:
    """The gradient with respect to the logits but for the token's own, in `dtype`."""
    share_nV = _share(logits_nV, total_n1)
    if entropy_n1 is None:
        return (-chosen_n1 * share_nV).to(dtype)
    surprise_nV = torch.special.entr(share_nV)
    lost_n1 = chosen_n1 + entropy_n1 * surprise_nV.sum(1, keepdim=True)
    return (entropy_n1 * surprise_nV - lost_n1 * share_nV).to(dtype)


def _share(logits_nV: Tensor, total_n1: Tensor) -> Tensor:
    """p; on a CPU, where a new tensor is dear, in the place of the logits."""
    return (logits_nV - total_n1).exp() if logits_nV.is_cuda else logits_nV.sub_(total_n1).exp_()


def _pieces(states_Nd: Tensor, weight_Vd: Tensor, models: int = 1) -> Iterator[slice]:
    """Of rows whose logits, those of so many models, are in memory at once."""
    rows = max(1, (GPU_ROWS if states_Nd.is_cuda else PIECE_FLOATS // weight_Vd.shape[0]) // models)
    return (slice(begin, begin + rows) for begin in range(0, len(states_Nd), rows))


def _operands(hidden_Nd: Tensor, weight_Vd: Tensor, temperature_N1: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """States divided by their temperatures, and the output embedding, both of the type that layers compute in; the
    temperatures, float32 or better."""
    device = hidden_Nd.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden_Nd.dtype
    temperature_N1 = temperature_N1.to(torch.promote_types(dtype, torch.float32))
    return (hidden_Nd / temperature_N1).to(dtype), weight_Vd.to(dtype), temperature_N1


def _logits_of(head: nn.Module, hidden_Nd: Tensor, temperature_N1: Tensor) -> Callable[[slice], Tensor]:
    """Gives the logits of some rows."""
    layer = _linear(head)
    scaled_Nd, cast_Vd, wide_N1 = _operands(hidden_Nd, layer.weight, temperature_N1)
    return lambda rows: _logits(scaled_Nd[rows], cast_Vd, layer.bias, wide_N1[rows])


def _linear(head: nn.Module) -> nn.Linear:
    assert isinstance(head, nn.Linear), "an output layer is linear"
    return head


def _logits(scaled_nd: Tensor, weight_Vd: Tensor, bias_V: Tensor | None, temperature_n1: Tensor) -> Tensor:
    """A new tensor, float32 or better."""
    logits_nV = _product(scaled_nd, weight_Vd.T)
    return logits_nV if bias_V is None else logits_nV.add_(bias_V / temperature_n1)


def _product(left: Tensor, right: Tensor) -> Tensor:
    """left @ right in float32 or better: a GPU adds up in that, and need not round what it has."""
    wide = torch.promote_types(left.dtype, torch.float32)
    if left.is_cuda and left.dtype != wide:
        return torch.mm(left, right, out_dtype=wide)
    return (left @ right).to(wide)
