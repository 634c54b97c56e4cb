"""Sums, means and whitening over the real positions of padded tensors; log-probabilities and entropies of tokens.

Shapes: B sequences, T tokens (of the answer), V vocabulary. A mask is True where a position is real.
Invariant: whatever a masked position holds, NaN and infinities included, changes neither a result nor a gradient by
one bit, because it is replaced by zero before it enters any arithmetic.
"""

import torch
from torch import Tensor

from rlhf_online.algorithms.arguments import boolean, bounded

Stats = dict[str, Tensor]
"""What a loss reports beside itself: detached scalars by name."""


def masked_fill(values_BT: Tensor, mask_BT: Tensor, fill: float = 0.0) -> Tensor:
    """`values_BT` with `fill` at masked positions; no gradient flows into those. The mask is of bool."""
    boolean("mask", mask_BT)
    return torch.where(mask_BT, values_BT, torch.full_like(values_BT, fill))


def masked_sum(values_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """Σ over real positions, a scalar."""
    return masked_fill(values_BT, mask_BT).sum()


def row_sums(values_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """Σ over the real positions of each row, (B,): the log-probability of a whole answer from those of its tokens."""
    return masked_fill(values_BT, mask_BT).sum(1)


def masked_mean(values_BT: Tensor, mask_BT: Tensor, denominator: float | Tensor | None = None) -> Tensor:
    """Σ over real positions ÷ `denominator`, by default their number (at least 1).

    A micro-batch passes the number of real positions of its whole minibatch, so that the gradients of the
    micro-batches add up to exactly that of the minibatch.
    """
    if denominator is None:
        denominator = mask_BT.sum().clamp(min=1)
    return masked_sum(values_BT, mask_BT) / denominator


def masked_variance(values_BT: Tensor, mask_BT: Tensor, *, unbiased: bool = False) -> Tensor:
    """Variance over real positions: ÷ n, or ÷ (n − 1) where `unbiased`."""
    n = mask_BT.sum()
    centred_BT = masked_fill(values_BT, mask_BT) - masked_mean(values_BT, mask_BT)
    return masked_sum(centred_BT.square(), mask_BT) / (n - 1 if unbiased else n).clamp(min=1)


def whiten(values_BT: Tensor, mask_BT: Tensor, *, shift_mean: bool = True, unbiased: bool = False) -> Tensor:
    """(values − mean) / sqrt(variance + 1e-8) over real positions, 0 at masked ones.

    The variance is the biased one (÷ n) unless `unbiased`; with `shift_mean=False` the mean is added back
    (lm-human-preferences whitens rewards so).
    """
    mean = masked_mean(values_BT, mask_BT)
    variance = masked_variance(values_BT, mask_BT, unbiased=unbiased)
    white_BT = (masked_fill(values_BT, mask_BT) - mean) * torch.rsqrt(variance + 1e-8)
    return masked_fill(white_BT if shift_mean else white_BT + mean, mask_BT)


def whitening_scale(values_BT: Tensor, mask_BT: Tensor) -> float:
    """1/σ, by which `whiten` multiplies differences."""
    return torch.rsqrt(masked_variance(values_BT, mask_BT) + 1e-8).item()


def token_logprobs(logits_NV: Tensor, tokens_N: Tensor, temperature_N: float | Tensor = 1.0) -> Tensor:
    """log softmax(logits / temperature)[token], in float32 or better.

    `logits_NV` may have any number of leading dimensions; `tokens_N` has all but the last. A tensor of temperatures
    has the shape of the tokens.
    """
    scaled_NV = _scaled(logits_NV, temperature_N)
    chosen_N = scaled_NV.gather(-1, tokens_N.unsqueeze(-1)).squeeze(-1)
    return chosen_N - scaled_NV.logsumexp(-1)


def token_entropies(logits_NV: Tensor, temperature_N: float | Tensor = 1.0) -> Tensor:
    """−Σ_v p log p, nats, of p = softmax(logits / temperature); shapes as for `token_logprobs`.

    A token whose logit is −∞ cannot be, and adds nothing: 0 log 0 is 0.
    """
    logprobs_NV = _scaled(logits_NV, temperature_N).log_softmax(-1)
    return -(logprobs_NV.exp() * logprobs_NV.masked_fill(logprobs_NV.isneginf(), 0.0)).sum(-1)


def _scaled(logits_NV: Tensor, temperature_N: float | Tensor) -> Tensor:
    """logits / temperature in float32 or better."""
    scaled_NV = logits_NV if logits_NV.dtype == torch.float64 else logits_NV.float()
    if isinstance(temperature_N, Tensor):
        return scaled_NV / temperature_N.unsqueeze(-1)
    bounded("temperature", temperature_N, above=0)
    return scaled_NV if temperature_N == 1.0 else scaled_NV / temperature_N
