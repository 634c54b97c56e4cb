"""Votes beside notes, and without them by the draw."""

from dataclasses import replace

import pytest

from rlhf_online.events import SHOWN, WITHHELD, Envelope, Feedback, FeedbackKind, Pairwise, Ranking
from rlhf_online.rewards.critic.effect import ARMS, Measured, changes, effect
from tests.support.logged import ref, thumb


def vote(name: str, notes: str, *, up: bool = True, replaces: str = "", person: str = "ann", ms: int = 0) -> Envelope:
    sent = thumb(name)
    assert isinstance(sent.event, Feedback)
    kind = replace(sent.event.kind, up=up)
    event = replace(sent.event, kind=kind, notes=notes, replaces=replaces, person=person, response_ms=ms)
    return Envelope(event_id=name, event=event)


def test_each_arm_has_its_own_votes_and_the_last_word_counts() -> None:
    arms = effect(
        [
            vote("a", SHOWN, up=False, ms=4000),
            vote("b", SHOWN, up=True, ms=8000),
            vote("c", WITHHELD, up=True),
            vote("d", WITHHELD, up=False),
            vote("e", WITHHELD, up=True, replaces="d"),
            vote("f", WITHHELD, up=True, replaces="b", person="somebody else"),
            vote("g", "", up=False),
        ]
    )
    assert (arms[SHOWN].votes, arms[SHOWN].down, arms[SHOWN].response_ms) == (2, [False, True][::-1], [4000, 8000])
    assert (arms[WITHHELD].votes, arms[WITHHELD].down) == (3, [False] * 3)
    said = arms[SHOWN].lines()
    assert said.startswith("2 votes, thumbs down 0.50 (") and "n = 2" in said and "6.0 s in the median" in said
    assert effect([])[SHOWN].lines() == "0 votes"


def judged(name: str, item: str, person: str, notes: str, kind: FeedbackKind) -> Envelope:
    event = Feedback(conversation_id="talk", person=person, kind=kind, annotation_item=item, notes=notes)
    return Envelope(event_id=name, event=event)


@pytest.mark.parametrize("pairs", [True, False], ids=["pairs", "rankings"])
def test_who_saw_notes_may_agree_more_than_who_did_not(pairs: bool) -> None:
    """Three people in each arm judge forty items: who saw notes alike, the others as it falls."""

    def order(turned: bool) -> FeedbackKind:
        refs = [ref("a"), ref("b")][:: -1 if turned else 1]
        return Pairwise(chosen=refs[0], rejected=refs[1]) if pairs else Ranking(tiers=tuple((each,) for each in refs))

    votes = [
        judged(f"{arm} {item} {person}", f"item-{item}", f"person-{person}", arm, order(turned))
        for item in range(40)
        for person in range(3)
        for arm, turned in ((SHOWN, item % 2 == 0), (WITHHELD, (item * 7 + person * 5) % 3 == 0))
    ]
    arms = effect(votes)
    shown, withheld = (arms[arm].figures()["agreement on orders"] for arm in ARMS)
    assert (shown.value, shown.n) == (1.0, 40) and withheld.value < 0.1 and withheld.n == 40
    assert changes(arms)["agreement on orders"].low > 0.5


def test_nobody_agrees_or_disagrees_by_themselves_and_doubt_orders_nothing() -> None:
    unsure = Pairwise(chosen=ref("a"), rejected=ref("b"), unsure=True)
    arms = effect(
        [
            judged("1", "one", "ann", SHOWN, Pairwise(chosen=ref("a"), rejected=ref("b"), tie=True)),
            judged("2", "one", "bob", SHOWN, unsure),
            judged("3", "one", "eve", WITHHELD, unsure),
        ]
    )
    assert arms[SHOWN].figures() == {} and changes(arms) == {} and arms[SHOWN].lines() == "2 votes"
    assert (len(arms[SHOWN].orders), len(arms[WITHHELD].orders)) == (1, 0)


def test_a_difference_is_as_sure_as_what_it_is_of() -> None:
    change = Measured(0.6, 0.5, 0.7, 100).less(Measured(0.5, 0.2, 0.9, 10))
    assert (change.value, change.low, change.high) == pytest.approx((0.1, 0.1 - 0.17**0.5, 0.1 + 0.1**0.5))
