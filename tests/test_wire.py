"""Events survive the wire, and what is no event is told apart from it."""

from collections.abc import Callable

import pytest

from rlhf_online import events as ev
from rlhf_online import wire
from rlhf_online.errors import UndecodableEvent
from rlhf_online.proto.rlhf.v1 import events_pb2 as pb

REF = ev.AnswerRef(completion_id="chatcmpl-1", index=1)
OTHER = ev.AnswerRef(completion_id="chatcmpl-2", index=0)

COMPLETION = ev.Completion(
    completion_id="chatcmpl-1",
    conversation_id="conversation",
    person="abc",
    messages=(ev.Message(role="user", content="name three metal", other='{"name":"ann"}'),),
    prompt_token_ids=(1, 2, 3),
    answers=(
        ev.Answer(
            index=0,
            text="zinc",
            token_ids=(7, 2),
            logprobs=(-0.5, -0.25),
            spans=(
                ev.VersionSpan(policy_version="policy-000000", first_token=0),
                ev.VersionSpan(policy_version="policy-000001", first_token=1),
            ),
            finish_reason="stop",
            reasoning="hm",
            tool_calls=(ev.ToolCall(id="call-1", name="look_up", arguments="{}"),),
        ),
    ),
    sampling=ev.Sampling(temperature=0.5, max_tokens=16, seed=-3),
    started_ms=1,
    finished_ms=2,
    asked='{"reasoning_effort":"low"}',
    comparison_id="comparison-1",
    slot=1,
)

KINDS = [
    ev.Thumb(answer=REF, up=False),
    ev.Ranking(tiers=((REF,), (OTHER, REF))),
    ev.Pairwise(chosen=REF, rejected=OTHER, tie=True, strength=2),
    ev.Correction(answer=REF, text="tin zinc iron"),
    ev.Pairwise(chosen=REF, rejected=OTHER, unsure=True),
    ev.Implicit(answer=REF, signal="regenerate"),
    ev.Withdrawal(answer=REF),
]


ERASURE = ev.Erasure(conversation_id="conversation", person="abc", erased_ms=3)


def envelopes() -> list[ev.Envelope]:
    feedback = [
        ev.Feedback(
            conversation_id="c", person="p", kind=kind, reason="r", source="page", shown=(OTHER, REF), response_ms=9,
            created_ms=10, replaces="earlier", objective="harmless", comparison_id="comparison-1",
            could_know=True,
            reasons=("unclear", "unsafe"),
            annotation_item="item-1",
            key_id="k1",
        )
        for kind in KINDS
    ]  # fmt: skip
    change = ev.VersionChange(
        version="policy-000002", state="live", previous="policy-000001", reason="", changed_ms=5, by="operator k1"
    )
    every = [COMPLETION, *feedback, change, ERASURE]
    origin = ev.Imported(format="hh-rlhf", file="test.jsonl", row=7, id="r", at_ms=8, other='{"models":["m"]}')
    return [
        ev.Envelope(event_id=f"e{i}", event=event, imported=origin if i % 2 else None) for i, event in enumerate(every)
    ]


@pytest.mark.parametrize("envelope", envelopes(), ids=lambda e: type(getattr(e.event, "kind", e.event)).__name__)
def test_every_event_survives_the_wire(envelope: ev.Envelope) -> None:
    assert wire.decode(wire.encode(envelope)) == envelope


@pytest.mark.parametrize("envelope", envelopes(), ids=lambda e: type(getattr(e.event, "kind", e.event)).__name__)
def test_a_header_is_what_the_whole_envelope_says(envelope: ev.Envelope) -> None:
    assert wire.peek(wire.encode(envelope)) == wire.Header(
        schema_version=1,
        event_id=envelope.event_id,
        kind=type(envelope.event),
        key=envelope.key,
        at_ms=envelope.at_ms,
        traceparent=envelope.traceparent,
        person=envelope.event.person if isinstance(envelope.event, ev.Completion | ev.Feedback) else "",
    )


def test_an_unset_seed_is_none_and_not_zero() -> None:
    sampling = wire.completion_from_proto(pb.Completion()).sampling
    assert sampling.seed is None


@pytest.mark.parametrize("read", [wire.decode, wire.peek])
@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\xff\xff\xff", "not an event envelope"),
        (pb.Envelope(schema_version=9, event_id="x").SerializeToString(), "schema version 9"),
        (pb.Envelope(schema_version=1, event_id="x").SerializeToString(), "without an event"),
    ],
)
def test_what_is_no_event_says_why(read: Callable[[bytes], object], data: bytes, message: str) -> None:
    with pytest.raises(UndecodableEvent, match=message):
        read(data)


def test_feedback_that_says_nothing_is_no_event() -> None:
    data = pb.Envelope(schema_version=1, feedback=pb.Feedback(reason="x")).SerializeToString()
    with pytest.raises(UndecodableEvent, match="feedback without"):
        wire.decode(data)


def test_feedback_names_its_answers_best_first() -> None:
    third = ev.AnswerRef(completion_id="chatcmpl-3")
    ranking = ev.Feedback(conversation_id="c", person="", kind=ev.Ranking(tiers=((third,), (REF, OTHER))))
    assert ranking.answers() == (third, REF, OTHER)
    assert [e.event.answers() for e in envelopes()[1:-1] if isinstance(e.event, ev.Feedback)] == [
        (REF,),
        (REF, OTHER, REF),
        (REF, OTHER),
        (REF,),
        (REF, OTHER),
        (REF,),
        (REF,),
    ]


def test_the_key_is_the_conversation_or_the_version() -> None:
    keys = [envelope.key for envelope in envelopes()]
    assert keys == ["conversation", *["c"] * len(KINDS), "policy-000002", "conversation"]
