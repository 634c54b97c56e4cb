"""What is gRPC's own: streams, callers that leave, health, reflection. (What it shares with HTTP: test_transports.)"""

# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false
# (the generated stubs are typed for synchronous channels)

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import grpc
import prometheus_client
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from rlhf_online.events import AnswerRef, Withdrawal
from rlhf_online.proto.rlhf.v1 import admin_pb2, admin_pb2_grpc, chat_pb2, chat_pb2_grpc, events_pb2
from services.chat.bodies.api_error import ApiError
from services.chat.transport.grpc_server import OperationInterceptor
from tests.support.chat_service import Service, running
from tests.support.waiting import eventually

THUMB = events_pb2.Feedback(thumb=events_pb2.Thumb(answer=events_pb2.AnswerRef(completion_id="a"), up=True))


@pytest.fixture
async def channel(service: Service) -> AsyncIterator[grpc.aio.Channel]:
    async with grpc.aio.insecure_channel(service.grpc) as channel:
        yield channel


def ask(**fields: Any) -> chat_pb2.CompleteRequest:
    messages = [events_pb2.Message(role="user", content="hi")]
    return chat_pb2.CompleteRequest(messages=messages, **fields)


async def test_complete(service: Service, channel: grpc.aio.Channel) -> None:
    request = ask(n=2, temperature=0.5, seed=3, user="ann", conversation_id="c")
    reply = await chat_pb2_grpc.ChatServiceStub(channel).Complete(request)
    assert [choice.text for choice in reply.choices] == ["hello there"] * 2
    assert reply.choices[1].finish_reason == "stop"
    assert reply.choices[0].spans[0].policy_version == "policy-000000"
    assert (reply.prompt_tokens, reply.completion_tokens, reply.logged) == (3, 6, True)
    (event,) = service.sink.completions
    assert (event.completion_id, event.conversation_id) == (reply.completion_id, "c")
    assert event.sampling.temperature == 0.5
    assert event.person == service.state.person_hash()("ann")
    assert await service.metric('rlhf_chat_requests_total{outcome="ok"}') == 1


async def test_stream(service: Service, channel: grpc.aio.Channel) -> None:
    call = chat_pb2_grpc.ChatServiceStub(channel).StreamComplete(chat_pb2.StreamCompleteRequest(request=ask()))
    pieces = [piece async for piece in call]
    assert "".join(piece.delta for piece in pieces) == "hello there"
    assert [piece.HasField("final") for piece in pieces] == [False, False, False, True]
    assert [piece.finish_reason for piece in pieces] == ["", "", "stop", ""]
    assert pieces[-1].final.choices[0].text == "hello there"
    assert pieces[-1].final.logged
    assert service.sink.completions[0].completion_id == pieces[0].completion_id


async def test_a_caller_that_leaves_a_stream(service: Service, channel: grpc.aio.Channel) -> None:
    await service.engine.hold()
    call = chat_pb2_grpc.ChatServiceStub(channel).StreamComplete(chat_pb2.StreamCompleteRequest(request=ask()))
    reading = asyncio.create_task(call.read())
    await service.engine.allow(1)
    piece = await reading
    assert isinstance(piece, chat_pb2.StreamCompleteResponse)
    assert piece.delta == "hello"
    call.cancel()
    await eventually(lambda: service.sink.completions)
    assert service.sink.completions[0].answers[0].finish_reason == "abort"


async def test_feedback(service: Service, channel: grpc.aio.Channel) -> None:
    stub = chat_pb2_grpc.ChatServiceStub(channel)
    request = chat_pb2.SendFeedbackRequest(feedback=THUMB, user="ann", idempotency_key="k")
    reply = await stub.SendFeedback(request)
    assert dict(reply.position) == {"local": 1}
    assert (await stub.SendFeedback(request)).event_id == reply.event_id
    http = {"user": "ann", "idempotency_key": "k", "thumb": {"answer": {"completion_id": "a"}, "up": True}}
    assert (await service.post("/v1/feedback", http))[1]["event_id"] == reply.event_id
    assert service.sink.feedback[0].source == "api"
    assert service.sink.feedback[0].conversation_id == "a"


