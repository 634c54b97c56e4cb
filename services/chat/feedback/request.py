"""Feedback as clients send it, checked, and the event that it becomes.

A completion id that nobody knows is taken: a vote may arrive before its answer is in the log, and the join waits for
it. What is known of answers and earlier votes is checked in `feedback_checks`, and the rest by the trainer, where all
of them meet.
"""

import secrets
import uuid
from dataclasses import replace
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, model_validator

from rlhf_online import events
from services.chat.bodies.api_error import ApiError
from services.chat.bodies.validation import Array, AtMost, Expected, Integer, Mistake, Model, Within

NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "urn:rlhf-online:feedback")
MAX_ANSWERS = 64
MAX_INDEX = 1023
MAX_ID = 256
MAX_NAME = 512
MAX_REASON = 8192
MAX_CORRECTION = 65_536
MAX_WORD = 64
MAX_REASONS = 64
MAX_RESPONSE_MS = 2**32 - 1
KINDS = ("thumb", "ranking", "pairwise", "correction", "implicit", "withdrawal")
EVENT_ID = "the event_id that the service gave the vote"


def _present(value: object) -> object:
    if value is None or value == "":
        raise Mistake("missing", code="missing_parameter")
    return value


def _not_blank(text: str) -> str:
    if not text.strip():
        raise Mistake(f"expected 1 to {MAX_CORRECTION} characters, not blank")
    return text


def _event_id(text: str) -> str:
    try:
        as_given_out = not text or str(uuid.UUID(text)) == text
    except ValueError:
        as_given_out = False
    if not as_given_out:
        raise Mistake(f"expected {EVENT_ID}, a UUID in lower case")
    return text


class AnswerRef(Model):
    """Names one answer of a completion."""

    completion_id: Annotated[str, Field(max_length=MAX_ID), BeforeValidator(_present)] = Field(
        description="Id of the completion."
    )
    index: Annotated[Integer, Within(0, MAX_INDEX)] = Field(default=0, description="Which of its answers, from 0.")

    def event(self) -> events.AnswerRef:
        return events.AnswerRef(completion_id=self.completion_id, index=self.index)


Answer = Annotated[AnswerRef, Expected('an object {"completion_id": …, "index": …}')]
Answers = Annotated[Array[Answer], Expected("an array of answers")]


Tag = Annotated[str, Field(max_length=MAX_WORD)]


class Thumb(Model):
    """Good or bad."""

    answer: Answer = Field(description="The answer judged.")
    up: bool = Field(description="True for good.")

    def event(self) -> events.Thumb:
        return events.Thumb(answer=self.answer.event(), up=self.up)


class Ranking(Model):
    """Two or more answers to one prompt."""

    tiers: Annotated[Array[Answers], Expected("an array of arrays of answers")] = Field(
        description="Best first; answers of one tier are tied."
    )

    @model_validator(mode="after")
    def _several(self) -> "Ranking":
        answers = [(answer.completion_id, answer.index) for tier in self.tiers for answer in tier]
        if len(answers) < 2 or not all(self.tiers):
            raise Mistake("expected at least two answers and no empty tier", param="tiers")
        if len(answers) > MAX_ANSWERS:
            raise Mistake(f"{len(answers)} answers, at most {MAX_ANSWERS} are taken", param="tiers")
        if len(set(answers)) < len(answers):
            raise Mistake("an answer is named twice")
        return self

    def event(self) -> events.Ranking:
        return events.Ranking(tiers=tuple(tuple(answer.event() for answer in tier) for tier in self.tiers))


class Pairwise(Model):
    """One answer against another."""

    chosen: Answer = Field(description="The better answer, or either of them where `tie` or `unsure` is set.")
    rejected: Answer = Field(description="The other answer.")
    tie: bool = Field(default=False, description="They are about the same.")
    strength: Annotated[Integer, Within(0, 3)] = Field(
        default=0, description="How much better: 0 not said, 1 slightly, 2 better, 3 much better."
    )
    unsure: bool = Field(default=False, description="The person could not tell which is better. Not with `tie`.")

    @model_validator(mode="after")
    def _one_of_two(self) -> "Pairwise":
        if self.tie and self.unsure:
            message = "tie says that they are about the same, unsure that it is not known: send one of them"
            raise Mistake(message, param="unsure")
        if self.chosen == self.rejected:
            raise Mistake("an answer is named twice")
        return self

    def event(self) -> events.Pairwise:
        return events.Pairwise(
            chosen=self.chosen.event(),
            rejected=self.rejected.event(),
            tie=self.tie,
            strength=self.strength,
            unsure=self.unsure,
        )


class Correction(Model):
    """A text that would have been better."""

    answer: Answer = Field(description="The answer corrected.")
    text: Annotated[str, Field(max_length=MAX_CORRECTION), AfterValidator(_not_blank)] = Field(
        description=f"The better text, 1 to {MAX_CORRECTION} characters."
    )

    def event(self) -> events.Correction:
        return events.Correction(answer=self.answer.event(), text=self.text)


class Implicit(Model):
    """What somebody did instead of voting."""

    answer: Answer = Field(description="The answer that they turned from.")
    signal: Literal["regenerate", "rephrase", "stop"] = Field(
        description="They asked for another answer, asked the same in other words, or cut the answer short."
    )

    def event(self) -> events.Implicit:
        return events.Implicit(answer=self.answer.event(), signal=self.signal)


