"""Exact tests against enumeration, and the procedure of Benjamini and Hochberg by the example of their paper."""

import math
from fractions import Fraction
from itertools import combinations

import pytest

from rlhf_online.gate.statistics import discoveries, mean_interval, rise_p, rises


@pytest.mark.parametrize(
    ("count", "n", "live_count", "live_n"), [(3, 4, 1, 4), (2, 5, 2, 3), (0, 4, 2, 4), (4, 4, 0, 3)]
)
def test_a_rise_by_chance_is_as_likely_as_among_all_ways_to_deal_the_answers(count, n, live_count, live_n) -> None:
    """Fisher's exact test, by counting every way in which the same answers fall to the two versions."""
    marked = count + live_count
    ways = list(combinations(range(n + live_n), n))  # answers below `marked` have it
    as_large = sum(sum(answer < marked for answer in way) >= count for way in ways)
    assert rise_p(count, n, live_count, live_n) == pytest.approx(float(Fraction(as_large, len(ways))))


def test_the_lady_tasting_tea() -> None:
    """Fisher (1935): all four cups right of 70 ways to choose four of eight; three or more in 17 of them."""
    assert rise_p(4, 4, 0, 4) == pytest.approx(1 / 70)
    assert rise_p(3, 4, 1, 4) == pytest.approx(17 / 70)


def test_of_large_numbers_the_tail_stays_exact() -> None:
    """As good as the normal approximation with the same pooled variance: z = 2.83 of 128 and 128."""
    p = rise_p(64, 128, 42, 128)
    assert 0.003 < p < 0.006
    assert rise_p(0, 0, 1, 4) == rise_p(1, 4, 0, 0) == 1.0


def test_a_rise_must_be_large_and_no_chance() -> None:
    assert rises((30, 100), (10, 100), 0.1)
    assert not rises((3, 10), (1, 10), 0.1)  # as large, by few
    assert not rises((19, 100), (10, 100), 0.1)
    assert not rises((10, 100), (30, 100), 0.0)


def test_the_example_of_benjamini_and_hochberg() -> None:
    """Their section 3.2: fifteen p-values, of which the four smallest are rejected at .05 (by Bonferroni three)."""
    p = [
        0.0001,
        0.0004,
        0.0019,
        0.0095,
        0.0201,
        0.0278,
        0.0298,
        0.0344,
        0.0459,
        0.3240,
        0.4262,
        0.5719,
        0.6528,
        0.7590,
        1.0,
    ]
    assert discoveries(p) == [0, 1, 2, 3]
    assert discoveries(p[::-1]) == [14, 13, 12, 11]
    assert discoveries([]) == [] == discoveries([0.06, 0.9])
    assert discoveries([0.04, 0.05]) == [0, 1]  # the larger one carries the smaller


def test_of_one_value_no_interval_is_known() -> None:
    assert mean_interval([]) == (0.0, math.inf)
    assert mean_interval([2.0]) == (2.0, math.inf)
    mean, half = mean_interval([1.0, 3.0])
    assert (mean, half) == (2.0, pytest.approx(1.959964 * math.sqrt(2) / math.sqrt(2)))