async def test_a_vote_is_changed_and_taken_back(service: Service, channel: grpc.aio.Channel) -> None:
    stub = chat_pb2_grpc.ChatServiceStub(channel)
    answer = events_pb2.AnswerRef(completion_id="a")

    def change(key: str, **fields: object) -> chat_pb2.SendFeedbackRequest:
        return chat_pb2.SendFeedbackRequest(feedback=events_pb2.Feedback(**fields), user="ann", idempotency_key=key)

    first = (await stub.SendFeedback(change("1", thumb=THUMB.thumb))).event_id
    down = events_pb2.Thumb(answer=answer, up=False)
    second = (await stub.SendFeedback(change("2", thumb=down, replaces=first))).event_id
    withdrawal = events_pb2.Withdrawal(answer=answer)
    await stub.SendFeedback(change("3", withdrawal=withdrawal, replaces=second))
    assert [feedback.replaces for feedback in service.sink.feedback] == ["", first, second]
    assert service.sink.feedback[2].kind == Withdrawal(answer=AnswerRef(completion_id="a"))
    for request, words in (
        (change("4", withdrawal=withdrawal), "replaces: missing"),
        (change("4", thumb=down, replaces="first"), "replaces: expected the event_id"),
        (change("1", thumb=down, replaces=first), "another key"),
        (change("5", thumb=down, objective="harmles"), "objective: expected one of helpful"),
    ):
        with pytest.raises(grpc.aio.AioRpcError, match=words) as caught:
            await stub.SendFeedback(request)
        assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert len(service.sink.feedback) == 3


async def test_a_stream_that_cannot_begin(channel: grpc.aio.Channel) -> None:
    request = chat_pb2.StreamCompleteRequest(request=ask(n=99))
    with pytest.raises(grpc.aio.AioRpcError, match="n: expected 1 to 16") as caught:
        async for _ in chat_pb2_grpc.ChatServiceStub(channel).StreamComplete(request):
            pass
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize("call", ["unary_unary", "unary_stream"])
async def test_a_message_that_cannot_be_read_is_the_clients_mistake(channel: grpc.aio.Channel, call: str) -> None:
    method = {"unary_unary": "Complete", "unary_stream": "StreamComplete"}[call]
    with pytest.raises(grpc.aio.AioRpcError, match="the message cannot be read") as caught:
        pieces = getattr(channel, call)(f"/rlhf.v1.ChatService/{method}")(b"\xff")
        await (pieces if call == "unary_unary" else pieces.read())
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize("field", ["response_format", "tool_choice", "tools"])
async def test_json_that_is_none(channel: grpc.aio.Channel, field: str) -> None:
    text = events_pb2.Json(text='{"type": ')
    with pytest.raises(
        grpc.aio.AioRpcError, match=f"{field}: expected JSON as text, got none \\(line 1, column"
    ) as caught:
        await chat_pb2_grpc.ChatServiceStub(channel).Complete(ask(**{field: [text] if field == "tools" else text}))
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT


async def test_not_a_number_is_no_bias(channel: grpc.aio.Channel) -> None:
    with pytest.raises(grpc.aio.AioRpcError, match="logit_bias: expected token ids with numbers from -100 to 100"):
        await chat_pb2_grpc.ChatServiceStub(channel).Complete(ask(logit_bias={5: float("nan")}))


async def test_unavailable(service: Service, channel: grpc.aio.Channel) -> None:
    stub = chat_pb2_grpc.ChatServiceStub(channel)
    service.host.state = "starting"
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.Complete(ask())
    assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
    await stub.SendFeedback(chat_pb2.SendFeedbackRequest(feedback=THUMB))
    service.sink.failing = "raise"
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.SendFeedback(chat_pb2.SendFeedbackRequest(feedback=THUMB))
    assert caught.value.code() == grpc.StatusCode.UNAVAILABLE


