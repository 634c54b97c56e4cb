"""Protobuf ↔ events. Protobuf stops here and in the gRPC handlers: nothing else sees a generated class."""

from dataclasses import dataclass

from google.protobuf.message import DecodeError

from rlhf_online import events as ev
from rlhf_online.errors import UndecodableEvent
from rlhf_online.proto.rlhf.v1 import events_pb2 as pb


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """What the log must know of a record; the fields are those of `events.Envelope`, `kind` its event's class."""

    schema_version: int
    event_id: str
    kind: type[ev.Event]
    key: str
    at_ms: int
    traceparent: str


def encode(envelope: ev.Envelope) -> bytes:
    """The record's bytes, deterministic for equal envelopes."""
    record = pb.Envelope(
        schema_version=envelope.schema_version, event_id=envelope.event_id, traceparent=envelope.traceparent
    )
    match envelope.event:
        case ev.Completion():
            record.completion.CopyFrom(completion_to_proto(envelope.event))
        case ev.Feedback():
            record.feedback.CopyFrom(feedback_to_proto(envelope.event))
        case ev.Erasure() as erasure:
            record.erasure.CopyFrom(
                pb.Erasure(conversation_id=erasure.conversation_id, person=erasure.person, erased_ms=erasure.erased_ms)
            )
        case ev.VersionChange() as change:
            record.version_change.CopyFrom(
                pb.VersionChange(
                    version=change.version,
                    state=change.state,
                    previous=change.previous,
                    reason=change.reason,
                    changed_ms=change.changed_ms,
                    by=change.by,
                )
            )
    return record.SerializeToString(deterministic=True)


def decode(data: bytes) -> ev.Envelope:
    """The envelope in `data`.

    Raises UndecodableEvent for bytes that are no envelope, an unknown schema version, or an envelope without an event.
    """
    record = _parse(data)
    event: ev.Event
    match record.WhichOneof("event"):
        case "completion":
            event = completion_from_proto(record.completion)
        case "feedback":
            event = feedback_from_proto(record.feedback)
        case "erasure":
            event = ev.Erasure(
                conversation_id=record.erasure.conversation_id,
                person=record.erasure.person,
                erased_ms=record.erasure.erased_ms,
            )
        case "version_change":
            change = record.version_change
            event = ev.VersionChange(
                version=change.version,
                state=change.state,
                previous=change.previous,
                reason=change.reason,
                changed_ms=change.changed_ms,
                by=change.by,
            )
        case _:
            raise UndecodableEvent("an envelope without an event")
    return ev.Envelope(
        event_id=record.event_id, event=event, schema_version=record.schema_version, traceparent=record.traceparent
    )


def peek(data: bytes) -> Header:
    """Only the header, in a twentieth of the time of `decode`, which may still refuse what the event holds.

    Raises UndecodableEvent for bytes that are no envelope, an unknown schema version, or an envelope without an event.
    """
    record = _parse(data)
    kind: type[ev.Event]
    match record.WhichOneof("event"):
        case "completion":
            kind, key, at_ms = ev.Completion, record.completion.conversation_id, record.completion.finished_ms
        case "feedback":
            kind, key, at_ms = ev.Feedback, record.feedback.conversation_id, record.feedback.created_ms
        case "erasure":
            kind, key, at_ms = ev.Erasure, record.erasure.conversation_id, record.erasure.erased_ms
        case "version_change":
            kind, key, at_ms = ev.VersionChange, record.version_change.version, record.version_change.changed_ms
        case _:
            raise UndecodableEvent("an envelope without an event")
    return Header(
        schema_version=record.schema_version,
        event_id=record.event_id,
        kind=kind,
        key=key,
        at_ms=at_ms,
        traceparent=record.traceparent,
    )


