"""What a request leads to carries the request's trace and name, and nobody else's; spans reach a receiver."""

from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from rlhf_online import tracing
from rlhf_online.proto.rlhf.v1 import chat_pb2, chat_pb2_grpc, events_pb2
from tests.support.chat_service import Service
from tests.support.otlp import Received, Receiver, receiver

TRACE_ID, SPAN_ID = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
TRACE = f"00-{TRACE_ID}-{SPAN_ID}-01"
UNSAMPLED = f"00-{TRACE_ID}-{SPAN_ID}-00"
CHAT = {"messages": [{"role": "user", "content": "secret words"}], "user": "alice-the-person"}
THUMB = {"thumb": {"answer": {"completion_id": "a"}, "up": True}, "reason": "secret words", "user": "alice-the-person"}


@pytest.fixture
def collector() -> Iterator[Receiver]:
    """Traces of all requests are sent to it."""
    with receiver() as found:
        tracing.configure("chat", found.url)
        yield found
        tracing.close()


def sent(collector: Receiver) -> dict[str, Received]:
    """All spans so far, by name."""
    tracing.close()
    return {span.name: span for span in collector.spans}


@pytest.mark.parametrize(
    ("path", "body"),
    [("/v1/feedback", THUMB), ("/v1/chat/completions", CHAT), ("/v1/chat/completions", {**CHAT, "stream": True})],
    ids=["vote", "answer", "stream"],
)
@pytest.mark.parametrize("trace", [TRACE, UNSAMPLED])
async def test_http(service: Service, path: str, body: dict, trace: str) -> None:
    async with service.session.post(service.url + path, json=body, headers={"traceparent": trace}) as reply:
        assert reply.status == 200
        await reply.read()
    await service.post("/v1/feedback", THUMB)
    assert [envelope.traceparent for envelope in service.sink.envelopes] == [trace, ""]
    if path != "/v1/feedback":
        assert service.engine.headers["traceparent"] == trace


async def vote(stub: Any, *metadata: tuple[str, str]) -> dict[str, Any]:
    """The trailing metadata of the answer."""
    thumb = events_pb2.Feedback(thumb=events_pb2.Thumb(answer=events_pb2.AnswerRef(completion_id="a"), up=True))
    call = stub.SendFeedback(chat_pb2.SendFeedbackRequest(feedback=thumb), metadata=metadata)
    await call
    return dict(await call.trailing_metadata())


async def test_grpc(service: Service) -> None:
    async with grpc.aio.insecure_channel(service.grpc) as channel:
        stub: Any = chat_pb2_grpc.ChatServiceStub(channel)
        await vote(stub, ("traceparent", TRACE))
        await vote(stub)
    assert [envelope.traceparent for envelope in service.sink.envelopes] == [TRACE, ""]


@pytest.mark.parametrize(
    "value", ["rubbish", TRACE.upper(), f"{TRACE}-more", "ff" + TRACE[2:], TRACE.replace("4", "\n")]
)
async def test_what_breaks_the_format_is_as_good_as_none(value: str) -> None:
    tracing.enter(TRACE)
    assert tracing.current() == TRACE
    tracing.enter(value)
    assert tracing.current() == ""


async def test_a_request_keeps_the_name_that_its_caller_gave_it(service: Service) -> None:
    """One that could break a line, or is too long for one, is replaced."""
    for name, kept in (("job-7:a.b_c", True), ("two words", False), ("x" * 129, False), ("ä", False)):
        async with service.session.get(service.url + "/v1/models", headers={"x-request-id": name}) as reply:
            assert (reply.headers["x-request-id"] == name) is kept
    async with grpc.aio.insecure_channel(service.grpc) as channel:
        stub: Any = chat_pb2_grpc.ChatServiceStub(channel)
        assert (await vote(stub, ("x-request-id", "job-7")))["x-request-id"] == "job-7"
        assert (await vote(stub))["x-request-id"].startswith("req_")
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.SendFeedback(chat_pb2.SendFeedbackRequest(), metadata=(("x-request-id", "job-8"),))
        assert dict(refused.value.trailing_metadata())["x-request-id"] == "job-8"


async def test_a_vote_is_a_trace_from_its_click_to_the_log(service: Service, collector: Receiver) -> None:
    async with service.session.post(service.url + "/v1/feedback", json=THUMB, headers={"traceparent": TRACE}) as reply:
        assert reply.status == 200
    spans = sent(collector)
    click, append = spans["POST /v1/feedback"], spans["append"]
    assert (click.trace, click.parent, click.kind, click.service) == (TRACE_ID, SPAN_ID, "server", "rlhf-online-chat")
    assert (append.trace, append.parent, append.kind) == (TRACE_ID, click.span, "producer")
    assert click.began_ns <= append.began_ns <= append.ended_ns <= click.ended_ns
    assert click.attributes["http.response.status_code"] == 200 and not click.failed
    [envelope] = service.sink.envelopes
    assert envelope.traceparent == f"00-{TRACE_ID}-{append.span}-01"
    assert collector.paths == {"/v1/traces"}


