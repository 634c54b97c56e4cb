"""Who looks before they click, who does not, and who favours what is shown first."""

import json
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from rlhf_online.feedback.votes import Candidate, Comparison
from rlhf_online.simulation.people import plackett_luce
from rlhf_online.training.votes import raters as all_raters
from rlhf_online.training.votes.raters import ASSISTED, CARE, LOOKS, MOST_ODDS, Order, Rater, Raters

Habit = Callable[[Sequence[float], random.Random], list[int]]
"""How a person orders answers of these utilities, which are shown in this order."""


def _vote(order: Sequence[int], person: str, number: int = 0) -> Comparison:
    """`order` names the answers by the place where they were shown, best first."""
    return Comparison(
        event_id=f"{person}{number}",
        conversation_id="c",
        person=person,
        prompt_token_ids=(1,),
        candidates=tuple(Candidate(token_ids=(place + 5,), position=place) for place in order),
        tiers=tuple((index,) for index in range(len(order))),
    )


def _known(people: dict[str, Habit], votes: int, *, answers: int = 3, surer: float = 1.0, seed: int = 0) -> Raters:
    """What is learned of people who judge, in turn, answers whose utilities a model knows, but for their scale."""
    rng, raters = random.Random(seed), Raters()
    for number in range(votes):
        for person, habit in people.items():
            utilities = [rng.gauss(0, 1) for _ in range(answers)]
            order = habit(utilities, rng)
            raters.observe(_vote(order, person, number), [surer * utilities[at] for at in order], [0.0] * answers)
    return raters


def looks(utilities: Sequence[float], rng: random.Random) -> list[int]:
    return plackett_luce(utilities, 1.0, rng)


def clicks(utilities: Sequence[float], rng: random.Random) -> list[int]:
    return plackett_luce([0.0] * len(utilities), 1.0, rng)


def clicks_first(utilities: Sequence[float], rng: random.Random) -> list[int]:
    return [0, *(1 + at for at in clicks(utilities[1:], rng))]


def leans_to_the_first(utilities: Sequence[float], rng: random.Random) -> list[int]:
    return looks([utilities[0] + 1.0, *utilities[1:]], rng)


def half_looks(utilities: Sequence[float], rng: random.Random) -> list[int]:
    return (looks if rng.random() < 0.5 else clicks)(utilities, rng)


def _of(raters: Raters, person: str) -> Rater:
    return Rater(*raters.to_json()["people"][person])


def test_who_clicks_at_random_counts_little_and_who_looks_in_full():
    """Also who looks every other time: what they say is worth something."""
    found = _known({"looks": looks, "too": looks, "half": half_looks, "clicks": clicks}, 100)
    assert _of(found, "looks").reliability > 0.98 and _of(found, "clicks").reliability < 0.05
    assert [found.of(_vote([0, 1], person))[0] for person in ("looks", "half", "new")] == [1, 1, 1]
    assert found.of(_vote([0, 1], "clicks"))[0] == pytest.approx(_of(found, "clicks").reliability / LOOKS)
    assert len(found) == 4 and found.doubted() == ("clicks",)


def test_a_crowd_that_the_model_foretells_badly_counts_in_full():
    found = _known({f"p{number}": half_looks for number in range(9)}, 100)
    assert all(found.of(_vote([0, 1], f"p{number}"))[0] == 1 for number in range(9))


def test_where_most_part_from_the_model_it_is_the_model_that_is_wrong():
    """All change their minds but one: their votes count, so that the model can follow."""
    found = _known({f"p{number}": looks for number in range(5)}, 100)
    rng = random.Random(9)
    for number in range(100, 160):
        for person in range(5):
            utilities = [rng.gauss(0, 1) for _ in range(3)]
            order = looks([u if person == 0 else -u for u in utilities], rng)
            found.observe(_vote(order, f"p{person}", number), [utilities[at] for at in order], [0.0] * 3)
    assert all(_of(found, f"p{person}").reliability < 0.1 for person in range(1, 5))
    assert all(found.of(_vote([0, 1], f"p{person}"))[0] > 0.5 for person in range(5)) and found.doubted() == ()


