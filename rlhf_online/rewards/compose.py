"""Several objectives' scores → one score, by weights that an operator chooses (`rewards.weights`). Pure.

The weights count by their proportions: whatever they are, the combined score has mean 0 and variance 1 over the
reference answers, as each objective's has, so that the KL coefficient keeps its meaning when they are changed.

Rules (`rewards.rules`) are not among them: a rule says itself what it is worth, in standard deviations of that score,
and its reward is added to it as often as its weight says. It has no spread, since nothing about it is uncertain.

Shapes: N answers, O objectives, K heads, R rules, d hidden width.
"""

import torch
from torch import Tensor

LEAST_VARIANCE = 1e-3
"""Of the weighted sum: objectives that say nearly the opposite of each other leave nothing to enlarge."""


def coefficients(weights_O: Tensor, correlation_OO: Tensor) -> Tensor:
    """What each objective's normalised score is multiplied by: w / √(wᵀ C w), (O,).

    C is the objectives' correlation over the reference answers, so that the sum has variance 1 over these. One whose
    scores are 0, as long as nothing has taught it, has no variance there and no part in the sum's.
    """
    variance, parts = weights_O @ correlation_OO @ weights_O, weights_O.square() @ correlation_OO.diagonal()
    return (
        weights_O / torch.maximum(variance, LEAST_VARIANCE * parts).clamp(min=torch.finfo(variance.dtype).tiny).sqrt()
    )


def combine(scores_NOK: Tensor, weights_O: Tensor, correlation_OO: Tensor) -> tuple[Tensor, Tensor]:
    """The combined score and its spread, (N,) each: mean and standard deviation (biased, ÷ K) over the heads.

    Head k of the combination is the weighted sum of the objectives' heads k, which have read the same bootstrap.
    """
    combined_NK = by_head(scores_NOK, weights_O, correlation_OO)
    return combined_NK.mean(1), combined_NK.std(1, unbiased=False)


def by_head(scores_NOK: Tensor, weights_O: Tensor, correlation_OO: Tensor) -> Tensor:
    """The combined score by each head, (N, K)."""
    return torch.einsum("nok,o->nk", scores_NOK, coefficients(weights_O, correlation_OO))


def with_rules(score_N: Tensor, rewards_NR: Tensor, weights_R: Tensor) -> Tensor:
    """The combined score with the rules' rewards, (N,)."""
    return score_N + rewards_NR @ weights_R
