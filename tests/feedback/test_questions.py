"""What people are asked next: information by hand, and pairs drawn by it with the propensity that is told."""

import math
import random
from collections import Counter

import pytest

from rlhf_online.feedback.questions import POWER, Candidate, Question, choose, information, probabilities


def _candidate(pair: str, group: str, *p: float) -> Candidate:
    return Candidate(pair=pair, group=group, probabilities=p)


def test_a_vote_tells_what_the_heads_disagree_about_and_nothing_of_a_toss_up():
    assert information((0.9, 0.9, 0.9)) == pytest.approx(0.0, abs=1e-12)
    assert information((0.5, 0.5)) == pytest.approx(0.0, abs=1e-12)
    assert information((1.0, 0.0)) == pytest.approx(math.log(2))
    p, q = 0.8, 0.3
    mean = (p + q) / 2
    entropies = [-(x * math.log(x) + (1 - x) * math.log(1 - x)) for x in (mean, p, q)]
    assert information((p, q)) == pytest.approx(entropies[0] - (entropies[1] + entropies[2]) / 2)
    assert probabilities((2.0, 0.0), (1.0, 1.0)) == pytest.approx((1 / (1 + math.exp(-1)), 1 / (1 + math.exp(1))))
    assert probabilities((1e9,), (-1e9,)) == pytest.approx((1.0,))


SURE = _candidate("sure", "a", 0.9, 0.9)
SPLIT = _candidate("split", "b", 0.9, 0.1)
APART = _candidate("apart", "c", 0.8, 0.5)


def test_pairs_are_drawn_as_often_as_their_propensity_says():
    told = {each.pair: information(each.probabilities) ** POWER for each in (SURE, SPLIT, APART)}
    drawn: Counter[object] = Counter()
    for seed in range(4000):
        [question] = choose([SURE, SPLIT, APART], 1, 0.3, random.Random(seed))
        drawn[question.pair] += 1
        expected = 0.3 / 3 + 0.7 * told[question.pair] / sum(told.values())
        assert question.propensity == pytest.approx(expected)
    for pair, count in drawn.items():
        expected = 0.3 / 3 + 0.7 * told[pair] / sum(told.values())
        assert count / 4000 == pytest.approx(expected, abs=4 * math.sqrt(expected / 4000))


def test_a_prompt_is_asked_about_once_and_no_more_are_asked_than_there_are():
    twice = _candidate("split again", "b", 0.1, 0.9)
    for seed in range(50):
        asked = choose([SURE, SPLIT, APART, twice], 9, 0.5, random.Random(seed))
        assert len(asked) == 3 and len({question.pair for question in asked} & {"split", "split again"}) == 1
    assert choose([], 3, 0.1, random.Random(0)) == []


def test_without_exploration_what_tells_nothing_is_not_asked_while_something_does():
    for seed in range(50):
        first, second, third = choose([SURE, SPLIT, APART], 3, 0.0, random.Random(seed))
        assert {first.pair, second.pair} == {"split", "apart"}
        assert third == Question(pair="sure", information=information((0.9, 0.9)), propensity=1.0)


def test_at_random_every_pair_is_as_likely():
    [question] = choose([SURE, SPLIT, APART], 1, 1.0, random.Random(0))
    assert question.propensity == pytest.approx(1 / 3)
