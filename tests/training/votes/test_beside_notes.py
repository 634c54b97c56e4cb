"""Notes that mislead are found by who judged the same answers without them."""

import json
import random
from collections.abc import Sequence
from dataclasses import replace

import pytest

from rlhf_online.feedback.votes import Candidate, Comparison
from rlhf_online.training.votes.beside_notes import A, B, BesideNotes


def vote(item: str, order: Sequence[int], *, assisted: bool, tied: bool = False, person: str = "ann") -> Comparison:
    """`order` names the answers, best first."""
    places = tuple(range(len(order)))
    return Comparison(
        event_id=f"{item} {person}", conversation_id=item, person=person, prompt_token_ids=(1,), assisted=assisted,
        candidates=tuple(Candidate(token_ids=(answer,)) for answer in order),
        tiers=(places,) if tied else tuple((place,) for place in places),
    )  # fmt: skip


def crowd(items: int, agrees: float, *, seed: int = 0, first: int = 0) -> list[Comparison]:
    """Of each item two votes with notes and two without, which agree in such a share of the items."""
    rng, votes = random.Random(seed), []
    for number in range(first, first + items):
        order = [0, 1, 2] if rng.random() < agrees else [2, 1, 0]
        for person, told, assisted in (("a", order, True), ("b", order, True), ("c", [0, 1, 2], False)):
            votes.append(vote(f"{number}", told, assisted=assisted, person=person))
    return votes


def weight(*batches: Sequence[Comparison]) -> float:
    notes, kept = BesideNotes(), []
    for new in batches:
        notes.observe(new, kept)
        kept += new
    return notes.weight


@pytest.mark.parametrize(("agrees", "least", "most"), [(0.0, 0, 0.001), (0.35, 0, 0.05), (0.7, 0.99, 1), (1, 1, 1)])
def test_votes_beside_notes_keep_their_weight_unless_who_sees_none_says_the_contrary(
    agrees: float, least: float, most: float
) -> None:
    assert least <= weight(crowd(100, agrees)) <= most


def test_the_weight_is_the_probability_that_they_agree_more_often_than_not() -> None:
    """By hand, for whole numbers: P(p > ½) of Beta(a, b) is P(at most a − 1 heads of a + b − 1 fair coins)."""
    assert (A, B) == (3, 1)
    one = [vote("i", [0, 1], assisted=True), vote("i", [1, 0], assisted=False, person="bob")]
    beta_3_2 = (1 + 4 + 6) / 16
    assert weight(one) == pytest.approx(beta_3_2 / (7 / 8), abs=1e-3)
    assert weight() == 1 and json.dumps(BesideNotes().to_json()) == "[0.0, 0.0]"


def test_an_item_counts_once_however_many_judged_it_and_a_tie_is_half_an_agreement() -> None:
    without = [vote("i", [0, 1], assisted=False, person=f"p{n}", tied=n > 2) for n in range(5)]
    beside = [vote("i", [1, 0], assisted=True, person=f"q{n}") for n in range(4)]
    notes = BesideNotes()
    notes.observe([*without, *beside], [])
    assert notes.to_json() == pytest.approx([1.0, 0.2])


def test_what_cannot_be_compared_says_nothing() -> None:
    """Other answers, ties, models' votes, corrections, and what has been compared before."""
    beside, without = vote("i", [0, 1], assisted=True), vote("i", [1, 0], assisted=False)
    silent = [
        [beside], [without], [beside, replace(without, conversation_id="j")],
        [replace(beside, tiers=((0, 1),)), without], [beside, replace(without, by_ai=True)],
        [beside, replace(without, correction=True)], [beside, replace(without, objective="kind")],
    ]  # fmt: skip
    for votes in silent:
        assert weight(votes) == 1
    notes = BesideNotes()
    notes.observe([], [beside, without])
    assert notes.to_json() == [0.0, 0.0]
    notes.observe([without], [beside])
    assert notes.to_json() == [1.0, 0.0], "either may come first"


def test_another_critic_is_found_out_and_what_is_known_comes_back() -> None:
    bad = [crowd(100, 0.1, seed=number, first=1000 * number) for number in range(4)]
    good = [crowd(100, 0.9, seed=number, first=1000 * number) for number in range(4, 14)]
    assert weight(*bad) < 0.01 and weight(*bad, *good) > 0.99
    notes, again = BesideNotes(), BesideNotes()
    notes.observe(bad[0], [])
    again.load_json(json.loads(json.dumps(notes.to_json())))
    assert again.weight == notes.weight < 1
