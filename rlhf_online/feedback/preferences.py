"""Feedback and the answers it is about → training signals for the reward model. Pure.

A ranking, a pair and a correction become a Comparison (a partial order over candidates); a thumb and an implicit signal
become a Rating.
"""

import hashlib
import itertools
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from rlhf_online.errors import UnusableVote
from rlhf_online.events import SIGNALS, AnswerRef, Correction, Implicit, Pairwise, Ranking, Thumb, Withdrawal
from rlhf_online.feedback.join import Joined


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """An answer: its tokens (end of sequence included where it came), or a person's own text without tokens."""

    token_ids: tuple[int, ...] = ()
    text: str = ""
    slot: int = -1
    """Position at which it was shown, 0-based; -1 if unknown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Candidates of one prompt in tiers, best first: `tiers[0]` indexes the best candidates.

    `unsure`: the one tier of two says that the person could not tell. `objective` is "" for the first one.
    """

    event_id: str
    conversation_id: str
    person: str
    prompt_token_ids: tuple[int, ...]
    candidates: tuple[Candidate, ...]
    tiers: tuple[tuple[int, ...], ...]
    strength: int = 0
    unsure: bool = False
    objective: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rating:
    """A thumb on one answer; or, where `signal` names one, an implicit signal that counts as a thumb down."""

    event_id: str
    conversation_id: str
    person: str
    prompt_token_ids: tuple[int, ...]
    candidate: Candidate
    up: bool
    signal: str = ""
    objective: str = ""


Preference = Comparison | Rating


def to_json(preference: Preference) -> dict[str, Any]:
    """The preference in JSON's types."""
    return asdict(preference)


def from_json(values: Mapping[str, Any]) -> Preference:
    """The preference that `to_json` described."""
    common = {name: values[name] for name in ("event_id", "conversation_id", "person", "objective")}
    common["prompt_token_ids"] = tuple(values["prompt_token_ids"])
    if "up" in values:
        return Rating(
            **common, candidate=_candidate_from(values["candidate"]), up=values["up"], signal=values["signal"]
        )
    return Comparison(
        **common,
        candidates=tuple(_candidate_from(item) for item in values["candidates"]),
        tiers=tuple(tuple(tier) for tier in values["tiers"]),
        strength=values["strength"],
        unsure=values["unsure"],
    )


def _candidate_from(values: Mapping[str, Any]) -> Candidate:
    return Candidate(token_ids=tuple(values["token_ids"]), text=values["text"], slot=values["slot"])


def to_preference(joined: Joined) -> Preference:
    """What the feedback says about the answers' prompt. Candidates stand in the order in which it names them.

    The conversation is that of the (first) answer, whatever the feedback says, so that the held-out split can't leak.
    Raises UnusableVote, saying why nothing can be learned from it: answers to different prompts, an answer named
    twice, an answer or correction without content, fewer than two candidates to compare, a signal that nobody knows.
    """
    feedback = joined.feedback
    refs = feedback.answers()
    if not refs:
        raise UnusableVote("nothing", "it judges no answer")
    if len(set(refs)) < len(refs):
        raise UnusableVote("twice", "it names one answer twice")
    completion, _ = joined.answers[refs[0]]
    prompt = completion.prompt_token_ids
    if not prompt:
        raise UnusableVote("empty", f"completion {completion.completion_id} was logged without its prompt's tokens")
    if any(joined.answers[ref][0].prompt_token_ids != prompt for ref in refs):
        raise UnusableVote("prompts", "its answers were given to different prompts")
    candidates = [_candidate(joined, ref) for ref in refs]
    common: dict[str, Any] = {
        "event_id": joined.event_id,
        "conversation_id": completion.conversation_id,
        "person": feedback.person,
        "prompt_token_ids": prompt,
        "objective": feedback.objective,
    }
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
            if not text.strip() or text == joined.answers[refs[0]][1].text:
                raise UnusableVote("correction", "its correction is empty, or equal to the answer")
            # The person's own text was shown nowhere, so the answer's place says nothing of which is better.
            candidates = [Candidate(text=text), replace(candidates[0], slot=-1)]
            tiers = ((0,), (1,))
        case Withdrawal():
            raise UnusableVote("nothing", "it takes a vote back and judges nothing")
    if len(candidates) < 2:
        raise UnusableVote("single", "it ranks fewer than two answers")
    return Comparison(**common, candidates=tuple(candidates), tiers=tiers, strength=strength, unsure=unsure)


def is_held_out(conversation_id: str, share: float) -> bool:
    """True for `share` (0 … 1) of all conversations, the same ones everywhere and always: no update may see them."""
    digest = hashlib.sha256(conversation_id.encode()).digest()
    return int.from_bytes(digest[:8], "big") < share * 2**64


def _candidate(joined: Joined, ref: AnswerRef) -> Candidate:
    _, answer = joined.answers[ref]
    if not answer.token_ids and not answer.text:
        raise UnusableVote("empty", f"answer {ref.index} of completion {ref.completion_id} is empty")
    shown = joined.feedback.shown
    return Candidate(
        token_ids=answer.token_ids,
        text="" if answer.token_ids else answer.text,
        slot=shown.index(ref) if ref in shown else -1,
    )
