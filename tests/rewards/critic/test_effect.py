"""Votes beside notes, and without them by the draw."""

from dataclasses import replace

from rlhf_online.events import SHOWN, WITHHELD, Envelope, Feedback
from rlhf_online.rewards.critic.effect import effect
from tests.support.logged import thumb


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
    assert arms[SHOWN].lines().startswith("2 votes, 0.50 of 2 thumbs are down (") and "6.0 s" in arms[SHOWN].lines()
    assert effect([])[SHOWN].lines() == "0 votes"
