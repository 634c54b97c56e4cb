"""Shares, calibration and their intervals, against hand-computed numbers and against how often they hold."""

import random

import pytest

from rlhf_online.intervals import Share, share, wilson
from rlhf_online.training.votes.measures import calibration_error, calibration_interval, ordered


def test_wilson_by_hand():
    low, high = wilson(0.5, 100)
    assert (low, high) == (pytest.approx(0.4038, abs=1e-4), pytest.approx(0.5962, abs=1e-4))
    assert wilson(1.0, 10) == pytest.approx((0.7225, 1.0), abs=1e-4)


def test_samples_of_one_cluster_count_together():
    right = [1.0, 1.0, 0.0, 1.0] * 25
    alone, together = share(right, range(100)), share(right, [index // 4 for index in range(100)])
    assert alone.value == together.value == 0.75 and alone.n == 100
    assert (alone.low, alone.high) == pytest.approx(wilson(0.75, 99), abs=1e-9), "÷ (n − 1)"
    assert together.low > alone.low, "clusters that are all alike say more, and no more than n samples"
    blocks = share([1.0] * 75 + [0.0] * 25, [index // 25 for index in range(100)])
    assert blocks.low < 0.35 and blocks.high > 0.94, "four independent samples"


def test_few_samples_that_are_all_right_prove_little():
    assert share([1.0] * 6, ["one ranking"] * 6).low == pytest.approx(wilson(1.0, 1)[0])
    assert share([], []) == Share(0.0, 0.0, 1.0, 0)


def test_the_interval_of_a_share_holds_as_often_as_it_says():
    rng, held = random.Random(0), 0
    for _ in range(400):
        right, clusters = [], []
        for cluster in range(60):
            p = rng.betavariate(1.4, 0.6)  # mean .7, and the six pairs of a ranking share it
            right += [float(rng.random() < p) for _ in range(6)]
            clusters += [cluster] * 6
        found = share(right, clusters)
        held += found.low <= 0.7 <= found.high
    assert 0.92 <= held / 400 <= 0.98


def test_the_area_under_the_roc_by_hand():
    found = ordered([("a", 2.0), ("b", 1.0)], [("c", 1.0), ("d", 0.0)])
    assert found.value == 3.5 / 4 and found.n == 4
    assert (found.low, found.high) == wilson(3.5 / 4, 2)
    assert ordered([("a", 1.0)], []) == ordered([], [("a", 1.0)]), "one class says nothing"
    assert (ordered([], []).low, ordered([], []).high) == (0.0, 1.0)


def test_calibration_error_by_hand():
    assert calibration_error([0.9, 0.9, 0.6, 0.6], [1, 0, 1, 0]) == pytest.approx((0.8 + 0.2) / 4)
    assert calibration_error([1.0, 0.5], [1, 0.5]) == 0
    assert calibration_error([], []) == 0
    assert calibration_error([0.9], [1]) == pytest.approx(0.1), "a single one"
    assert calibration_error([0.51, 0.54], [1, 0]) == pytest.approx((0.49 - 0.54) / -2), "of one bin, .05 wide"
    assert calibration_error([0.54, 0.56], [1, 0]) == pytest.approx((0.46 + 0.56) / 2), "of two"


def test_the_interval_of_the_calibration_error_is_around_it_and_narrows():
    rng = random.Random(0)
    widths = []
    for count in (40, 1000):
        right = [float(rng.random() < 0.6) for _ in range(count)]
        low, high = calibration_interval([0.9] * count, right, range(count), seed=1)
        assert low <= calibration_error([0.9] * count, right) <= high
        assert (low, high) == calibration_interval([0.9] * count, right, range(count), seed=1)
        widths.append(high - low)
    assert widths[1] < 0.4 * widths[0]
    assert calibration_interval([0.9], [1.0], ["a"], seed=1) == (0.0, 1.0)
    two = calibration_interval([0.9, 0.9], [1.0, 0.0], ["a", "b"], seed=1)
    assert two == pytest.approx((0.1, 0.9)), "each of two conversations is drawn twice now and then"
