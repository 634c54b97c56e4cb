"""Feedback, joined with the answers that it judges → a vote. Pure but for the tokenizer.

A ranking, a pair and a correction become a Comparison; a thumb and an implicit signal a Rating. What was logged without
its tokens (an exchange that was imported), and a person's own text, are tokenised here and nowhere else.
"""

import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from rlhf_online.errors import InvalidInput, UnusableVote
from rlhf_online.events import (
    SIGNALS,
    AnswerRef,
    Completion,
    Correction,
    Implicit,
    Pairwise,
    Ranking,
    Thumb,
    Withdrawal,
)
from rlhf_online.feedback.join import Joined
from rlhf_online.feedback.votes import Candidate, Comparison, Rating, Vote

AnswerIds = Callable[[str], tuple[int, ...]]
"""Tokens of an answer's text, end of sequence included; `ChatTokenizer.answer_ids` is one."""
PromptIds = Callable[[Sequence[Mapping[str, Any]], Sequence[Mapping[str, Any]]], tuple[int, ...]]
"""Tokens of a conversation with these tools, up to where the answer begins; `ChatTokenizer.prompt_ids` is one."""


def to_vote(joined: Joined, answer_ids: AnswerIds, prompt_ids: PromptIds | None = None) -> Vote:
    """What the feedback says about the answers' prompt. Candidates stand in the order in which it names them.

    The conversation is that of the (first) answer, whatever the feedback says, so that the held-out split can't leak.
    Raises UnusableVote, saying why: answers to different prompts, an answer named twice, or without content, fewer than
    two to compare, an unknown signal, messages that the chat template refuses. An imported answer may be empty.
    """
    feedback = joined.feedback
    if not (refs := feedback.answers()):
        raise UnusableVote("nothing", "it judges no answer")
    if len(set(refs)) < len(refs):
        raise UnusableVote("twice", "it names one answer twice")
    _, answer = joined.answers[refs[0]]
    completions = {each.completion_id: each for each, _ in joined.answers.values()}
    prompt, *others = [_prompt(each, prompt_ids) for each in completions.values()]
    if any(other != prompt for other in others):
        raise UnusableVote("prompts", "its answers were given to different prompts")
    candidates = [_candidate(joined, ref, answer_ids) for ref in refs]
    common = _common(joined, prompt)
    strength, unsure = 0, False
    match feedback.kind:
        case Thumb(up=up):
            return Rating(**common, candidate=candidates[0], up=up)
        case Implicit(signal=signal):
            if signal not in SIGNALS:
                raise UnusableVote("signal", f"its signal {signal!r} is none of {', '.join(SIGNALS)}")
            return Rating(**common, candidate=candidates[0], up=False, signal=signal)
        case Ranking(tiers=ranked):
            number = itertools.count()
            tiers = tuple(tuple(next(number) for _ in tier) for tier in ranked if tier)
        case Pairwise(tie=tie, strength=strength, unsure=unsure):
            tiers = ((0, 1),) if tie or unsure else ((0,), (1,))
        case Correction(text=text):
            if not text.strip() or text == answer.text:
                raise UnusableVote("correction", "its correction is empty, or equal to the answer")
            # The person's own text was shown nowhere, so the answer's place says nothing of which is better.
            candidates = [Candidate(token_ids=answer_ids(text)), replace(candidates[0], position=-1)]
            tiers = ((0,), (1,))
        case Withdrawal():
            raise UnusableVote("nothing", "it takes a vote back and judges nothing")
    if len(candidates) < 2:
        raise UnusableVote("single", "it ranks fewer than two answers")
    return Comparison(
        **common,
        candidates=tuple(candidates),
        tiers=tiers,
        strength=strength,
        unsure=unsure,
        correction=isinstance(feedback.kind, Correction),
    )


def _prompt(completion: Completion, prompt_ids: PromptIds | None) -> tuple[int, ...]:
    """The prompt's tokens, as they were logged, or as the chat template has them. Raises UnusableVote."""
    if completion.prompt_token_ids:
        return completion.prompt_token_ids
    if prompt_ids is None or not completion.messages:
        raise UnusableVote("empty", f"completion {completion.completion_id} was logged without its prompt's tokens")
    turns = [
        {"role": message.role, "content": message.content} | (json.loads(message.other) if message.other else {})
        for message in completion.messages
    ]
    try:
        return prompt_ids(turns, json.loads(completion.asked).get("tools", ()) if completion.asked else ())
    except InvalidInput as error:
        raise UnusableVote("template", str(error)) from error


def _common(joined: Joined, prompt: tuple[int, ...]) -> dict[str, Any]:
    """What votes of both kinds have."""
    feedback, asked = joined.feedback, [completion for completion, _ in joined.answers.values()]
    people = [completion.person for completion in asked]
    if isinstance(feedback.kind, Correction):
        people.append(feedback.person)
    return {
        "event_id": joined.event_id,
        "created_ms": feedback.created_ms,
        "conversation_id": asked[0].conversation_id,
        "person": feedback.person,
        "prompt_token_ids": prompt,
        "objective": feedback.objective,
        "origins": tuple(dict.fromkeys(filter(None, (completion.origin for completion in asked)))),
        "completions": tuple(dict.fromkeys(completion.completion_id for completion in asked)),
        "owners": tuple(dict.fromkeys(filter(None, people))),
        "by_ai": feedback.by_ai,
        "key_id": feedback.key_id,
        "assisted": feedback.assisted,
    }


def _candidate(joined: Joined, ref: AnswerRef, answer_ids: AnswerIds) -> Candidate:
    completion, answer = joined.answers[ref]
    if not answer.token_ids and not answer.text and completion.prompt_token_ids:
        raise UnusableVote("empty", f"answer {ref.index} of completion {ref.completion_id} is empty")
    shown = joined.feedback.shown
    return Candidate(
        token_ids=answer.token_ids or answer_ids(answer.text),
        position=shown.index(ref) if ref in shown else -1,
    )