def _parse(data: bytes) -> pb.Envelope:
    """Raises UndecodableEvent for bytes that are no envelope, and for an unknown schema version."""
    record = pb.Envelope()
    try:
        record.ParseFromString(data)
    except DecodeError as error:
        raise UndecodableEvent(f"not an event envelope: {error}") from error
    if record.schema_version != ev.SCHEMA_VERSION:
        later = record.schema_version > ev.SCHEMA_VERSION
        raise UndecodableEvent(
            f"schema version {record.schema_version}, but this reader knows {ev.SCHEMA_VERSION}: "
            + ("upgrade the reader" if later else "read it with the release that wrote it")
        )
    return record


def completion_to_proto(completion: ev.Completion) -> pb.Completion:
    sampling = completion.sampling
    return pb.Completion(
        completion_id=completion.completion_id,
        conversation_id=completion.conversation_id,
        person=completion.person,
        messages=[pb.Message(role=m.role, content=m.content, other=_json(m.other)) for m in completion.messages],
        prompt_token_ids=completion.prompt_token_ids,
        answers=[_answer_to_proto(answer) for answer in completion.answers],
        sampling=pb.Sampling(
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            top_k=sampling.top_k,
            min_p=sampling.min_p,
            max_tokens=sampling.max_tokens,
            seed=sampling.seed,
            full_support=sampling.full_support,
        ),
        started_ms=completion.started_ms,
        finished_ms=completion.finished_ms,
        asked=_json(completion.asked),
        comparison_id=completion.comparison_id,
        slot=completion.slot,
    )


def _json(text: str) -> pb.Json | None:
    return pb.Json(text=text) if text else None


def _answer_to_proto(answer: ev.Answer) -> pb.Answer:
    return pb.Answer(
        index=answer.index,
        text=answer.text,
        token_ids=answer.token_ids,
        logprobs=answer.logprobs,
        spans=spans_to_proto(answer.spans),
        finish_reason=answer.finish_reason,
        reasoning=answer.reasoning,
        tool_calls=[
            pb.ToolCall(id=c.id, type="function", function=pb.FunctionCall(name=c.name, arguments=c.arguments))
            for c in answer.tool_calls
        ],
    )


def spans_to_proto(spans: tuple[ev.VersionSpan, ...]) -> list[pb.VersionSpan]:
    return [pb.VersionSpan(policy_version=s.policy_version, first_token=s.first_token) for s in spans]


def completion_from_proto(record: pb.Completion) -> ev.Completion:
    sampling = record.sampling
    return ev.Completion(
        completion_id=record.completion_id,
        conversation_id=record.conversation_id,
        person=record.person,
        messages=tuple(ev.Message(role=m.role, content=m.content, other=m.other.text) for m in record.messages),
        prompt_token_ids=tuple(record.prompt_token_ids),
        answers=tuple(map(_answer_from_proto, record.answers)),
        sampling=ev.Sampling(
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            top_k=sampling.top_k,
            min_p=sampling.min_p,
            max_tokens=sampling.max_tokens,
            seed=sampling.seed if sampling.HasField("seed") else None,
            full_support=sampling.full_support,
        ),
        started_ms=record.started_ms,
        finished_ms=record.finished_ms,
        asked=record.asked.text,
        comparison_id=record.comparison_id,
        slot=record.slot,
    )


def _answer_from_proto(record: pb.Answer) -> ev.Answer:
    return ev.Answer(
        index=record.index,
        text=record.text,
        token_ids=tuple(record.token_ids),
        logprobs=tuple(record.logprobs),
        spans=tuple(ev.VersionSpan(policy_version=s.policy_version, first_token=s.first_token) for s in record.spans),
        finish_reason=record.finish_reason,
        reasoning=record.reasoning,
        tool_calls=tuple(
            ev.ToolCall(id=c.id, name=c.function.name, arguments=c.function.arguments) for c in record.tool_calls
        ),
    )