def test_the_place_that_somebody_favours_is_found_and_is_no_reason_to_disbelieve_them():
    found = _known({"leans": leans_to_the_first, "looks": looks, "first": clicks_first}, 300)
    assert _of(found, "leans").reliability > 0.9 and _of(found, "leans").place == pytest.approx(1.0, abs=0.35)
    assert _of(found, "looks").place == pytest.approx(0.0, abs=0.35)
    assert _of(found, "first").place > 2 and _of(found, "first").reliability < 0.5, "whatever stands there"


def test_a_model_that_is_surer_than_it_should_be_makes_nobody_a_liar():
    """Its utilities are four times as far apart as people's: taken at their word everybody clicks at random."""
    found = _known({f"p{number}": looks for number in range(5)}, 60, surer=4.0)
    assert found.doubted() == () and min(_of(found, f"p{number}").reliability for number in range(5)) > 0.9
    assert found.to_json()["scale"][0] == pytest.approx(0.25, abs=0.08)


def test_ties_and_answers_of_which_the_model_thinks_the_same_say_nothing_of_how_sure_it_is():
    found = _known({"looks": looks}, 100)
    before, vote = found.to_json()["scale"], _vote([0, 1, 2], "ties")
    for _ in range(1000):
        found.observe(replace(vote, tiers=((0, 1, 2),)), [1.0, 0.0, -1.0], [0.0] * 3)
        found.observe(vote, [0.5] * 3, [0.0] * 3)
    assert found.to_json()["scale"] == before and len(found) == 2


def test_who_is_misled_by_notes_makes_the_model_no_less_sure():
    found = []
    for weight in (1.0, 0.0):
        raters, rng = _known({"looks": looks}, 100), random.Random(2)
        raters.beside_notes.weight = weight
        before = raters.to_json()["scale"]
        for number in range(100):
            utilities = [rng.gauss(0, 1) for _ in range(3)]
            order = looks([-utility for utility in utilities], rng)
            vote = replace(_vote(order, f"p{number}"), assisted=True)
            raters.observe(vote, [utilities[at] for at in order], [0.0] * 3)
        found.append((before, raters.to_json()["scale"]))
    assert found[0][1][0] < found[0][0][0] / 2 and found[1][1] == found[1][0]


def test_a_model_that_knows_nothing_says_nothing_of_people():
    rng, raters = random.Random(1), Raters()
    for number in range(200):
        noise = [rng.gauss(0, 1) for _ in range(3)]
        raters.observe(_vote(clicks(noise, rng), "p", number), noise, [0.0] * 3)
    assert _of(raters, "p").reliability == pytest.approx(LOOKS, abs=0.15)


def test_what_is_no_number_says_nothing_and_a_models_vote_is_believed_elsewhere():
    vote, raters = _vote([0, 1], "p"), Raters()
    raters.observe(vote, [math.nan, 0.0], [0.0, 0.0])
    assert len(raters) == 0
    assert raters.of(replace(vote, by_ai=True)) == (1.0, 0.0)


def test_one_vote_moves_the_odds_by_how_much_likelier_it_is_of_who_looks():
    rater = Rater()
    before, looked = rater.odds, math.exp(Order((0, 1), (1.2, 0.2), (0, 0)).log_likelihood)
    rater.observe((0, 1), (1.2, 0.2), (0.0, 0.0), (False, False))
    assert rater.odds - before == pytest.approx(math.log((CARE * looked + (1 - CARE) / 2) / 0.5))
    rater = Rater()
    rater.observe((0, 1), (-300.0, 300.0), (0.0, 0.0), (False, False))
    assert rater.odds - before == pytest.approx(math.log(1 - CARE)), "one vote is little evidence against somebody"


def test_what_no_explanation_is_better_for_changes_nothing():
    rater = Rater()
    rater.observe((0, 1, 2), (0.0, 0.0, 0.0), (0.0, 0.0, 0.0), (False, False, False))
    assert (rater.odds, rater.place) == pytest.approx((Rater().odds, 0.0))
    rater.observe((0, 0), (3.0, 0.0), (0.0, 0.0), (True, False))
    assert (rater.odds, rater.place) == pytest.approx((Rater().odds, 0.0)), "a tie"


