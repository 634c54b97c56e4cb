"""How good a reward model is on votes that it never learned from, with 95 % intervals. Pure.

The pairs of one ranking, and the votes of one conversation, are not independent, so an interval counts conversations:
that of a share is Wilson's (1927) at the effective number of samples, n divided by the design effect (Kish 1965) of the
clusters; that of the calibration error is the percentile bootstrap over conversations.
"""

from collections.abc import Hashable, Sequence

import torch

from rlhf_online.intervals import Share, wilson

CALIBRATION_BINS = 10
RESAMPLES = 500


def ordered(ups: Sequence[tuple[Hashable, float]], downs: Sequence[tuple[Hashable, float]]) -> Share:
    """How often an answer with a thumb up has a higher utility than one with a thumb down (the area under the ROC).

    Of (cluster, utility) each; ties count half. There are no more independent pairs than clusters on the smaller side,
    and the interval takes it as that many. `n` is the number of thumbs.
    """
    n = len(ups) + len(downs)
    if not ups or not downs:
        return Share(0.0, 0.0, 1.0, n)
    wins = sum((up > down) + 0.5 * (up == down) for _, up in ups for _, down in downs)
    mean = wins / (len(ups) * len(downs))
    effective = min(len({cluster for cluster, _ in ups}), len({cluster for cluster, _ in downs}))
    return Share(mean, *wilson(mean, effective), n)


def calibration_error(confidence: Sequence[float], right: Sequence[float]) -> float:
    """Expected calibration error (Guo et al. 2017, eq. 5): Σ over bins of equal width of share · |accuracy − mean
    confidence|; confidences lie in [½, 1]. 0 for no predictions."""
    gaps = [0.0] * CALIBRATION_BINS
    for sure, outcome in zip(confidence, right, strict=True):
        gaps[_bin(sure)] += outcome - sure
    return sum(map(abs, gaps)) / max(1, len(right))


def calibration_interval(
    confidence: Sequence[float], right: Sequence[float], clusters: Sequence[Hashable], seed: int
) -> tuple[float, float]:
    """95 % interval of `calibration_error`: percentiles over bootstraps of the clusters; (0, 1) for fewer than two."""
    number = {cluster: index for index, cluster in enumerate(dict.fromkeys(clusters))}
    if len(number) < 2:
        return 0.0, 1.0
    gaps_CB, sizes_C = torch.zeros(len(number), CALIBRATION_BINS, dtype=torch.float64), torch.zeros(len(number))
    for sure, outcome, cluster in zip(confidence, right, clusters, strict=True):
        gaps_CB[number[cluster], _bin(sure)] += outcome - sure
        sizes_C[number[cluster]] += 1
    generator = torch.Generator().manual_seed(seed)
    drawn_RC = torch.randint(len(number), (RESAMPLES, len(number)), generator=generator)
    counts_RC = torch.zeros(RESAMPLES, len(number), dtype=torch.float64)
    counts_RC.scatter_add_(1, drawn_RC, torch.ones(drawn_RC.shape, dtype=torch.float64))
    errors_R = (counts_RC @ gaps_CB).abs().sum(1) / (counts_RC @ sizes_C.double())
    low, high = errors_R.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return low, high


def _bin(confidence: float) -> int:
    return min(max(int((confidence - 0.5) * 2 * CALIBRATION_BINS), 0), CALIBRATION_BINS - 1)
