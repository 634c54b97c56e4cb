"""What is known of the newest votes: whose they are, and what they said, whatever the circumstances."""

import json
from dataclasses import replace

import pytest

from rlhf_online import events as ev
from rlhf_online.feedback.known_votes import KnownVotes
from tests.support.logged import ref, thumb


def vote(up: bool = True) -> ev.Feedback:
    event = thumb("c", up=up).event
    assert isinstance(event, ev.Feedback)
    return event


@pytest.fixture(params=[False, True], ids=["in one life", "after a restart"])
def known(request: pytest.FixtureRequest) -> KnownVotes:
    known = KnownVotes()
    known.add("vote", vote())
    return KnownVotes.from_json(json.loads(json.dumps(known.to_json()))) if request.param else known


@pytest.mark.parametrize(
    "change",
    [
        {"kind": ev.Thumb(answer=ref("c"), up=False)},
        {"kind": ev.Thumb(answer=ref("c", 1), up=True)},
        {"kind": ev.Correction(answer=ref("c"), text="fig")},
        {"reason": "because"},
        {"replaces": "another"},
        {"objective": "harmless"},
    ],
)
def test_what_is_said_makes_a_vote_another_one(known: KnownVotes, change: dict):
    assert known.is_another("vote", replace(vote(), **change))
    assert not known.is_another("unknown", replace(vote(), **change))


def test_the_circumstances_of_a_retry_do_not(known: KnownVotes):
    retried = {"created_ms": 9, "response_ms": 7, "source": "page", "shown": (ref("c"),), "conversation_id": "x"}
    assert not known.is_another("vote", replace(vote(), **retried))


def test_a_vote_is_its_own_persons(known: KnownVotes):
    assert not known.is_somebody_elses("vote", "rater")
    assert known.is_somebody_elses("vote", "thief") and known.is_somebody_elses("vote", "")
    assert not known.is_somebody_elses("unknown", "thief")


def test_the_first_under_an_id_stays_and_the_oldest_are_forgotten():
    known = KnownVotes(capacity=2)
    for name, said in (("a", vote()), ("b", vote()), ("a", vote(up=False)), ("c", vote())):
        known.add(name, said)
    assert [known.is_another(name, vote(up=False)) for name in "abc"] == [False, True, True]
    known = KnownVotes()
    known.add("a", vote())
    known.add("a", vote(up=False))
    assert known.is_another("a", vote(up=False))


def test_what_a_release_kept_the_next_one_knows():
    up = ev.Feedback(
        conversation_id="c", person="ada", kind=ev.Thumb(answer=ev.AnswerRef(completion_id="a"), up=True), reason="good"
    )
    assert not KnownVotes.from_json([["e", "ada", "becc566a0caf142a"]]).is_another("e", up)
