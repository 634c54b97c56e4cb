"""Votes that wait: what the next cycle takes, and how long a subject is remembered that was learned from."""

import json
from collections.abc import Sequence
from dataclasses import replace

import pytest

from rlhf_online.feedback.held_out import is_held_out
from rlhf_online.feedback.votes import Candidate, Rating, Vote
from rlhf_online.training.intake import joined_votes
from rlhf_online.training.intake.joined_votes import JoinedVotes
from rlhf_online.training.ledger import Ledger

SEEN, HIDDEN = (next(name for name in map(str, range(99)) if is_held_out(name, 0.5) == held) for held in (False, True))


def _thumb(event_id: str, answer: int = 5, *, person: str = "ann", conversation: str = SEEN) -> Rating:
    return Rating(
        event_id=event_id,
        conversation_id=conversation,
        person=person,
        prompt_token_ids=(1, 3),
        candidate=Candidate(token_ids=(answer, 2)),
        up=True,
    )


def _ids(votes: Sequence[Vote]) -> list[str]:
    return [vote.event_id for vote in votes]


def test_a_cycle_takes_what_waits_held_out_apart_and_says_so_in_the_ledger():
    ledger = Ledger()
    votes = JoinedVotes(ledger, 0.5)
    votes.add(_thumb("a", 5))
    votes.add(_thumb("b", 6))
    votes.add(_thumb("c", 7, conversation=HIDDEN))
    assert len(votes) == 3 and votes.trainable == 2 and "a" in votes and "d" not in votes
    learned, held_out = votes.take()
    assert (_ids(learned), _ids(held_out)) == (["a", "b"], ["c"])
    assert len(votes) == votes.trainable == 0
    assert {name: count for name, count in ledger.counts().items() if count} == {"trained": 2, "held_out": 1}
    votes.add(_thumb("a", 8))
    assert votes.take() == ([], []), "taken once, for ever"


def test_a_later_vote_on_what_was_learned_from_takes_its_place_and_brings_no_cycle_about():
    votes = JoinedVotes(Ledger(), 0.5)
    votes.add(_thumb("a"))
    votes.add(_thumb("h", conversation=HIDDEN))
    votes.take()
    votes.add(_thumb("b"))
    votes.add(_thumb("i", conversation=HIDDEN))
    votes.add(_thumb("c", person="bob"))
    assert votes.trainable == 1, "bob's"
    [b, c], [i] = votes.take()
    assert (b.revised, c.revised, i.revised) == (True, False, False), "a held-out one was not learned from"


def test_so_many_subjects_are_remembered_the_oldest_go_first(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(joined_votes, "SUBJECTS", 2)
    votes = JoinedVotes(Ledger(), 0.0)
    for number in range(3):
        votes.add(_thumb(f"first {number}", number + 5))
    votes.take()
    for number in range(3):
        votes.add(_thumb(f"second {number}", number + 5))
    assert [vote.revised for vote in votes.take()[0]] == [False, True, True]


def test_what_waits_and_what_was_learned_from_come_back():
    ledger = Ledger()
    votes, again = JoinedVotes(ledger, 0.5), JoinedVotes(ledger, 0.5)
    votes.add(_thumb("a"))
    votes.take()
    votes.revoked = [("x", "ann")]
    for event_id, answer in (("b", 5), ("c", 6), ("d", 6)):
        votes.add(_thumb(event_id, answer))
    again.restore(json.loads(json.dumps(votes.to_json())))
    assert ("c" in again, "d" in again, again.trainable) == (False, True, 1)
    assert again.take_revoked() == [("x", "ann")] and again.take_revoked() == []
    assert again.take()[0] == [replace(_thumb("b"), revised=True), _thumb("d", 6)]
    assert ledger.counts()["withdrawn"] == 1
