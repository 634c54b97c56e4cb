"""Votes that wait: what the next cycle takes, and how long a subject is remembered that was learned from."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from rlhf_online import tracing
from rlhf_online.events import AnswerRef, Completion, Erasure, Feedback, Thumb, Withdrawal
from rlhf_online.feedback.answer_store import AnswerStore
from rlhf_online.feedback.held_out import is_held_out, use_of
from rlhf_online.feedback.join import Join
from rlhf_online.feedback.outcomes import vote_key
from rlhf_online.feedback.votes import Candidate, Rating, Vote
from rlhf_online.training.intake import joined_votes
from rlhf_online.training.intake.joined_votes import JoinedVotes
from rlhf_online.training.ledger import Ledger
from tests.support.logged import completion, thumb

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


def _conversation(use: str) -> str:
    """One whose votes are for that, if half of all are held out, and half of the others held back."""
    return next(name for name in map(str, range(99)) if use_of(name, held_out=0.5, held_back=0.5) == use)


def _ids(votes: Sequence[Vote]) -> list[str]:
    return [vote.event_id for vote in votes]


def test_a_cycle_takes_what_waits_held_out_apart_and_says_so_in_the_ledger():
    ledger = Ledger()
    votes = JoinedVotes(ledger, 0.5)
    votes.add(_thumb("a", 5))
    votes.add(_thumb("b", 6))
    votes.add(_thumb("c", 7, conversation=HIDDEN))
    assert len(votes) == 3 and votes.trainable == 2 and "a" in votes and "d" not in votes
    learned, _, held_out, _ = votes.take()
    assert (_ids(learned), _ids(held_out)) == (["a", "b"], ["c"])
    assert len(votes) == votes.trainable == 0
    assert {name: count for name, count in ledger.counts().items() if count} == {"trained": 2, "held_out": 1}
    votes.add(_thumb("a", 8))
    assert votes.take() == ([], [], [], []), "taken once, for ever"


def test_votes_that_are_held_back_are_learned_from_apart_and_their_person_is_told():
    ledger = Ledger()
    votes = JoinedVotes(ledger, 0.5, 0.5)
    conversations = {use: _conversation(use) for use in ("learned", "held_back", "held_out")}
    for number, (use, conversation) in enumerate(conversations.items()):
        votes.add(_thumb(use, number, conversation=conversation))
    assert votes.trainable == 2, "either reward model learns"
    taken = votes.take()
    assert {use: _ids(getattr(taken, use)) for use in conversations} == {use: [use] for use in conversations}
    assert {name: count for name, count in ledger.counts().items() if count} == {"trained": 2, "held_out": 1}
    assert [_told(ledger, use) for use in ("held_back", "held_out")] == ["held_back", "held_out"]
    votes.add(_thumb("edit", 1, conversation=conversations["held_back"]))
    [edit] = votes.take().held_back
    assert edit.revised, "the earlier one was learned from"


def test_a_later_vote_on_what_was_learned_from_takes_its_place_and_brings_no_cycle_about():
    votes = JoinedVotes(Ledger(), 0.5)
    votes.add(_thumb("a"))
    votes.add(_thumb("h", conversation=HIDDEN))
    votes.take()
    votes.add(_thumb("b"))
    votes.add(_thumb("i", conversation=HIDDEN))
    votes.add(_thumb("c", person="bob"))
    assert votes.trainable == 1, "bob's"
    [b, c], _, [i], _ = votes.take()
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


def _told(ledger: Ledger, event_id: str, person: str = "ann") -> str | None:
    return ledger.news.get(vote_key(event_id, person))


def _kept(ledger: Ledger) -> dict[str, int]:
    return {name: count for name, count in ledger.counts().items() if count}


def test_of_a_person_without_a_name_nothing_is_remembered_as_learned_from():
    votes = JoinedVotes(Ledger(), 0.5)
    for event_id in ("a", "b"):
        votes.add(_thumb(event_id, person=""))
        assert [vote.revised for vote in votes.take()[0]] == [False]


def test_who_waits_and_what_became_of_each_is_told():
    ledger = Ledger()
    votes = JoinedVotes(ledger, 0.5)
    votes.add(_thumb("a"))
    votes.add(_thumb("b"))
    votes.add(_thumb("c", 6, person="bob"))
    votes.add(_thumb("h", conversation=HIDDEN))
    assert votes.waiting() == [("b", "ann"), ("c", "bob"), ("h", "ann")]
    assert _told(ledger, "a") == "superseded b" and _kept(ledger) == {"withdrawn": 1}
    votes.take()
    assert votes.waiting() == []
    assert _told(ledger, "h") == "held_out"
    assert _told(ledger, "b") is None, "the trainer tells of what it has learned from, once it has"


def test_votes_on_an_erased_conversation_are_let_go_of_and_their_people_told():
    """Whoever they are; their people may vote anew on the same subject."""
    ledger = Ledger()
    votes = JoinedVotes(ledger, 0.0)
    erasure = Erasure(conversation_id="c", person="asker", erased_ms=5_000)
    votes.add(replace(_thumb("a"), origins=(erasure.origin,)))
    votes.add(replace(_thumb("b", person="bob"), origins=(erasure.origin, "another")))
    votes.add(replace(_thumb("c", 6), origins=("another",)))
    votes.erase(erasure)
    assert votes.waiting() == [("c", "ann")]
    assert (_told(ledger, "a"), _told(ledger, "b", "bob"), _told(ledger, "c")) == ("erased", "erased", None)
    assert _kept(ledger) == {"erased": 2}
    assert votes.erasures.take_new() == [erasure]
    votes.add(_thumb("again"))
    assert _kept(ledger) == {"erased": 2}, "it takes nobody's place"


def test_erasures_come_back_and_a_state_of_an_earlier_release_has_none():
    votes, again = JoinedVotes(Ledger(), 0.0), JoinedVotes(Ledger(), 0.0)
    erasure = Erasure(conversation_id="c", person="asker", erased_ms=5_000)
    votes.erase(erasure)
    values = json.loads(json.dumps(votes.to_json()))
    again.restore(values)
    asked = completion("a", conversation="c").event
    assert isinstance(asked, Completion)
    assert again.erasures.cover(asked) and again.erasures.take_new() == [erasure]
    for unknown in ("erasures", "learned"):
        del values[unknown]
    again.restore(values)
    assert not again.erasures.cover(asked) and again.erasures.take_new() == []


REF = AnswerRef(completion_id="a")


def _feedback(kind: Thumb | Withdrawal, replaces: str = "") -> Feedback:
    return Feedback(conversation_id=SEEN, person="ann", kind=kind, replaces=replaces, created_ms=1_000)


UP, BACK = Thumb(answer=REF, up=True), Withdrawal(answer=REF)


@pytest.mark.parametrize(("kind", "word"), [(UP, "superseded by it"), (BACK, "withdrawn by it")])
def test_what_waits_is_replaced_or_taken_back_by_its_person(kind: Thumb | Withdrawal, word: str, tmp_path: Path):
    ledger = Ledger()
    votes, join = JoinedVotes(ledger, 0.0), Join(AnswerStore(tmp_path), 1_000)
    votes.add(_thumb("mine"))
    votes.add(_thumb("another's", person="bob"))
    ended = votes.revise("by it", _feedback(kind, "mine"), join)
    assert ended == (kind is BACK), "an edit is a vote of its own, which is still to be joined"
    assert votes.waiting() == [("another's", "bob")]
    assert _told(ledger, "mine") == word
    assert _told(ledger, "by it") == ("withdrawn" if kind is BACK else None)
    votes.revise("theft", _feedback(kind, "another's"), join)
    assert "another's" in votes and votes.revoked == [] and not ledger.known("another's")


def test_what_was_learned_from_is_revoked_and_an_edit_that_was_edited_itself_ends_there(tmp_path: Path):
    ledger = Ledger()
    votes, join = JoinedVotes(ledger, 0.0), Join(AnswerStore(tmp_path), 1_000)
    votes.add(_thumb("first"))
    votes.take()
    assert votes.revise("third", _feedback(UP, "second"), join) is False
    assert votes.revise("second", _feedback(UP, "first"), join) is True
    assert votes.take_revoked() == [("first", "ann")]
    assert (_told(ledger, "first"), _told(ledger, "second")) == ("superseded second", "superseded third")
    assert _kept(ledger) == {"trained": 1, "withdrawn": 1}


def test_feedback_that_waits_for_its_answer_is_taken_back_there(tmp_path: Path):
    ledger = Ledger()
    votes, join = JoinedVotes(ledger, 0.0), Join(AnswerStore(tmp_path), 1_000)
    early = thumb("not there", event_id="early")
    join.add(early)
    assert join.pending == 1
    assert isinstance(early.event, Feedback)
    back = replace(early.event, kind=BACK, replaces="early")
    assert votes.revise("back", back, join)
    assert join.pending == 0
    assert _kept(ledger) == {"withdrawn": 2} and ledger.known("early") and ledger.known("back")


def test_what_replaces_a_vote_that_is_still_to_come_is_known_after_a_restart(tmp_path: Path):
    votes, again = JoinedVotes(Ledger(), 0.0), JoinedVotes(Ledger(), 0.0)
    join = Join(AnswerStore(tmp_path), 1_000)
    votes.revise("second", _feedback(UP, "first"), join)
    again.restore(json.loads(json.dumps(votes.to_json())))
    assert again.revise("first", _feedback(UP), join), "it was replaced before it came"


def test_a_release_knows_the_subjects_that_an_earlier_one_has_learned_from():
    votes = JoinedVotes(Ledger(), 0.0)
    votes.add(_thumb("a"))
    votes.take()
    assert votes.to_json()["learned"] == ["2654f9ceb35c79f6"]


def test_the_traces_of_votes_that_wait_are_taken_with_them_so_many_at_most(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tracing, "MAX_LINKS", 3)
    votes, again = JoinedVotes(Ledger(), 0.5), JoinedVotes(Ledger(), 0.5)
    traces = {name: f"00-{name * 32}-{name * 16}-01" for name in "abcde"}
    votes.add(_thumb("unsampled", 5), traces["a"].removesuffix("01") + "00")
    votes.add(_thumb("untraced", 6))
    for number, name in enumerate("abcd"):
        votes.add(_thumb(name, 7 + number), traces[name])
    votes.add(_thumb("e", 7), traces["e"])  # in the place of "a"
    again.restore(json.loads(json.dumps(votes.to_json())))
    for taken in (votes.take(), again.take()):
        assert taken.traces == [traces["b"], traces["c"]] and len(taken.learned) == 6
    assert votes.take().traces == []
