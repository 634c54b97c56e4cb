"""Drift of the score distribution, against hand-computed numbers."""

import math
import random

import pytest

from rlhf_online.training.score_drift import WINDOW, ScoreDrift, population_stability


def test_the_index_is_the_kl_both_ways_over_the_quantiles_of_before() -> None:
    """Four scores a side in two bins, parted at the median of before, 2.5; half a score is added to each bin."""
    p, q = 2.5 / 5, 1.5 / 5
    assert population_stability([1, 2, 3, 4], [2, 3, 4, 5], bins=2) == pytest.approx(
        (q - p) * math.log(q / p) + ((1 - q) - (1 - p)) * math.log((1 - q) / (1 - p))
    )
    assert population_stability([1, 2, 3, 4], [4, 1, 3, 2], bins=2) == 0


def test_scores_of_one_distribution_do_not_drift_and_shifted_ones_do() -> None:
    rng, drift = random.Random(3), ScoreDrift()
    for _ in range(2 * WINDOW // 64 - 1):
        drift.add([rng.gauss(0, 1) for _ in range(64)])
    assert drift.add([rng.gauss(0, 1) for _ in range(64)]) < 0.1
    assert drift.add([rng.gauss(1, 1) for _ in range(WINDOW)]) > 0.5
    assert drift.add([rng.gauss(1, 1) for _ in range(2 * WINDOW)]) < 0.1, "what was new is what was before now"


def test_few_scores_and_none_that_are_finite_tell_nothing() -> None:
    drift = ScoreDrift()
    assert math.isnan(drift.add([0.0] * (WINDOW // 2 - 2)))
    assert math.isnan(drift.add([math.nan, math.inf, -math.inf] * WINDOW))
    assert drift.add([0.0, 0.0]) == 0
