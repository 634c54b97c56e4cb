"""Sums, means and whitening over the real positions of padded tensors.

Shapes: B sequences, T tokens (of the answer). A mask is True where a position is real.
Invariant: whatever a masked position holds, NaN and infinities included, changes neither a result nor a gradient by
one bit, because it is replaced by zero before it enters any arithmetic.
"""

import torch
from torch import Tensor

from rlhf_online.algorithms.arguments import boolean

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
