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
