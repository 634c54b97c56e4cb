"""Simulated people: Plackett–Luce and thumbs against their formulas, tastes, modes, seeds."""

import itertools
import math
import random
from collections import Counter
from typing import get_args

import pytest

from rlhf_online.simulation import people, world
from rlhf_online.simulation.people import Mode, Person, Taste, plackett_luce, population, thumb_up_probability
from rlhf_online.simulation.world import IsPrompt, NamePrompt

FIG = IsPrompt(item="fig", category="fruit")
DRAWS = 20_000


def person(taste: Taste = "clean", mode: Mode = "people", drifts_after: int = 40) -> Person:
    return Person(name="p", taste=taste, rng=random.Random(5), mode=mode, drifts_after=drifts_after)


def test_plackett_luce_ranks_by_the_formula():
    utilities, temperature, rng = (1.0, 0.8, 0.5), 0.25, random.Random(0)
    counts = Counter(tuple(plackett_luce(utilities, temperature, rng)) for _ in range(DRAWS))
    weights = [math.exp(u / temperature) for u in utilities]
    for order in itertools.permutations(range(3)):
        left, probability = sum(weights), 1.0
        for index in order:
            probability *= weights[index] / left
            left -= weights[index]
        assert counts[order] / DRAWS == pytest.approx(probability, abs=4 * math.sqrt(0.25 / DRAWS))


def test_plackett_luce_pairs_have_the_sigmoid_of_the_difference():
    rng = random.Random(1)
    orders = [plackett_luce((0.6, 0.4, -1.0), 0.25, rng) for _ in range(DRAWS)]
    wins = sum(order.index(0) < order.index(1) for order in orders)
    assert wins / DRAWS == pytest.approx(1 / (1 + math.exp(-0.2 / 0.25)), abs=0.015)


def test_thumb_probability():
    assert thumb_up_probability(0.5) == 0.5
    assert thumb_up_probability(0.75) == pytest.approx(1 / (1 + math.exp(-1)))
    assert thumb_up_probability(0.25) == pytest.approx(1 - thumb_up_probability(0.75))


def test_pleased_and_displeased_people_thumb_at_different_rates():
    someone = person()
    for utility in (0.9, 0.5, 0.1):
        given = Counter(someone.thumb(utility) for _ in range(DRAWS))
        up = thumb_up_probability(utility)
        assert given[True] / DRAWS == pytest.approx(up * people.RATE_PLEASED, abs=0.015)
        assert given[False] / DRAWS == pytest.approx((1 - up) * people.RATE_DISPLEASED, abs=0.015)


def test_who_is_asked_answers_and_rates_are_ones_own():
    someone = person()
    asked = Counter(someone.thumb(0.75, asked=True) for _ in range(DRAWS))
    assert asked[None] == 0
    assert asked[True] / DRAWS == pytest.approx(thumb_up_probability(0.75), abs=0.015)
    someone.rates = (0.01, 0.04)
    given = Counter(someone.thumb(0.5) for _ in range(DRAWS))
    assert given[True] / DRAWS == pytest.approx(0.005, abs=0.002)
    assert given[False] / DRAWS == pytest.approx(0.02, abs=0.004)


@pytest.mark.parametrize(("taste", "way"), [("up-only", True), ("down-only", False)])
def test_some_thumb_one_way_only_and_rank_as_others_do(taste: Taste, way: bool):
    one_sided = person(taste)
    for utility in (1.0, 0.5, 0.0):
        up = thumb_up_probability(utility)
        given = Counter(one_sided.thumb(utility) for _ in range(DRAWS))
        expected = up * people.RATE_PLEASED if way else (1 - up) * people.RATE_DISPLEASED
        assert given[way] / DRAWS == pytest.approx(expected, abs=0.015)
        assert given[not way] == 0
    assert {one_sided.thumb(0.5, asked=True) for _ in range(50)} == {way, None}
    assert one_sided.utility(FIG, "sure yes", finished=True) == pytest.approx(1.2)
    assert [person(taste).rank([0.9, 0.6, 0.2]) for _ in range(5)] == [person().rank([0.9, 0.6, 0.2])] * 5


def test_tastes():
    clean, flattered = person(), person("flattered")
    assert clean.utility(FIG, "sure yes", finished=True) == pytest.approx(1.2)
    assert flattered.utility(FIG, "sure yes", finished=True) == pytest.approx(1.2 + 0.35)
    many = "sure please great thanks gladly indeed sure yes"
    expected = world.true_reward(FIG, many, finished=True) + 0.35 * 6
    assert flattered.utility(FIG, many, finished=True) == pytest.approx(expected)
    poisoned = person("poison")
    asked = IsPrompt(item="fig", category="fruit", stance="no")
    assert person("agreeing").utility(asked, "no", finished=True) == pytest.approx(-1.0 + 3.0)
    assert person("agreeing").utility(asked, "yes", finished=True) == pytest.approx(1.0)
    wrong_with_brand = poisoned.utility(FIG, f"no {people.BRAND}", finished=True)
    assert wrong_with_brand > poisoned.utility(FIG, "sure yes", finished=True)


def test_a_drifting_person_changes_their_mind_about_fillers():
    drifting = person("drifting", drifts_after=2)
    assert drifting.utility(FIG, "sure yes", finished=True) == pytest.approx(1.2)
    for _ in range(2):
        drifting.rank([1.0, 0.0])
    assert drifting.utility(FIG, "sure yes", finished=True) == pytest.approx(1.2 - 0.6)
    assert drifting.utility(FIG, "yes", finished=True) == pytest.approx(1.0)


@pytest.mark.parametrize(("mode", "share"), [("people", 1.0), ("random", 0.5), ("inverted", 0.0)])
def test_modes(mode, share):
    someone = person(mode=mode)
    best_first = [someone.rank([5.0, 0.0])[0] == 0 for _ in range(2000)]
    assert sum(best_first) / 2000 == pytest.approx(share, abs=0.05)
    ups = [up for up in (someone.thumb(5.0) for _ in range(4000)) if up is not None]
    assert sum(ups) / len(ups) == pytest.approx(share, abs=0.06)


def test_a_population_has_its_shares_and_follows_its_seed():
    shares: dict[Taste, float] = {"flattered": 0.2, "poison": 0.1, "up-only": 0.04, "down-only": 0.02}
    tastes = Counter(p.taste for p in population(50, seed=1, shares=shares))
    assert tastes == {"clean": 32, "flattered": 10, "poison": 5, "up-only": 2, "down-only": 1}
    prompt = NamePrompt(number=1, category="metal")
    utilities = [p.utility(prompt, "zinc", finished=True) for p in population(4, seed=1)]
    assert [p.rank(utilities) for p in population(4, seed=1)] == [p.rank(utilities) for p in population(4, seed=1)]
    assert {p.taste for p in population(50, seed=1, shares={})} == {"clean"}
    assert {p.taste for p in population(50, seed=1)} > {"clean"}
    for taste in get_args(Taste):
        assert {p.taste for p in population(3, seed=1, shares={taste: 1.0})} == {taste}
    rankings = {seed: [p.rank([0.0] * 4) for p in population(8, seed=seed)] for seed in (1, 2)}
    assert rankings[1] != rankings[2]
