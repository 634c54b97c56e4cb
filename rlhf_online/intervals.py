"""Intervals of measured shares. Pure, and without torch: the chat service shows them, too."""

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

Z = 1.959964
"""Standard deviations of a 95 % interval."""


def wilson(mean: float, n: float) -> tuple[float, float]:
    """Wilson's (1927) 95 % interval of a probability whose estimate from `n` independent samples is `mean`."""
    centre = (mean + Z * Z / (2 * n)) / (1 + Z * Z / n)
    half = Z / (1 + Z * Z / n) * math.sqrt(mean * (1 - mean) / n + Z * Z / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)


@dataclass(frozen=True, slots=True)
class Share:
    """A share of `n` samples, and its 95 % interval; value 0 and interval 0 … 1 where there is no sample."""

    value: float
    low: float
    high: float
    n: int


def share(right: Sequence[float], clusters: Sequence[Hashable]) -> Share:
    """The mean of `right`, values in [0, 1], of which those of one cluster may depend on each other.

    The interval is Wilson's at the effective number of samples: n divided by the design effect (Kish 1965).
    """
    n, names = len(right), len(set(clusters))
    if n == 0:
        return Share(0.0, 0.0, 1.0, 0)
    mean = sum(right) / n
    residuals: dict[Hashable, float] = {}
    for value, cluster in zip(right, clusters, strict=True):
        residuals[cluster] = residuals.get(cluster, 0.0) + value - mean
    effective = float(names)
    independent = mean * (1 - mean)
    if names > 1 and independent > 1e-12:
        variance = names / (names - 1) * sum(value * value for value in residuals.values()) / n**2
        effective = min(float(n), independent / max(variance, 1e-12))
    return Share(mean, *wilson(mean, effective), n)
