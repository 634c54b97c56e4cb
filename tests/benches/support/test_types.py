"""What counts as a difference between two types."""

import math

import pytest

from tests.benches.support.types import compared


def test_a_difference_beyond_its_interval_is_told():
    found = compared([0.5, 0.6, 0.7], [0.4, 0.5, 0.6], least=0.0)
    assert found == {"difference": pytest.approx(0.1), "interval": pytest.approx(0, abs=1e-9), "within_noise": False}


def test_seeds_that_differ_in_both_directions_do_not():
    """0.1, −0.1 and 0.15: mean 0.05, deviation 0.1323, so 4.303 · 0.1323 / √3 = 0.3286."""
    found = compared([0.5, 0.3, 0.55], [0.4, 0.4, 0.4], least=0.0)
    assert found["difference"] == pytest.approx(0.05) and found["interval"] == pytest.approx(0.3286, abs=1e-3)
    assert found["within_noise"]


def test_one_seed_says_nothing_of_chance_and_what_nobody_would_call_a_difference_is_none():
    assert compared([0.5], [0.4], least=0.05)["interval"] is None
    assert not compared([0.5], [0.4], least=0.05)["within_noise"]
    assert compared([0.5], [0.4], least=0.11)["within_noise"]
    assert not compared([math.nan], [0.4], least=1)["within_noise"]