def feedback_to_proto(feedback: ev.Feedback) -> pb.Feedback:
    record = pb.Feedback(
        conversation_id=feedback.conversation_id,
        person=feedback.person,
        reason=feedback.reason,
        source=feedback.source,
        shown=[_ref_to_proto(ref) for ref in feedback.shown],
        response_ms=feedback.response_ms,
        created_ms=feedback.created_ms,
        replaces=feedback.replaces,
        objective=feedback.objective,
        comparison_id=feedback.comparison_id,
        could_know=feedback.could_know or None,
        reasons=feedback.reasons,
        annotation_item=feedback.annotation_item,
    )
    match feedback.kind:
        case ev.Thumb(answer=answer, up=up):
            record.thumb.CopyFrom(pb.Thumb(answer=_ref_to_proto(answer), up=up))
        case ev.Ranking(tiers=tiers):
            record.ranking.CopyFrom(
                pb.Ranking(tiers=[pb.Tier(answers=[_ref_to_proto(ref) for ref in tier]) for tier in tiers])
            )
        case ev.Pairwise() as pair:
            record.pairwise.CopyFrom(
                pb.Pairwise(
                    chosen=_ref_to_proto(pair.chosen),
                    rejected=_ref_to_proto(pair.rejected),
                    tie=pair.tie,
                    strength=pair.strength,
                    unsure=pair.unsure,
                )
            )
        case ev.Correction(answer=answer, text=text):
            record.correction.CopyFrom(pb.Correction(answer=_ref_to_proto(answer), text=text))
        case ev.Implicit(answer=answer, signal=signal):
            record.implicit.CopyFrom(pb.Implicit(answer=_ref_to_proto(answer), signal=signal))
        case ev.Withdrawal(answer=answer):
            record.withdrawal.CopyFrom(pb.Withdrawal(answer=_ref_to_proto(answer)))
    return record


def feedback_from_proto(record: pb.Feedback) -> ev.Feedback:
    """Raises UndecodableEvent if the feedback says nothing (no kind set)."""
    kind: ev.FeedbackKind
    match record.WhichOneof("kind"):
        case "thumb":
            kind = ev.Thumb(answer=_ref_from_proto(record.thumb.answer), up=record.thumb.up)
        case "ranking":
            kind = ev.Ranking(
                tiers=tuple(tuple(_ref_from_proto(r) for r in tier.answers) for tier in record.ranking.tiers)
            )
        case "pairwise":
            kind = ev.Pairwise(
                chosen=_ref_from_proto(record.pairwise.chosen),
                rejected=_ref_from_proto(record.pairwise.rejected),
                tie=record.pairwise.tie,
                strength=record.pairwise.strength,
                unsure=record.pairwise.unsure,
            )
        case "correction":
            kind = ev.Correction(answer=_ref_from_proto(record.correction.answer), text=record.correction.text)
        case "implicit":
            kind = ev.Implicit(answer=_ref_from_proto(record.implicit.answer), signal=record.implicit.signal)
        case "withdrawal":
            kind = ev.Withdrawal(answer=_ref_from_proto(record.withdrawal.answer))
        case _:
            raise UndecodableEvent("feedback without a thumb, ranking, pairwise, correction, implicit or withdrawal")
    return ev.Feedback(
        conversation_id=record.conversation_id,
        person=record.person,
        kind=kind,
        reason=record.reason,
        source=record.source,
        shown=tuple(_ref_from_proto(ref) for ref in record.shown),
        response_ms=record.response_ms,
        created_ms=record.created_ms,
        replaces=record.replaces,
        objective=record.objective,
        comparison_id=record.comparison_id,
        could_know=record.could_know,
        reasons=tuple(record.reasons),
        annotation_item=record.annotation_item,
    )


def _ref_to_proto(ref: ev.AnswerRef) -> pb.AnswerRef:
    return pb.AnswerRef(completion_id=ref.completion_id, index=ref.index)


def _ref_from_proto(record: pb.AnswerRef) -> ev.AnswerRef:
    return ev.AnswerRef(completion_id=record.completion_id, index=record.index)