@pytest.mark.parametrize("stream", [False, True])
async def test_the_engine_works_below_the_request(service: Service, collector: Receiver, stream: bool) -> None:
    status, *_ = await service.post("/v1/chat/completions", CHAT) if not stream else (200,)
    if stream:
        async with service.session.post(service.url + "/v1/chat/completions", json={**CHAT, "stream": True}) as reply:
            await reply.read()
    assert status == 200
    spans = sent(collector)
    asked, append = spans["POST /v1/chat/completions"], spans["append"]
    [engine] = [span for span in spans.values() if span.kind == "client"]
    assert asked.parent == "" and engine.parent == append.parent == asked.span
    assert service.engine.headers["traceparent"] == f"00-{asked.trace}-{engine.span}-01"
    told = engine.attributes
    assert told["gen_ai.response.model"] == service.host.serving and told["gen_ai.usage.output_tokens"] > 0
    assert told["gen_ai.response.finish_reasons"] == ["stop"]


async def test_a_call_over_grpc_is_a_span_too(service: Service, collector: Receiver) -> None:
    async with grpc.aio.insecure_channel(service.grpc) as channel:
        stub: Any = chat_pb2_grpc.ChatServiceStub(channel)
        await vote(stub, ("traceparent", TRACE))
        with pytest.raises(grpc.aio.AioRpcError):
            await stub.Complete(chat_pb2.CompleteRequest())
    spans = sent(collector)
    click, refused = spans["rlhf.v1.ChatService/SendFeedback"], spans["rlhf.v1.ChatService/Complete"]
    assert (click.trace, click.parent, spans["append"].parent) == (TRACE_ID, SPAN_ID, click.span)
    assert (click.attributes["rpc.response.status_code"], click.failed) == ("OK", False)
    assert (refused.attributes["rpc.response.status_code"], refused.failed) == ("INVALID_ARGUMENT", False)


async def test_no_span_tells_what_was_written_nor_by_whom(service: Service, collector: Receiver) -> None:
    await service.post("/v1/chat/completions", {**CHAT, "conversation_id": "alices-talk"})
    await service.post("/v1/chat/completions", {**CHAT, "n": "secret words"})
    await service.post("/v1/feedback", THUMB)
    service.sink.failing = "future"
    assert (await service.post("/v1/feedback", THUMB))[0] == 503
    sent(collector)
    assert {span.failed for span in collector.spans} == {True, False}
    everything = repr(collector.spans)
    assert not [word for word in ("secret", "alice") if word in everything]


async def test_what_is_looked_at_and_what_is_not_sampled_has_no_span(service: Service, collector: Receiver) -> None:
    for headers in ({}, {"traceparent": TRACE}):
        async with service.session.get(service.url + "/healthz", headers=headers) as reply:
            await reply.read()
    async with service.session.post(
        service.url + "/v1/feedback", json=THUMB, headers={"traceparent": UNSAMPLED}
    ) as reply:
        assert reply.status == 200
    assert sent(collector) == {}


async def test_of_many_requests_a_share_is_traced(service: Service) -> None:
    with receiver() as collector:
        tracing.configure("chat", collector.url, sample=0.0)
        await service.post("/v1/feedback", THUMB)
        assert sent(collector) == {}
    assert [envelope.traceparent for envelope in service.sink.envelopes] == [""]


async def test_a_trace_is_kept_from_its_beginning_on_or_not_at_all(service: Service) -> None:
    with receiver() as collector:
        tracing.configure("chat", collector.url, sample=0.5)
        for _ in range(20):
            await service.post("/v1/feedback", THUMB)
            await service.post("/v1/chat/completions", CHAT)
        sent(collector)
    traces: dict[str, set[str]] = {}
    for span in collector.spans:
        traces.setdefault(span.trace, set()).add(span.name)
    vote = frozenset(("POST /v1/feedback", "append"))
    answer = frozenset(("POST /v1/chat/completions", "chat base", "append"))
    assert 0 < len(traces) < 40
    assert {frozenset(names) for names in traces.values()} <= {vote, answer}


async def test_metrics_may_name_the_trace_that_is_kept(collector: Receiver) -> None:
    tracing.enter(UNSAMPLED)
    assert tracing.sampled_trace_id() is None
    tracing.enter("")
    assert tracing.sampled_trace_id() is None
    with tracing.span("x"):
        found = tracing.sampled_trace_id()
    assert sent(collector)["x"].trace == found
