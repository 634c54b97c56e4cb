"""Feedback becomes what the reward model learns from, or says why nothing can be learned from it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rlhf_online import events as ev
from rlhf_online.errors import InvalidInput, UnusableVote
from rlhf_online.feedback.answer_store import AnswerStore
from rlhf_online.feedback.conversion import to_vote
from rlhf_online.feedback.join import Join, Joined
from rlhf_online.feedback.votes import Candidate, Comparison, Rating, Vote, from_json, to_json
from tests.support.logged import completion, feedback, ref

A, B, C = ref("c", 0), ref("c", 1), ref("d", 0)
ORIGIN = ev.origin("talk-1", "asker")


def _joined(kind: ev.FeedbackKind, shown: tuple[ev.AnswerRef, ...] = (), prompt_of_d: tuple[int, ...] = (1, 2, 3)):
    join = Join(AnswerStore(Path("nowhere")), 1_000)
    join.add(completion("c", answers=[(5, 6), (7, 8)], conversation="talk-1"))
    join.add(completion("d", answers=[(9,), ()], prompt=prompt_of_d, conversation="talk-1"))
    [joined] = join.add(feedback(kind, event_id="vote", shown=shown, conversation="said-by-the-client"))
    return joined


def answer_ids(text: str) -> tuple[int, ...]:
    """A tokenizer: each letter's code, and an end."""
    return (*text.encode(), 2)


def convert(joined: Joined) -> Vote:
    return to_vote(joined, answer_ids)


def _comparison(candidates: tuple[Candidate, ...], tiers: tuple[tuple[int, ...], ...], strength: int = 0) -> Comparison:
    return Comparison(
        event_id="vote",
        created_ms=2000,
        conversation_id="talk-1",
        person="rater",
        prompt_token_ids=(1, 2, 3),
        candidates=candidates,
        tiers=tiers,
        strength=strength,
        origins=(ORIGIN,),
        completions=("c",),
        owners=("asker",),
    )


def test_a_thumb_is_a_rating():
    assert convert(_joined(ev.Thumb(answer=B, up=False), shown=(A, B))) == Rating(
        event_id="vote",
        conversation_id="talk-1",
        person="rater",
        prompt_token_ids=(1, 2, 3),
        candidate=Candidate(token_ids=(7, 8), position=1),
        up=False,
        origins=(ORIGIN,),
        completions=("c",),
        owners=("asker",),
        created_ms=2000,
    )


def test_a_ranking_keeps_its_tiers_and_ties():
    ranked = _comparison(
        (
            Candidate(token_ids=(9,), position=1),
            Candidate(token_ids=(5, 6), position=0),
            Candidate(token_ids=(7, 8), position=-1),
        ),
        ((0,), (1, 2)),
    )
    found = convert(_joined(ev.Ranking(tiers=((C,), (), (A, B))), shown=(A, C)))
    assert found == replace(ranked, completions=("d", "c"))


def test_a_vote_keeps_the_key_that_it_came_with():
    joined = _joined(ev.Thumb(answer=B, up=False))
    assert convert(joined).key_id == ""
    assert convert(replace(joined, feedback=replace(joined.feedback, key_id="k1"))).key_id == "k1"


def test_a_pair_keeps_its_order_or_is_a_tie():
    pair = (Candidate(token_ids=(7, 8)), Candidate(token_ids=(5, 6)))
    assert convert(_joined(ev.Pairwise(chosen=B, rejected=A, strength=2))) == _comparison(pair, ((0,), (1,)), 2)
    assert convert(_joined(ev.Pairwise(chosen=B, rejected=A, tie=True))) == _comparison(pair, ((0, 1),))
    unsure = convert(_joined(ev.Pairwise(chosen=B, rejected=A, unsure=True)))
    assert unsure == replace(_comparison(pair, ((0, 1),)), unsure=True), "a tie that says less"


def test_an_implicit_signal_is_a_thumb_down_that_names_it():
    rating = convert(_joined(ev.Implicit(answer=B, signal="stop"), shown=(A, B)))
    assert isinstance(rating, Rating)
    assert (rating.signal, rating.up, rating.candidate) == ("stop", False, Candidate(token_ids=(7, 8), position=1))


def test_a_vote_that_no_person_gave_says_so():
    joined = _joined(ev.Thumb(answer=B, up=False))
    labelled = replace(joined, feedback=replace(joined.feedback, source="ai"))
    assert (convert(joined).by_ai, convert(labelled).by_ai) == (False, True)


def test_a_vote_keeps_its_objective():
    joined = _joined(ev.Thumb(answer=B, up=True))
    assert convert(joined).objective == ""
    named = replace(joined, feedback=replace(joined.feedback, objective="harmless"))
    assert convert(named).objective == "harmless"


def test_a_correction_is_preferred_to_the_answer():
    """And says nothing of the place where the answer was shown: what it is compared with was shown nowhere."""
    assert convert(_joined(ev.Correction(answer=A, text="better words"), shown=(A,))) == replace(
        _comparison((Candidate(token_ids=answer_ids("better words")), Candidate(token_ids=(5, 6))), ((0,), (1,))),
        correction=True,
        owners=("asker", "rater"),
    )