async def test_versions_are_listed_with_their_manifests(service: Service, channel: grpc.aio.Channel) -> None:
    first, second = service.version(live=True), service.version()
    service.registry.mark(second, "rejected", reason="worse", gate={"kl": 0.5})
    listed = await admin_pb2_grpc.AdminServiceStub(channel).ListVersions(admin_pb2.ListVersionsRequest())
    assert (listed.serving, dict(listed.live)) == ("policy-000000", {"policy": first})
    assert [(v.manifest.version, v.state) for v in listed.versions] == [(first, "live"), (second, "rejected")]
    assert dict(listed.versions[0].manifest.position) == {"local": 7}
    assert dict(listed.versions[1].gate) == {"kl": 0.5}


async def test_health_follows_readiness(service: Service, channel: grpc.aio.Channel) -> None:
    stub = health_pb2_grpc.HealthStub(channel)
    watch = stub.Watch(health_pb2.HealthCheckRequest(service="rlhf.v1.ChatService"))
    serving, not_serving = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
    async for reply in watch:
        if reply.status == serving:
            break
    service.host.state = "restarting"
    async for reply in watch:
        if reply.status == not_serving:
            break
    admin = await stub.Check(health_pb2.HealthCheckRequest(service="rlhf.v1.AdminService"))
    assert admin.status == serving


async def test_many_calls_at_once_over_one_connection_are_all_answered(tmp_path: Path) -> None:
    """grpc-core refuses what is beyond a bound on streams (UNAVAILABLE), and a thousand that wait (CANCELLED)."""
    async with running(tmp_path, limits={"max_concurrent": 2000}) as service:
        async with grpc.aio.insecure_channel(service.grpc) as channel:
            stub = chat_pb2_grpc.ChatServiceStub(channel)
            answers = await asyncio.gather(*(stub.Complete(ask()) for _ in range(1500)))
    assert len({answer.completion_id for answer in answers}) == 1500


async def test_reflection(channel: grpc.aio.Channel) -> None:
    stub = reflection_pb2_grpc.ServerReflectionStub(channel)
    call = stub.ServerReflectionInfo(iter([reflection_pb2.ServerReflectionRequest(list_services="")]))
    names = [service.name async for reply in call for service in reply.list_services_response.service]
    assert {"rlhf.v1.ChatService", "rlhf.v1.AdminService", "grpc.health.v1.Health"} <= set(names)


async def test_a_method_that_is_not_served(service: Service, channel: grpc.aio.Channel) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await channel.unary_unary("/rlhf.v1.ChatService/Nothing")(b"")
    assert refused.value.code() == grpc.StatusCode.UNIMPLEMENTED
    assert await service.metric("rlhf_chat_grpc_unknown_methods_total") == 1


async def test_a_taken_port_is_an_error(service: Service) -> None:
    from rlhf_online.errors import RlhfError
    from services.chat.service import listen
    from services.chat.transport.grpc_server import GrpcServer

    with pytest.raises(RlhfError, match="in use"):
        await GrpcServer(service.chat).start("127.0.0.1", int(service.grpc.rpartition(":")[2]))
    with pytest.raises(RlhfError, match="in use"):
        listen("127.0.0.1", int(service.url.rpartition(":")[2]))


async def test_a_caller_who_goes_while_it_is_refused_is_no_fault_of_the_services() -> None:
    """grpc.aio then fails to send the refusal, and would log that as an error."""

    class Gone:
        async def abort(self, *said: object) -> None:
            raise grpc.aio.InternalError("nobody is there")

    interceptor = OperationInterceptor(cast(Any, None), prometheus_client.Counter("errors", "e", registry=None))
    with pytest.raises(asyncio.CancelledError):
        await interceptor.refuse(cast(Any, Gone()), ApiError("no"))