class Withdrawal(Model):
    """Takes the vote that `replaces` names back, and puts nothing in its place."""

    answer: Answer = Field(description="One of the answers that the vote judged.")

    def event(self) -> events.Withdrawal:
        return events.Withdrawal(answer=self.answer.event())


class FeedbackRequest(Model):
    """What somebody thought of an answer or of several: exactly one kind, and what is known beside it."""

    model_config = ConfigDict(
        json_schema_extra={"oneOf": [{"required": [kind], "properties": {kind: {"type": "object"}}} for kind in KINDS]}
    )

    thumb: Thumb | None = Field(default=None, description="The answer is good, or bad.")
    ranking: Ranking | None = Field(default=None, description="Several answers, best first.")
    pairwise: Pairwise | None = Field(default=None, description="One answer is better than another.")
    correction: Correction | None = Field(default=None, description="Another text would have been better.")
    implicit: Implicit | None = Field(default=None, description="Nothing was said, but something was done.")
    withdrawal: Withdrawal | None = Field(default=None, description="An earlier vote is taken back.")
    user: str = Field(default="", max_length=MAX_NAME, description="The person; only a keyed hash of it is kept.")
    idempotency_key: str = Field(
        default="",
        max_length=MAX_ID,
        description="The same key from the same person is the same vote, however often it is sent; without a person, "
        "on the same answers. Another vote under it is refused (409): an edit or a withdrawal needs a key of its own.",
    )
    replaces: Annotated[str, Field(max_length=MAX_ID), AfterValidator(_event_id)] = Field(
        default="", description="`event_id` of the same person's vote that this one replaces."
    )
    conversation_id: str = Field(
        default="", max_length=MAX_NAME, description="The conversation; by default the first answer's completion."
    )
    objective: str = Field(
        default="", max_length=MAX_WORD, description="What it is judged by; by default the operator's first objective."
    )
    reason: str = Field(default="", max_length=MAX_REASON, description="Free text that explains it.")
    reasons: Annotated[Array[Tag], AtMost(MAX_REASONS, "tags")] = Field(
        default=[], description="Why, in tags that the service's configuration names (GET /v1/feedback/options)."
    )
    source: str = Field(
        default="",
        max_length=MAX_WORD,
        description='Where it came from; by default "api". "ai": no person gave it; it weighs as far as it agrees with '
        "people's votes.",
    )
    response_ms: Annotated[Integer, Within(0, MAX_RESPONSE_MS)] = Field(
        default=0, description="Milliseconds between the showing and the vote; 0 if unknown."
    )
    shown: Annotated[Answers, AtMost(MAX_ANSWERS, "answers")] = Field(
        default=[], description="Order in which the answers were shown, if known."
    )

    @model_validator(mode="after")
    def _one_kind(self) -> "FeedbackRequest":
        given = [name for name in KINDS if getattr(self, name) is not None]
        if len(given) != 1:
            raise Mistake(f"expected exactly one of {', '.join(KINDS)}, got {' and '.join(given) or 'none'}")
        if self.withdrawal and not self.replaces:
            message = f"replaces: missing; name the vote to take back by {EVENT_ID}"
            raise Mistake(message, code="missing_parameter", param="replaces")
        return self

    @property
    def kind(self) -> str:
        """ "thumb", "ranking", …"""
        return next(name for name in KINDS if getattr(self, name) is not None)

    def event(self, *, person: str, key_id: str, now_ms: int) -> events.Feedback:
        """The event of the log. `person` is the hash of `user`, `key_id` names the key that it came with."""
        said: Thumb | Ranking | Pairwise | Correction | Implicit | Withdrawal = getattr(self, self.kind)
        event = events.Feedback(
            conversation_id=self.conversation_id,
            person=person,
            kind=said.event(),
            reason=self.reason,
            source=self.source or "api",
            shown=tuple(answer.event() for answer in self.shown),
            response_ms=self.response_ms,
            created_ms=now_ms,
            replaces=self.replaces,
            objective=self.objective,
            reasons=tuple(sorted(set(self.reasons))),
            key_id=key_id,
        )
        return event if self.conversation_id else replace(event, conversation_id=event.answers()[0].completion_id)


def event_id(feedback: events.Feedback, idempotency_key: str) -> str:
    """A UUIDv5, so that a vote sent again is the same event; random without a key.

    It is made of the person's hash (no ":" in it) and the key. People who give no name are told apart by what they vote
    on, so that two who choose the same key do not lose a vote. Raises ApiError if it is the id of the vote which the
    feedback replaces: it would be passed over as the same event.
    """
    key = idempotency_key or secrets.token_hex(16)
    about = "" if feedback.person else " ".join(sorted(f"{a.completion_id}/{a.index}" for a in feedback.answers()))
    made = str(uuid.uuid5(NAMESPACE, f"{feedback.person}:{about}:{key}" if about else f"{feedback.person}:{key}"))
    if made == feedback.replaces:
        message = "idempotency_key: it is the key of the vote that is replaced; send the change under another key"
        raise ApiError(message, param="idempotency_key", code="invalid_value")
    return made
