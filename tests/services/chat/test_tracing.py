"""What a request leads to carries the request's trace, and nobody else's."""

from typing import Any

import grpc
import pytest

from rlhf_online.proto.rlhf.v1 import chat_pb2, chat_pb2_grpc, events_pb2
from tests.support.chat_service import Service

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
CHAT = {"messages": [{"role": "user", "content": "hi"}]}
THUMB = {"thumb": {"answer": {"completion_id": "a"}, "up": True}}


@pytest.mark.parametrize(
    ("path", "body"),
    [("/v1/feedback", THUMB), ("/v1/chat/completions", CHAT), ("/v1/chat/completions", {**CHAT, "stream": True})],
    ids=["vote", "answer", "stream"],
)
async def test_http(service: Service, path: str, body: dict) -> None:
    async with service.session.post(service.url + path, json=body, headers={"traceparent": TRACE}) as reply:
        assert reply.status == 200
        await reply.read()
    await service.post("/v1/feedback", THUMB)
    assert [envelope.traceparent for envelope in service.sink.envelopes] == [TRACE, ""]


async def test_grpc(service: Service) -> None:
    thumb = events_pb2.Feedback(thumb=events_pb2.Thumb(answer=events_pb2.AnswerRef(completion_id="a"), up=True))
    request = chat_pb2.SendFeedbackRequest(feedback=thumb)
    async with grpc.aio.insecure_channel(service.grpc) as channel:
        stub: Any = chat_pb2_grpc.ChatServiceStub(channel)
        await stub.SendFeedback(request, metadata=(("traceparent", TRACE),))
        await stub.SendFeedback(request)
    assert [envelope.traceparent for envelope in service.sink.envelopes] == [TRACE, ""]


@pytest.mark.parametrize(
    "value", ["rubbish", TRACE.upper(), f"{TRACE}-more", "ff" + TRACE[2:], TRACE.replace("4", "\n")]
)
async def test_what_breaks_the_format_is_as_good_as_none(value: str) -> None:
    from services.chat import tracing

    tracing.enter(TRACE)
    assert tracing.current() == TRACE
    tracing.enter(value)
    assert tracing.current() == ""
