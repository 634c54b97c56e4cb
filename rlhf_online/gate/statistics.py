"""What a difference between two versions' answers is worth: exact tests and false-discovery control. Pure.

Every check that compares how often something stands in the candidate's answers and in the live version's asks
`rise_p`, so that a few answers more or less, which sampling gives by itself, object to nothing.
"""

import math
import statistics
from collections.abc import Sequence
from functools import lru_cache

from rlhf_online.intervals import Z

LEVEL = 0.05
"""A rise counts where chance alone gives one as large less often than this."""


@lru_cache(maxsize=65_536)
def rise_p(count: int, n: int, live_count: int, live_n: int) -> float:
    """P of `count` or more of `n`, if both rates are one: Fisher's exact test, one-sided (Fisher 1935, *The Design of
    Experiments*, ch. 2; the upper tail of a hypergeometric distribution). 1 where there is nothing to compare.

    Answers to one prompt by both versions are taken as independent; where they are alike that makes P too large.
    """
    if not n or not live_n:
        return 1.0
    total = count + live_count
    ways = _log_choose(n + live_n, total)
    terms = (
        math.exp(_log_choose(n, k) + _log_choose(live_n, total - k) - ways)
        for k in range(max(count, total - live_n), min(n, total) + 1)
    )
    return min(1.0, sum(terms))


def rises(counts: tuple[int, int], live: tuple[int, int], max_rise: float) -> bool:
    """Whether a rate, (how many, of how many), is more than `max_rise` above the live version's, and not by chance."""
    (count, n), (live_count, live_n) = counts, live
    higher = count / max(1, n) - live_count / max(1, live_n) > max_rise
    return higher and rise_p(count, n, live_count, live_n) < LEVEL


def discoveries(p_values: Sequence[float], level: float = LEVEL) -> list[int]:
    """Indices of those that are no chance, smallest first, of which at most `level` are expected to be: the step-up
    procedure of Benjamini and Hochberg (1995), k = max {i : p₍ᵢ₎ ≤ i · level / m}."""
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    last = max((i for i, index in enumerate(order, 1) if p_values[index] <= i * level / len(order)), default=0)
    return order[:last]


def nearness(p_values: Sequence[float], level: float) -> float:
    """1 and more where there are `discoveries`: the largest i · level / (m p₍ᵢ₎). NaN of none."""
    ordered = sorted(p_values)
    return max((level * i / len(ordered) / max(p, 1e-300) for i, p in enumerate(ordered, 1)), default=math.nan)


def mean_interval(values: Sequence[float]) -> tuple[float, float]:
    """The mean, and half the width of its 95 % interval by the normal approximation; of one value nothing is known."""
    if len(values) < 2:
        return (values[0] if values else 0.0), math.inf
    return statistics.fmean(values), Z * statistics.stdev(values) / math.sqrt(len(values))


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
