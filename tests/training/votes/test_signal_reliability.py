"""Implicit signals are believed as far as they agree with what the reward model knew without them."""

import json
import math
import random

import pytest

from rlhf_online.training.votes.signal_reliability import MAX_SIGNALS, SignalReliability


def _seen(rho: float, count: int, seed: int = 0) -> list[float]:
    """Differences of the noisy-label model: with probability rho drawn as for a vote, else either way alike."""
    rng, found = random.Random(seed), []
    while len(found) < count:
        below = rng.gauss(0, 2)
        worse = 1 / (1 + math.exp(-below))
        if rng.random() < rho * worse + (1 - rho) / 2:
            found.append(below)
    return found


def test_nothing_seen_is_the_prior():
    assert SignalReliability().of("stop") == pytest.approx(0.25, abs=1e-6)
    assert SignalReliability().figures() == {}


@pytest.mark.parametrize("rho", [0.0, 0.5, 0.9])
def test_the_reliability_is_found(rho: float):
    reliability = SignalReliability()
    reliability.observe("stop", _seen(rho, MAX_SIGNALS))
    assert reliability.of("stop") == pytest.approx(rho, abs=0.15)
    assert reliability.of("rephrase") == pytest.approx(0.25, abs=1e-6), "each signal has its own"


@pytest.mark.parametrize("count", [1, 5, 100])
def test_the_most_probable_reliability_is_the_root_of_the_log_posteriors_slope(count: int):
    """Where every answer was far below the baseline the slope is 1/ρ − 3/(1 − ρ) + n/(1 + ρ), and where every one was
    far above it 1/ρ − (3 + n)/(1 − ρ); where they were as good as it the signals say nothing."""
    for below, rho in (
        (60.0, ((count - 3) + math.sqrt((count - 3) ** 2 + 4 * (count + 4))) / (2 * (count + 4))),
        (-60.0, 1 / (count + 4)),
        (0.0, 1 / 4),
    ):
        reliability = SignalReliability()
        reliability.observe("stop", [below] * count)
        assert reliability.of("stop") == pytest.approx(rho, abs=1e-6)


def test_figures_are_named_in_order_whatever_was_seen_first():
    reliability = SignalReliability()
    for signal in ("stop", "regenerate", "rephrase"):
        reliability.observe(signal, [1.0000004, 2.0])
    assert list(reliability.figures()) == ["regenerate", "rephrase", "stop"]
    assert reliability.to_json()["stop"] == [1.0, 2.0], "kept to six digits"


def test_a_signal_for_good_answers_is_not_believed_and_the_newest_count():
    reliability = SignalReliability()
    reliability.observe("stop", [-3.0] * 200)
    assert reliability.of("stop") < 0.02
    reliability.observe("stop", _seen(1.0, MAX_SIGNALS))
    assert reliability.of("stop") > 0.8
    again = SignalReliability()
    again.load_json(json.loads(json.dumps(reliability.to_json())))
    assert again.figures() == reliability.figures()
    assert len(again.to_json()["stop"]) == MAX_SIGNALS


def test_what_is_no_number_is_not_seen():
    reliability = SignalReliability()
    reliability.observe("stop", [math.nan, math.inf])
    assert reliability.to_json() == {"stop": []}
