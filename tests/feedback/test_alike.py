"""Who judges the same answers too much alike: copies are found, honest people who agree are not."""

import random
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from itertools import combinations

import pytest

from rlhf_online.feedback.alike import LEAST_COMMON, _chance, _tail, alike
from rlhf_online.feedback.votes import Candidate, Comparison, Rating, Vote
from rlhf_online.simulation.people import plackett_luce

HONEST = [f"honest-{number}" for number in range(8)]
Says = Callable[[str, int, Sequence[float]], Sequence[int]]


def _ranking(person: str, item: int, order: Sequence[int]) -> Comparison:
    return Comparison(
        event_id=f"{person} {item}",
        conversation_id=f"item {item}",
        person=person,
        prompt_token_ids=(1, item),
        candidates=tuple(Candidate(token_ids=(place + 5,), position=place) for place in order),
        tiers=tuple((index,) for index in range(len(order))),
    )


def _queue(people: Sequence[str], items: int, says: Says, *, answers: int = 2, seed: int = 0) -> list[Vote]:
    rng = random.Random(seed)
    votes: list[Vote] = []
    for item in range(items):
        utilities = [rng.gauss(0, 1.5) for _ in range(answers)]
        votes += [_ranking(person, item, says(person, item, utilities)) for person in people]
    return votes


def _looks(person: str, item: int, utilities: Sequence[float]) -> list[int]:
    """By their own look at the answers: nobody else's."""
    return plackett_luce(utilities, 1.0, random.Random(f"{person} {item} {utilities}"))


def _copies(person: str, item: int, utilities: Sequence[float]) -> list[int]:
    """Four names of one hand."""
    return _looks("hand" if person.startswith("copy") else person, item, utilities)


@pytest.mark.parametrize("answers", [2, 4])
def test_the_names_of_one_hand_are_one_group_and_nobody_else_is_in_any(answers: int):
    people = [*HONEST, *(f"copy-{number}" for number in range(4))]
    votes = _queue(people, 60, _copies, answers=answers)
    assert alike(votes) == [("copy-0", "copy-1", "copy-2", "copy-3")]


def test_honest_people_who_agree_on_what_is_plain_are_not_alike():
    """Utilities so far apart that they nearly always agree, in 20 queues."""

    def plain(person: str, item: int, utilities: Sequence[float]) -> list[int]:
        return _looks(person, item, [5 * utility for utility in utilities])

    assert [alike(_queue(HONEST, 50, plain, seed=seed)) for seed in range(20)] == [[]] * 20
    assert [alike(_queue(HONEST, 50, _looks, seed=seed)) for seed in range(20)] == [[]] * 20


def test_too_few_items_in_common_say_nothing():
    people = [*HONEST, "copy-0", "copy-1"]
    assert alike(_queue(people, LEAST_COMMON - 1, _copies, answers=4)) == []
    assert alike(_queue(people, 4 * LEAST_COMMON, _copies, answers=4)) == [("copy-0", "copy-1")]


def test_thumbs_count_and_what_is_nobodys_opinion_of_the_same_answer_does_not():
    def thumbs(event: str, **values: object) -> list[Vote]:
        rng, found = random.Random(3), []
        for item in range(60):
            hand = rng.random() < 0.5
            for person in [*HONEST, "copy-0", "copy-1"]:
                up = hand if person.startswith("copy") else rng.random() < 0.5
                rating = Rating(
                    event_id=f"{event}{person}{item}",
                    conversation_id=f"item {item}",
                    person=person,
                    prompt_token_ids=(1, item),
                    candidate=Candidate(token_ids=(5,)),
                    up=up,
                )
                found.append(replace(rating, **values))
        return found

    assert alike(thumbs("t")) == [("copy-0", "copy-1")]
    assert alike(thumbs("ai", by_ai=True)) == []
    assert alike(thumbs("s", signal="stop")) == []
    assert alike(thumbs("n", person="")) == []


def test_who_is_alike_to_one_of_a_group_is_in_it():
    """A copies B on some items, and C copies B on others."""

    def says(person: str, item: int, utilities: Sequence[float]) -> list[int]:
        copied = {"a": item < 60, "b": True, "c": item >= 60}.get(person, False)
        return _looks("hand" if copied else person, item, utilities)

    votes = [
        vote
        for vote in _queue([*HONEST, "a", "b", "c"], 120, says, answers=4)
        if not (vote.person == "a" and vote.prompt_token_ids[1] >= 60)
        and not (vote.person == "c" and vote.prompt_token_ids[1] < 60)
    ]
    assert alike(votes) == [("a", "b", "c")]


def test_an_items_chance_is_how_often_the_others_agree():
    said = {"a": 1, "b": 1, "c": 2, "d": 1, "e": 1, "f": 2, "g": 3}
    counts: Counter[Hashable] = Counter(said.values())
    for pair in combinations(said, 2):
        others = list(combinations([judged for person, judged in said.items() if person not in pair], 2))
        agreeing = sum(one == other for one, other in others)
        assert _chance(said, counts, pair, 0.5) == pytest.approx((agreeing + 2 * 0.5) / (len(others) + 2))


def test_the_tail_is_that_of_independent_events():
    assert _tail([0.5, 0.25], 2) == pytest.approx(0.125)
    assert _tail([0.5, 0.25], 1) == pytest.approx(1 - 0.5 * 0.75)
    assert _tail([0.5, 0.25], 0) == pytest.approx(1.0)
    assert alike([]) == []
