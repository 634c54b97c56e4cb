"""Whether the scores that the policy learns from drift: those given last against those given before.

Scores of all reward versions can be compared, each being normalised on reference answers.
"""

import math
from collections import deque
from collections.abc import Iterable, Sequence
from statistics import quantiles

WINDOW = 512
"""Scores of each side; with fewer than a quarter of them there is no telling drift from chance."""
BINS = 10


class ScoreDrift:
    """The last scores, and those before them."""

    def __init__(self) -> None:
        self._scores: deque[float] = deque(maxlen=2 * WINDOW)

    def add(self, scores: Iterable[float]) -> float:
        """The index with these; NaN before there are enough. What is not finite does not count."""
        self._scores.extend(filter(math.isfinite, scores))
        half = len(self._scores) // 2
        if half < WINDOW // 4:
            return math.nan
        known = list(self._scores)
        return population_stability(known[:half], known[half:])


def population_stability(before: Sequence[float], now: Sequence[float], bins: int = BINS) -> float:
    """Population stability index, Σ (q − p) ln(q / p), of shares p of `before` and q of `now`, nats: the KL both ways.

    Over `bins` between the quantiles of `before` (Siddiqi 2006, Credit Risk Scorecards, p. 136); half a score is added
    to each bin, so that an empty one is no infinity. Without drift it is about (bins − 1)(1/n + 1/m), n and m being the
    numbers of scores (Yurdakul 2018): 0.035 for two windows of WINDOW.
    """
    edges = quantiles(before, n=bins)

    def shares(scores: Sequence[float]) -> list[float]:
        counts = [0.5] * bins
        for score in scores:
            counts[sum(score > edge for edge in edges)] += 1
        return [count / (len(scores) + bins / 2) for count in counts]

    return sum((q - p) * math.log(q / p) for p, q in zip(shares(before), shares(now), strict=True))
