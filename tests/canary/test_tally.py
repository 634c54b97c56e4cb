"""What the log says of a canary: which votes and answers count."""

from typing import Any

import pytest

from rlhf_online.canary.tally import Tally
from rlhf_online.events import (
    Answer,
    AnswerRef,
    Completion,
    Erasure,
    Feedback,
    FeedbackKind,
    Pairwise,
    Ranking,
    Sampling,
    Thumb,
    VersionSpan,
    Withdrawal,
)

CANDIDATE, LIVE = "policy-000002", "policy-000001"


def answered(name: str, *versions: str, **fields: Any) -> Completion:
    """An exchange, whose answer these versions wrote; also its conversation has that name."""
    spans = tuple(VersionSpan(policy_version=version, first_token=at) for at, version in enumerate(versions))
    text, finish = fields.pop("text", "yes"), fields.pop("finish_reason", "stop")
    answer = Answer(index=0, text=text, token_ids=(1, 2), logprobs=(0, 0), spans=spans, finish_reason=finish)
    values = {"conversation_id": name, "person": "ann", "started_ms": 1000, "finished_ms": 2000} | fields
    return Completion(
        completion_id=name, messages=(), prompt_token_ids=(1,), answers=(answer,), sampling=Sampling(), **values
    )


NEW, OLD = answered("new", CANDIDATE), answered("old", LIVE)
A, B = AnswerRef(completion_id="new"), AnswerRef(completion_id="old")
BOTH = {A: (NEW, NEW.answers[0]), B: (OLD, OLD.answers[0])}


def said(kind: FeedbackKind, person: str = "ann", **fields: Any) -> Feedback:
    return Feedback(**{"conversation_id": "new", "person": person, "kind": kind, "comparison_id": "c"} | fields)


def tally(*votes: Feedback, look: int = 1) -> Tally:
    made = Tally(CANDIDATE, LIVE)
    for vote in votes:
        made.add_vote(vote, BOTH, look)
    return made


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (Pairwise(chosen=A, rejected=B), 1.0),
        (Pairwise(chosen=B, rejected=A), 0.0),
        (Pairwise(chosen=B, rejected=A, tie=True), 0.5),
        (Pairwise(chosen=A, rejected=B, unsure=True), 0.5),
        (Ranking(tiers=((A,), (B,))), 1.0),
        (Ranking(tiers=((B, A),)), 0.5),
    ],
)
def test_a_blind_comparison_counts_as_it_was_said(kind: FeedbackKind, value: float) -> None:
    assert tally(said(kind)).people.pairs.outcomes == {value: 1}


def test_a_model_is_no_person() -> None:
    made = tally(said(Pairwise(chosen=A, rejected=B), source="ai"), said(Thumb(answer=A, up=False), source="ai"))
    assert (made.votes, len(made.people), made.guards["thumbs_down"].outcomes) == (0, 0, {})


def test_what_could_know_what_the_service_did_not_show_and_what_is_of_one_version_alone_count_for_nothing() -> None:
    pair = Pairwise(chosen=A, rejected=B)
    assert not tally(said(pair, could_know=True)).people.pairs.outcomes
    assert not tally(said(pair, comparison_id="")).people.pairs.outcomes
    alike = {A: BOTH[A], B: (answered("old", CANDIDATE), answered("old", CANDIDATE).answers[0])}
    made = Tally(CANDIDATE, LIVE)
    made.add_vote(said(pair), alike, 1)
    mixed = {A: BOTH[A], B: (answered("old", LIVE, CANDIDATE), answered("old", LIVE, CANDIDATE).answers[0])}
    made.add_vote(said(pair), mixed, 1)
    assert (made.votes, len(made.people)) == (0, 0)
    assert Tally().to_json()["votes"] == 0 and not _nobodys().people.pairs.outcomes


def _nobodys() -> Tally:
    made = Tally()
    made.add_vote(said(Pairwise(chosen=A, rejected=B)), BOTH, 1)
    return made


def test_thumbs_stand_against_each_other_and_those_on_the_canary_are_a_guardrail() -> None:
    made = tally(said(Thumb(answer=A, up=True)), said(Thumb(answer=B, up=False), person="bob"), look=2)
    assert made.people.thumbs == {1.0: 1}
    assert made.guards["thumbs_down"].outcomes == {0.0: 1}


def test_people_without_a_name_are_told_apart_by_conversation() -> None:
    pair = Pairwise(chosen=A, rejected=B)
    made = tally(said(pair, person=""), said(pair, person=""), said(pair, person="", conversation_id="other"))
    assert len(made.people) == 2


def test_what_is_taken_back_or_erased_before_it_is_counted_does_not_count() -> None:
    pair, thumb = said(Pairwise(chosen=A, rejected=B)), said(Thumb(answer=A, up=False), person="bob")
    for gone in (
        lambda made: made.withdraw(said(Withdrawal(answer=B))),
        lambda made: made.erase(Erasure(conversation_id="new", person="ann", erased_ms=5)),
    ):
        made = tally(pair, thumb, look=3)
        gone(made)
        made.people.look()
        assert not made.people.pairs.outcomes
    made = tally(pair, thumb, look=3)
    made.erase(Erasure(conversation_id="ne", person="bob", erased_ms=5))
    made.withdraw(said(Withdrawal(answer=B), person="bob"))
    made.guards["thumbs_down"].look()
    assert made.guards["thumbs_down"].outcomes == {1.0: 1}, "neither was that thumb"


def test_who_has_no_name_takes_back_too() -> None:
    made = tally(said(Pairwise(chosen=A, rejected=B), person=""), said(Thumb(answer=A, up=False), person="bob"), look=3)
    made.withdraw(said(Withdrawal(answer=B), person=""))
    made.people.look()
    assert not made.people.pairs.outcomes


def test_its_answers_are_counted_a_conversation_at_a_time_and_the_live_versions_are_not() -> None:
    made = Tally(CANDIDATE, LIVE)
    made.step(1500)
    for n in range(4):
        made.add_completion(answered("one busy conversation", CANDIDATE, text=" "), 60.0)
        made.add_completion(answered(f"aborted {n}", CANDIDATE, text="", finish_reason="abort"), 60.0)
    made.add_completion(answered("slow", CANDIDATE, finished_ms=62_000), 60.0)
    made.add_completion(answered("earlier", CANDIDATE, finished_ms=1400), 60.0)
    made.add_completion(answered("live", LIVE, text=""), 60.0)
    assert made.guards["empty"].outcomes == {1.0: 1, 0.0: 6}
    assert made.guards["aborted"].outcomes == {1.0: 4, 0.0: 3}
    assert made.guards["slow"].outcomes == {1.0: 1, 0.0: 6}
    assert made.answers == 9, "one was written before the step began"
    made.step(1500)
    assert made.answers == 9
    made.step(3000)
    assert made.answers == 0
    assert not any(made.guards[name].outcomes for name in ("aborted", "empty", "slow")), "more load is another matter"


def test_it_goes_on_from_a_checkpoint_where_it_was() -> None:
    made = tally(said(Pairwise(chosen=A, rejected=B)), said(Thumb(answer=A, up=True), person="bob"), look=2)
    made.add_completion(NEW, 60.0)
    assert Tally.from_json(made.to_json()).to_json() == made.to_json()
