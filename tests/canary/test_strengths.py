"""Davidson's model: closed forms for two versions, people as clusters, and strengths that are known."""

import math

import numpy as np
import pytest

from rlhf_online.canary.strengths import Pair, strengths


def said(wins: int, ties: int, losses: int, *, votes: int = 1) -> list[Pair]:
    """Of b against a, each by another person, who says it `votes` times."""
    outcomes = [1.0] * wins + [0.5] * ties + [0.0] * losses
    return [
        Pair(person=f"{n}", first="b", second="a", first_better=outcome)
        for n, outcome in enumerate(outcomes)
        for _ in range(votes)
    ]


def test_of_two_versions_the_odds_of_wins_to_losses_are_the_strength() -> None:
    """Davidson's model has as many parameters as there are shares then: π_b/π_a = wins/losses, whatever the ties."""
    found = strengths(said(60, 10, 30), "a")
    assert found["b"].strength == pytest.approx(math.log(2), abs=2e-3)
    half = 1.959964 * math.sqrt((1 / 60 + 1 / 30) * 100 / 99)  # of the logarithm of a ratio of two counts
    assert found["b"].high - found["b"].strength == pytest.approx(half, rel=3e-3)
    assert found["a"].strength == found["a"].low == found["a"].high == 0
    assert strengths(said(60, 0, 30), "a")["b"].strength == pytest.approx(math.log(2), abs=2e-3)
    assert found["b"].elo == pytest.approx(120.4, abs=0.4)


def test_from_the_other_side_it_is_the_opposite() -> None:
    found = strengths(said(60, 10, 30), "b")
    assert found["a"].strength == pytest.approx(-math.log(2), abs=2e-3)


def test_saying_it_again_makes_nobody_surer() -> None:
    once, often = strengths(said(60, 10, 30), "a")["b"], strengths(said(60, 10, 30, votes=9), "a")["b"]
    assert often.strength == pytest.approx(once.strength, abs=2e-3)
    assert often.high - often.low == pytest.approx(once.high - once.low, rel=3e-3)


def test_one_person_alone_is_no_evidence() -> None:
    pairs = [Pair(person="ann", first="b", second="a", first_better=x) for x in (1.0, 1.0, 0.0)]
    found = strengths(pairs, "a")["b"]
    assert (found.low, found.high) == (-math.inf, math.inf)


def test_who_won_all_has_an_end_and_who_met_nobody_is_where_the_base_is() -> None:
    found = strengths([*said(5, 0, 0), Pair(person="x", first="c", second="d", first_better=0.5)], "a")
    assert 2 < found["b"].strength < 10
    assert found["b"].low < 0.5  # five wins of five are not much
    assert found["c"].strength == pytest.approx(0, abs=1e-6)
    assert strengths([], "a")["a"].strength == 0


def test_what_nobody_can_say_is_refused() -> None:
    with pytest.raises(ValueError, match="0, ½ or 1"):
        strengths([Pair(person="x", first="a", second="a", first_better=1)], "a")


def test_known_strengths_are_found_and_lie_in_the_intervals() -> None:
    """20 versions of strengths drawn from N(0, 1), 2,000 votes: the error is what theory says, and 95 % cover."""
    rng = np.random.default_rng(3)
    errors, covered, runs = [], 0, 4
    for _ in range(runs):
        true_V = rng.normal(size=20)
        pairs = []
        for n in range(2000):
            i, j = rng.choice(20, 2, replace=False)
            weights_O = np.exp([true_V[i], true_V[j], math.log(0.7) + (true_V[i] + true_V[j]) / 2])
            outcome = rng.choice(3, p=weights_O / weights_O.sum())
            pairs.append(Pair(person=f"{n}", first=f"v{i}", second=f"v{j}", first_better=(1.0, 0.0, 0.5)[outcome]))
        found = strengths(pairs, "v0")
        for v in range(1, 20):
            one, true = found[f"v{v}"], true_V[v] - true_V[0]
            errors.append(one.strength - true)
            covered += one.low <= true <= one.high
    assert math.sqrt(np.mean(np.square(errors))) < 0.3
    assert 0.88 <= covered / (19 * runs) <= 0.99
