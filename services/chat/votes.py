"""Feedback: from the JSON body (or the protobuf twin) to a checked `events.Feedback` and its event id.

The id is a UUIDv5 of the person's hash and the idempotency key, so that a vote sent again is the same event. People who
give no name are told apart by what they vote on, so that two who choose the same key do not lose a vote. Completion
ids are not looked up: a vote may arrive before its answer is in the log, and the join waits for it. Nor is the vote
that an edit or a withdrawal replaces: no old votes are kept here, so who may replace which is checked by the trainer,
where the two meet.
"""

import secrets
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from rlhf_online.events import (
    SIGNALS,
    AnswerRef,
    Correction,
    Feedback,
    FeedbackKind,
    Implicit,
    Pairwise,
    Ranking,
    Thumb,
    Withdrawal,
)
from services.chat import fields
from services.chat.refusal import Refusal

NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "urn:rlhf-online:feedback")
MAX_ANSWERS = 64
MAX_INDEX = 1023
MAX_ID = 256
MAX_USER = 512
MAX_REASON = 8192
MAX_CORRECTION = 65_536
MAX_SOURCE = 64
MAX_OBJECTIVE = 64
MAX_RESPONSE_MS = 2**32 - 1
KINDS = ("thumb", "ranking", "pairwise", "correction", "implicit", "withdrawal")
BESIDE = (
    *("user", "idempotency_key", "replaces", "conversation_id", "objective", "reason", "source"),
    *("response_ms", "shown"),
)
KNOWN = frozenset({*KINDS, *BESIDE})
KIND_FIELDS = {
    "thumb": frozenset({"answer", "up"}),
    "ranking": frozenset({"tiers"}),
    "pairwise": frozenset({"chosen", "rejected", "tie", "strength", "unsure"}),
    "correction": frozenset({"answer", "text"}),
    "implicit": frozenset({"answer", "signal"}),
    "withdrawal": frozenset({"answer"}),
}


def parse_feedback(values: Mapping[str, Any]) -> tuple[Feedback, str, str]:
    """The feedback (person and time still empty), the user's name and the idempotency key. Raises Refusal."""
    fields.refuse_unknown(values, KNOWN)
    given = [name for name in KINDS if values.get(name) is not None]
    if len(given) != 1:
        got = " and ".join(given) or "none"
        raise Refusal(f"expected exactly one of {', '.join(KINDS)}, got {got}", code="invalid_value")
    name = given[0]
    shown = values.get("shown")
    feedback = Feedback(
        conversation_id=fields.text(values, "conversation_id", limit=MAX_USER),
        person="",
        kind=_kind(name, fields.object_(values, name)),
        reason=fields.text(values, "reason", limit=MAX_REASON),
        source=fields.text(values, "source", limit=MAX_SOURCE) or "api",
        shown=() if shown is None else _refs(shown, "shown"),
        response_ms=fields.integer(values, "response_ms", 0, 0, MAX_RESPONSE_MS),
        replaces=fields.text(values, "replaces", limit=MAX_ID),
        objective=fields.text(values, "objective", limit=MAX_OBJECTIVE),
    )
    key = fields.text(values, "idempotency_key", limit=MAX_ID)
    return feedback, fields.text(values, "user", limit=MAX_USER), key


def complete(feedback: Feedback, *, person: str, now_ms: int, objectives: Sequence[str]) -> Feedback:
    """The feedback with person, time, source and conversation (by default the first answer's completion).

    Raises Refusal for what no form of the request may say, see `check`, and for an objective that is none of
    `objectives`.
    """
    check(feedback)
    if feedback.objective and feedback.objective not in objectives:
        message = f"objective: expected one of {', '.join(objectives)}; leave it out for the first"
        raise Refusal(message, param="objective", code="invalid_value")
    return replace(
        feedback,
        person=person,
        created_ms=now_ms,
        source=feedback.source or "api",
        conversation_id=feedback.conversation_id or feedback.answers()[0].completion_id,
    )


def event_id(feedback: Feedback, person: str, idempotency_key: str) -> str:
    """Equal for the same person and key; with an empty `person`, for the same answers and key; random without a key.

    `person` is a hash: no ":" in it. Raises Refusal if the id is that of the vote which the feedback replaces: it would
    be passed over as the same event.
    """
    key = idempotency_key or secrets.token_hex(16)
    about = "" if person else " ".join(sorted(f"{ref.completion_id}/{ref.index}" for ref in feedback.answers()))
    made = str(uuid.uuid5(NAMESPACE, f"{person}:{about}:{key}" if about else f"{person}:{key}"))
    if made == feedback.replaces:
        message = "idempotency_key: it is the key of the vote that is replaced; send the change under another key"
        raise Refusal(message, param="idempotency_key", code="invalid_value")
    return made


def kind_name(feedback: Feedback) -> str:
    return type(feedback.kind).__name__.lower()