def test_an_answer_that_was_logged_as_text_is_tokenised():
    event = completion("e", answers=[()]).event
    assert isinstance(event, ev.Completion)
    logged = replace(event.answers[0], text="words")
    vote = ev.Feedback(conversation_id="", person="", kind=ev.Thumb(answer=ref("e"), up=True))
    rating = convert(Joined(event_id="vote", feedback=vote, answers={ref("e"): (event, logged)}))
    assert isinstance(rating, Rating) and rating.candidate.token_ids == answer_ids("words")


@pytest.mark.parametrize(
    ("kind", "reason", "why"),
    [
        (ev.Ranking(tiers=((A, A),)), "twice", "names one answer twice"),
        (ev.Pairwise(chosen=A, rejected=A), "twice", "names one answer twice"),
        (ev.Ranking(tiers=((A,),)), "single", "fewer than two"),
        (ev.Correction(answer=A, text=" \n"), "correction", "correction is empty"),
        (ev.Correction(answer=A, text="5 6"), "correction", "equal to the answer"),
        (ev.Implicit(answer=A, signal="sigh"), "signal", "'sigh' is none of regenerate, rephrase, stop"),
        (ev.Withdrawal(answer=A), "nothing", "takes a vote back"),
        (ev.Thumb(answer=ref("d", 1), up=True), "empty", "answer 1 of completion d is empty"),
    ],
)
def test_what_teaches_nothing_is_refused_with_its_reason(kind: ev.FeedbackKind, reason: str, why: str):
    with pytest.raises(UnusableVote, match=why) as refused:
        convert(_joined(kind))
    assert refused.value.reason == reason


def test_answers_to_different_prompts_are_not_compared():
    with pytest.raises(UnusableVote, match="different prompts") as refused:
        convert(_joined(ev.Ranking(tiers=((A,), (C,))), prompt_of_d=(1, 2, 4)))
    assert refused.value.reason == "prompts"


def test_an_answer_that_was_logged_without_its_prompts_tokens_is_refused():
    event = completion("e", prompt=()).event
    assert isinstance(event, ev.Completion)
    vote = ev.Feedback(conversation_id="", person="", kind=ev.Thumb(answer=ref("e"), up=True))
    joined = Joined(event_id="vote", feedback=vote, answers={ref("e"): (event, event.answers[0])})
    with pytest.raises(UnusableVote, match="without its prompt"):
        convert(joined)


def imported(kind: ev.FeedbackKind, *answers: str, asked: str = "") -> Joined:
    """A vote on an exchange of which no token is known."""
    messages = (ev.Message(role="user", content="fig?"), ev.Message(role="tool", content="", other='{"name":"look"}'))
    event = completion("e", prompt=()).event
    assert isinstance(event, ev.Completion)
    said = tuple(
        ev.Answer(index=index, text=text, token_ids=(), logprobs=(), spans=(), finish_reason="stop")
        for index, text in enumerate(answers)
    )
    event = replace(event, messages=messages, answers=said, asked=asked)
    vote = ev.Feedback(conversation_id="", person="", kind=kind)
    return Joined("vote", vote, {ref("e", answer.index): (event, answer) for answer in said})


def rendered(messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]]) -> tuple[int, ...]:
    if any(tool.get("refused") for tool in tools):
        raise InvalidInput("the model's chat template refuses these messages")
    return tuple(json.dumps([messages, tools]).encode())


def test_an_imported_exchange_is_tokenised_as_the_chat_template_has_it_with_its_tools():
    joined = imported(ev.Pairwise(chosen=ref("e"), rejected=ref("e", 1)), "yes", "no", asked='{"tools": [{"a": 1}]}')
    vote = to_vote(joined, answer_ids, rendered)
    turns = [{"role": "user", "content": "fig?"}, {"role": "tool", "content": "", "name": "look"}]
    assert json.loads(bytes(vote.prompt_token_ids)) == [turns, [{"a": 1}]]
    assert [candidate.token_ids for candidate in vote.candidates] == [answer_ids("yes"), answer_ids("no")]


def test_an_imported_answer_may_be_empty_and_is_the_end_alone():
    vote = to_vote(imported(ev.Pairwise(chosen=ref("e"), rejected=ref("e", 1)), "", "no"), answer_ids, rendered)
    assert vote.candidates[0].token_ids == (2,)


def test_messages_that_the_template_refuses_are_no_vote():
    joined = imported(ev.Thumb(answer=ref("e"), up=True), "yes", asked='{"tools": [{"refused": true}]}')
    with pytest.raises(UnusableVote, match="chat template") as refused:
        to_vote(joined, answer_ids, rendered)
    assert refused.value.reason == "template"


@pytest.mark.parametrize(
    "kind",
    [
        ev.Thumb(answer=B, up=True),
        ev.Ranking(tiers=((B,), (A, C))),
        ev.Pairwise(chosen=A, rejected=B, strength=2),
        ev.Pairwise(chosen=A, rejected=B, unsure=True),
        ev.Correction(answer=A, text="better"),
        ev.Implicit(answer=A, signal="rephrase"),
    ],
    ids=lambda kind: type(kind).__name__,
)
def test_a_vote_survives_json(kind: ev.FeedbackKind):
    vote = convert(_joined(kind, shown=(A, B, C)))
    assert from_json(json.loads(json.dumps(to_json(vote)))) == vote
