"""The test of people's preference: hand-computed capital, and Ville's bound counted out over every sequence."""

import itertools
import math
import random

import pytest

from rlhf_online.canary.betting import FRACTIONS, confidence_sequence, log_capital, mirrored


def test_capital_is_the_mean_of_what_each_fraction_made_of_its_share() -> None:
    assert math.exp(log_capital({1.0: 1})) == pytest.approx((1.05 + 1.1 + 1.2 + 1.4 + 1.8) / 5)
    assert math.exp(log_capital({0.0: 1})) == pytest.approx((0.95 + 0.9 + 0.8 + 0.6 + 0.2) / 5)
    # A win and a loss: 1 − f² by each fraction.
    assert math.exp(log_capital({1.0: 1, 0.0: 1})) == pytest.approx((0.9975 + 0.99 + 0.96 + 0.84 + 0.36) / 5)
    # Against a mean of ¼ a win pays 1 + 3f.
    assert math.exp(log_capital({1.0: 1}, 0.25)) == pytest.approx(1 + 3 * sum(FRACTIONS) / 5)


def test_nothing_and_ties_alone_say_nothing() -> None:
    assert log_capital({}) == 0
    assert log_capital({0.5: 1000}) == 0
    assert confidence_sequence({}) == (0, 1)


def test_an_outcome_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="from 0 to 1"):
        log_capital({1.5: 1})


def test_over_all_sequences_of_fair_coins_capital_is_fair_and_seldom_ever_large() -> None:
    """The mean of the capital is 1, and it *ever* reaches 1/α in a share of at most α: Ville's inequality, exactly."""
    alphas, flips = (0.5, 0.2, 0.1, 0.05), 14
    final, reached = 0.0, dict.fromkeys(alphas, 0)
    for coins in itertools.product((0, 1), repeat=flips):
        path = [
            math.exp(log_capital({1.0: wins, 0.0: n - wins}))
            for n, wins in enumerate(itertools.accumulate(coins, initial=0))
        ]
        final += path[-1]
        for alpha in alphas:
            reached[alpha] += max(path) >= 1 / alpha
    assert final / 2**flips == pytest.approx(1)
    assert all(0 < reached[alpha] / 2**flips <= alpha for alpha in alphas)


def test_outcomes_below_a_half_in_the_mean_lose_whoever_bets_on_more() -> None:
    """Not only coins: whatever values between, the expectation of the next outcome's factor is at most 1."""
    before = {0.9: 3, 0.2: 1}
    values = {0.0: 0.3, 0.25: 0.2, 0.5: 0.2, 0.75: 0.1, 1.0: 0.2}  # the mean is .425
    after = sum(p * math.exp(log_capital(before | {x: before.get(x, 0) + 1})) for x, p in values.items())
    assert after < math.exp(log_capital(before))


def test_the_confidence_sequence_ends_where_the_capital_reaches_its_limit() -> None:
    outcomes = {1.0: 60, 0.5: 20, 0.0: 40}
    low, high = confidence_sequence(outcomes)
    assert low < 70 / 120 < high
    assert log_capital(outcomes, low) == pytest.approx(math.log(2 / 0.05), abs=1e-6)
    assert log_capital(mirrored(outcomes), 1 - high) == pytest.approx(math.log(2 / 0.05), abs=1e-6)
    assert confidence_sequence(mirrored(outcomes)) == pytest.approx((1 - high, 1 - low))
    assert confidence_sequence(outcomes, alpha=0.2)[0] > low


def test_the_confidence_sequence_holds_at_every_look_at_once() -> None:
    """In at least 95 % of the sequences the mean is inside at each of 20 looks; seeded."""
    rng, missed, runs, width = random.Random(7), 0, 100, 1.0
    for _ in range(runs):
        outcomes = {0.0: 0, 0.5: 0, 1.0: 0}
        out = False
        for _ in range(20):
            for _ in range(20):
                outcomes[rng.choices((0.0, 0.5, 1.0), (0.3, 0.2, 0.5))[0]] += 1
            low, high = confidence_sequence(outcomes)
            out |= not low <= 0.6 <= high
            width = high - low
        missed += out
    assert missed <= 5
    assert width < 0.3


def test_values_that_mirror_onto_one_another_all_count() -> None:
    close = {1e-17: 2, 0.0: 3}
    assert mirrored(close)[1.0] == 5