def check(feedback: Feedback) -> None:
    """Raises Refusal for too few, too many or repeated answers, an empty correction, a text that is too long, a
    `replaces` that is no event id, a withdrawal without it, a pair that is both a tie and unsure, or a signal that
    nobody knows.
    """
    refs = feedback.answers()
    _check_replaced(feedback)
    match feedback.kind:
        case Ranking(tiers=tiers):
            if len(refs) < 2 or not all(tiers):
                raise Refusal("ranking: expected at least two answers and no empty tier", param="ranking.tiers")
            if len(refs) > MAX_ANSWERS:
                message = f"ranking: {len(refs)} answers, at most {MAX_ANSWERS} are taken"
                raise Refusal(message, param="ranking.tiers")
        case Pairwise(strength=strength) if not 0 <= strength <= 3:
            raise fields.out_of_range("pairwise.strength", strength, 0, 3)
        case Pairwise(tie=True, unsure=True):
            message = "pairwise: tie says that they are about the same, unsure that it is not known: send one of them"
            raise Refusal(message, param="pairwise.unsure", code="invalid_value")
        case Implicit(signal=signal) if signal not in SIGNALS:
            message = f"implicit.signal: expected one of {', '.join(SIGNALS)}"
            raise Refusal(message, param="implicit.signal", code="invalid_value")
        case Correction(text=text) if not text.strip() or len(text) > MAX_CORRECTION:
            message = f"correction.text: expected 1 to {MAX_CORRECTION} characters, not blank"
            raise Refusal(message, param="correction.text")
        case _:
            pass
    if len(set(refs)) != len(refs):
        raise Refusal(f"{kind_name(feedback)}: an answer is named twice", param=kind_name(feedback))
    for ref in (*refs, *feedback.shown):
        if not 0 < len(ref.completion_id) <= MAX_ID or not 0 <= ref.index <= MAX_INDEX:
            message = f"expected a completion id of 1 to {MAX_ID} characters and an index of 0 to {MAX_INDEX}"
            raise Refusal(message, param=kind_name(feedback))
    for name, value, limit in (
        ("reason", feedback.reason, MAX_REASON),
        ("source", feedback.source, MAX_SOURCE),
        ("conversation_id", feedback.conversation_id, MAX_USER),
    ):
        if len(value) > limit:
            raise fields.too_long(name, len(value), limit)
    if len(feedback.shown) > MAX_ANSWERS:
        raise Refusal(f"shown: {len(feedback.shown)} answers, at most {MAX_ANSWERS} are taken", param="shown")


def _check_replaced(feedback: Feedback) -> None:
    expected = "the event_id that the service gave the vote"
    if not feedback.replaces:
        if isinstance(feedback.kind, Withdrawal):
            message = f"replaces: missing; name the vote to take back by {expected}"
            raise Refusal(message, param="replaces", code="missing_parameter")
        return
    try:
        as_given_out = str(uuid.UUID(feedback.replaces)) == feedback.replaces
    except ValueError:
        as_given_out = False
    if not as_given_out:
        message = f"replaces: expected {expected}, a UUID in lower case"
        raise Refusal(message, param="replaces", code="invalid_value")


def _kind(name: str, values: dict[str, Any]) -> FeedbackKind:
    path = f"{name}."
    fields.refuse_unknown(values, KIND_FIELDS[name], path)
    match name:
        case "thumb":
            if values.get("up") is None:
                raise fields.wrong("thumb.up", "a boolean", None)
            return Thumb(answer=_ref(values.get("answer"), "thumb.answer"), up=fields.boolean(values, "up", path=path))
        case "ranking":
            tiers = values.get("tiers")
            if not isinstance(tiers, list):
                raise fields.wrong("ranking.tiers", "an array of arrays of answers", tiers)
            return Ranking(tiers=tuple(_refs(tier, f"ranking.tiers[{i}]") for i, tier in enumerate(tiers)))
        case "pairwise":
            return Pairwise(
                chosen=_ref(values.get("chosen"), "pairwise.chosen"),
                rejected=_ref(values.get("rejected"), "pairwise.rejected"),
                tie=fields.boolean(values, "tie", path=path),
                strength=fields.integer(values, "strength", 0, 0, 3, path),
                unsure=fields.boolean(values, "unsure", path=path),
            )
        case "implicit":
            signal = fields.text(values, "signal", limit=MAX_ID, path=path)
            return Implicit(answer=_ref(values.get("answer"), "implicit.answer"), signal=signal)
        case "withdrawal":
            return Withdrawal(answer=_ref(values.get("answer"), "withdrawal.answer"))
        case _:
            text = fields.text(values, "text", limit=MAX_CORRECTION, path=path)
            return Correction(answer=_ref(values.get("answer"), "correction.answer"), text=text)


def _refs(value: object, path: str) -> tuple[AnswerRef, ...]:
    if not isinstance(value, list):
        raise fields.wrong(path, "an array of answers", value)
    if len(value) > MAX_ANSWERS:
        raise Refusal(f"{path}: {len(value)} answers, at most {MAX_ANSWERS} are taken", param=path)
    return tuple(_ref(item, f"{path}[{i}]") for i, item in enumerate(value))


def _ref(value: object, path: str) -> AnswerRef:
    if not isinstance(value, dict):
        raise fields.wrong(path, 'an object {"completion_id": …, "index": …}', value)
    fields.refuse_unknown(value, frozenset({"completion_id", "index"}), f"{path}.")
    completion_id = fields.text(value, "completion_id", limit=MAX_ID, path=f"{path}.")
    if not completion_id:
        raise Refusal(f"{path}.completion_id: missing", param=f"{path}.completion_id", code="missing_parameter")
    return AnswerRef(completion_id=completion_id, index=fields.integer(value, "index", 0, 0, MAX_INDEX, f"{path}."))
