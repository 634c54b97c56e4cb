"""A vote sent again, another one under its name, and a stranger's."""

import json
from dataclasses import replace

from rlhf_online.events import AnswerRef, Feedback, Thumb
from rlhf_online.feedback.known_votes import KnownVotes

UP = Feedback(
    conversation_id="c", person="ada", kind=Thumb(answer=AnswerRef(completion_id="a", index=0), up=True), reason="good"
)


def _known(*events: str, capacity: int = 10) -> KnownVotes:
    known = KnownVotes(capacity)
    for event_id in events:
        known.add(event_id, UP)
    return known


def test_the_same_vote_sent_again_is_not_another_whatever_its_circumstances():
    known = _known("e")
    assert not known.is_another("e", UP)
    assert not known.is_another("e", replace(UP, source="page", response_ms=900, created_ms=5, conversation_id="d"))


def test_another_content_under_the_same_id_is_another_vote():
    known = _known("e")
    down = replace(UP, kind=Thumb(answer=AnswerRef(completion_id="a", index=0), up=False))
    for other in (down, replace(UP, reason="bad"), replace(UP, replaces="x"), replace(UP, objective="harmless")):
        assert known.is_another("e", other)
        assert not known.is_another("of nobody", other)
    known.add("e", down)
    assert not known.is_another("e", UP), "the first one stays what it is"


def test_a_vote_is_its_persons():
    known = _known("e")
    assert known.is_somebody_elses("e", "bob") and not known.is_somebody_elses("e", "ada")
    assert not known.is_somebody_elses("unknown", "bob")


def test_the_oldest_are_forgotten_and_json_keeps_the_rest():
    known = _known("a", "b", "c", capacity=2)
    again = KnownVotes.from_json(json.loads(json.dumps(known.to_json())))
    for each in (known, again):
        assert [each.is_somebody_elses(event_id, "bob") for event_id in "abc"] == [False, True, True]
    assert again.to_json() == known.to_json() and not again.is_another("b", UP)