def test_the_likelihood_of_an_order_and_its_derivatives():
    utilities, x = (0.3, -0.2, 1.1, 0.4), (1.0, 0.0, 0.0, 0.5)
    order = Order((0, 1, 1, 2), utilities, x)

    def log_likelihood(shift: float) -> float:
        a, b, c, d = (u + shift * own for u, own in zip(utilities, x, strict=True))
        first = a - math.log(sum(map(math.exp, (a, b, c, d))))
        return first + sum(u - math.log(math.exp(u) + math.exp(d)) for u in (b, c))

    h = 1e-4
    up, down = log_likelihood(h), log_likelihood(-h)
    assert order.log_likelihood == pytest.approx(log_likelihood(0.0))
    assert order.slope == pytest.approx((up - down) / (2 * h), rel=1e-6)
    assert -order.curvature == pytest.approx((up - 2 * order.log_likelihood + down) / h**2, rel=1e-4)


def test_who_stops_looking_is_found_out():
    def tires(utilities: Sequence[float], rng: random.Random) -> list[int]:
        seen.append(1)
        return (looks if len(seen) < 300 else clicks)(utilities, rng)

    seen: list[int] = []
    assert _of(_known({"tires": tires, "looks": looks}, 290), "tires").reliability > 0.9
    seen.clear()
    assert _of(_known({"tires": tires, "looks": looks}, 400), "tires").reliability < 0.5


@pytest.mark.parametrize("answers", [2, 6])
@pytest.mark.parametrize("right", [True, False])
def test_who_always_or_never_says_what_the_model_thinks_is_believed_nearly_or_hardly_and_may_change(
    answers: int, right: bool
):
    rater, ranks, none = Rater(), range(answers), [0.0] * answers
    agreeing = [2.0 * (answers - at) for at in ranks]
    for _ in range(3000):
        rater.observe(ranks, agreeing if right else agreeing[::-1], none, [False] * answers)
    assert rater.odds == (MOST_ODDS if right else -MOST_ODDS)
    for _ in range(20):
        rater.observe(ranks, agreeing[::-1] if right else agreeing, none, [False] * answers)
    assert (rater.reliability < 0.5) == right


def test_who_said_least_is_let_go_of_where_they_are_too_many(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(all_raters, "MOST", 8)
    found = _known({f"p{number}": looks for number in range(4)}, 20)
    strangers = [f"s{number}" for number in range(5)]
    found.make_room()
    for stranger in strangers:
        found.observe(_vote([0, 1, 2], stranger), [1.0, 0.0, -1.0], [0.0] * 3)
    assert len(found) == 9
    found.make_room()
    assert len(found) == 6 and {f"p{number}" for number in range(4)} < found.to_json()["people"].keys()


def test_what_is_known_comes_back():
    found, again = _known({"looks": looks, "clicks": clicks}, 50), Raters()
    again.load_json(json.loads(json.dumps(found.to_json())))
    assert again.to_json() == found.to_json() and again.doubted() == found.doubted()
    again.forget(["clicks", "nobody"])
    assert len(again) == 1 and again.of(_vote([0, 1], "clicks"))[0] == 1


def test_who_judges_beside_a_critics_notes_is_known_apart():
    """They look without notes, and with them say the contrary; somebody else looks."""
    raters, rng = Raters(), random.Random(0)
    for number in range(200):
        for person in ("ann", "bob"):
            utilities = [rng.gauss(0, 2), rng.gauss(0, 2)]
            order, assisted = looks(utilities, rng), number % 2 == 1 and person == "ann"
            order = order[::-1] if assisted else order
            vote = replace(_vote(order, person, number), assisted=assisted)
            raters.observe(vote, [utilities[at] for at in order], [0.0, 0.0])
    alone, beside = (_of(raters, name).reliability for name in ("ann", f"ann{ASSISTED}"))
    assert alone > 0.7 and beside < 0.6
    told = raters.assisted()
    assert told["assisted"] == beside < 0.6 < told["unassisted"]
    raters.beside_notes.weight = 0.5
    assert raters.assisted() == {"assisted": pytest.approx(beside / 2), "unassisted": told["unassisted"]}
    votes = [replace(_vote([0, 1], "bob"), assisted=assisted) for assisted in (False, True)]
    assert [raters.of(vote)[0] for vote in votes] == [1.0, 0.5], "also of who was never seen beside notes"
    assert len(raters) == 2 and raters.doubted() == ()
    raters.forget(["ann"])
    assert len(raters) == 1 and raters.assisted() == {}
    assert Raters().assisted() == {}
