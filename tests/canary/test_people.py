"""Each person counts once, with one number, however much they say."""

from collections import Counter

import pytest

from rlhf_online.canary import people as people_module
from rlhf_online.canary.people import Once, People


def looked(people: People) -> People:
    people.look()
    return people


def test_many_votes_of_one_person_are_one_number_their_mean() -> None:
    people = People()
    for about, value in {"a": 1.0, "b": 1.0, "c": 0.5, "d": 0.0}.items():
        people.compare("ann", about, value)
    people.compare("bob", "e", 1.0)
    assert looked(people).pairs.outcomes == Counter({0.625: 1, 1.0: 1})


def test_what_is_said_after_somebody_was_counted_changes_nothing() -> None:
    people = People()
    people.compare("ann", "a", 0.0)
    people.look()
    people.compare("ann", "b", 1.0)
    people.rate("ann", "c", "candidate", up=True)
    people.forget("ann", "a")
    assert looked(people).pairs.outcomes == Counter({0.0: 1})
    assert not people.thumbs


def test_of_votes_on_the_same_answers_the_last_one_before_the_look_holds() -> None:
    people = People()
    people.compare("ann", "a", 0.0)
    people.compare("ann", "a", 1.0)
    people.compare("bob", "a", 1.0)
    people.forget("bob", "a")
    assert looked(people).pairs.outcomes == Counter({1.0: 1})
    assert set(people.pairs.counted) == {"ann"} and len(people) == 1


def test_thumbs_of_one_person_on_both_sides_are_their_difference() -> None:
    people = People()
    people.rate("ann", "a", "live", up=True)
    people.rate("ann", "b", "live", up=False)
    people.rate("ann", "c", "candidate", up=True)
    assert looked(people).thumbs == Counter({0.75: 1})  # ½ + (1 − ½)/2


def test_people_of_either_side_stand_against_each_other_each_once() -> None:
    """Two rated the candidate and three the live version: two sets, the third dealt to the first."""
    people = People()
    people.rate("a", "1", "candidate", up=True)
    people.rate("b", "1", "candidate", up=False)
    people.rate("c", "1", "live", up=False)
    people.rate("d", "1", "live", up=False)
    people.rate("e", "1", "live", up=True)
    assert looked(people).thumbs == Counter({0.75: 1, 0.5: 1})  # a against c and e; b against d
    assert len(people) == 5
    assert looked(people).thumbs == Counter({0.75: 1, 0.5: 1})


def test_whoever_rated_one_side_waits_for_somebody_of_the_other() -> None:
    people = People()
    people.rate("a", "1", "live", up=False)
    assert not looked(people).thumbs
    assert len(people) == 0
    people.rate("a", "2", "live", up=True)
    people.rate("b", "1", "candidate", up=True)
    assert looked(people).thumbs == Counter({0.75: 1})


def test_who_compares_counts_by_that_and_not_by_thumbs_too() -> None:
    people = People()
    people.rate("ann", "1", "candidate", up=True)
    people.rate("ann", "2", "live", up=False)
    people.compare("ann", "a", 0.5)
    people.look()
    assert (people.pairs.outcomes, people.thumbs) == (Counter({0.5: 1}), Counter())
    people.rate("bob", "1", "live", up=False)
    assert not looked(people).thumbs  # ann's thumbs wait for nobody


def test_after_a_restart_it_goes_on_where_it_was() -> None:
    people = People()
    people.compare("ann", "a", 1.0)
    people.look()
    people.compare("bob", "a", 0.0)
    people.rate("cid", "1", "candidate", up=True)
    again = People.from_json(people.to_json())
    assert again.to_json() == people.to_json()
    for each in (people, again):
        each.compare("ann", "b", 1.0)
        each.rate("dan", "1", "live", up=True)
        each.look()
    assert again.to_json() == people.to_json()
    assert again.pairs.outcomes == Counter({1.0: 1, 0.0: 1})


def test_of_any_number_of_conversations_the_last_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(people_module, "MOST", 3)
    once = Once()
    for n in range(10):
        once.add(f"conversation {n}", "an answer", 0.0)
        once.look()
    once.add("conversation 8", "another answer", 1.0)
    assert once.look() == [] and sum(once.outcomes.values()) == 10
    assert list(once.counted) == ["conversation 7", "conversation 8", "conversation 9"]
    assert Once.from_json(once.to_json()).to_json() == once.to_json()


def test_people_who_are_forgotten_have_counted_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or a canary could never come to `max_people`, were that more than are remembered."""
    monkeypatch.setattr(people_module, "MOST", 3)
    people = People()
    for n in range(10):
        people.compare(f"person {n}", "a", 1.0)
        people.look()
    people.rate("another", "b", "live", up=True)
    people.rate("another", "c", "candidate", up=True)
    assert len(looked(people)) == 11
