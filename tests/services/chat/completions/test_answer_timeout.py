"""An answer may take so long and no longer: the engine stops, and who waits is told why, over both transports.

The engine is held, so that only the end of the time can end a request.
"""

# pyright: reportArgumentType=false, reportAttributeAccessIssue=false
# (the generated stubs are typed for synchronous channels)

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import openai
import orjson
import pytest

from rlhf_online.proto.rlhf.v1 import chat_pb2, chat_pb2_grpc, events_pb2
from tests.support.chat_service import ASK, Service, running
from tests.support.events import events
from tests.support.waiting import eventually

SHORT_S = 0.3
WORDS = "the answer was not there after 0.3 s"
MESSAGES = [events_pb2.Message(role="user", content="hi")]


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[Service]:
    async with running(tmp_path, limits={"answer_timeout_s": SHORT_S}) as service:
        await service.engine.hold()
        yield service


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", ASK),
        ("/v1/chat/completions", {**ASK, "stream": True}),
        ("/v1/completions", {"prompt": "Once"}),
        ("/v1/comparisons", ASK),
    ],
)
async def test_nothing_came_in_time(service: Service, path: str, body: dict[str, Any]) -> None:
    async with service.session.post(service.url + path, data=orjson.dumps(body)) as response:
        assert response.status == 504
        assert response.headers["x-should-retry"] == "false" and "retry-after" not in response.headers
        error = orjson.loads(await response.read())["error"]
    assert WORDS in error["message"] and "chat.limits.answer_timeout_s" in error["message"]
    assert (error["type"], error["param"], error["code"]) == ("server_error", None, "answer_timeout")
    await service.engine.aborted.wait()
    assert not service.sink.envelopes and not service.chat.gateway.flight.generations
    assert await service.metric('rlhf_chat_requests_total{outcome="late"}') == 1


async def test_nothing_came_in_time_over_grpc(service: Service) -> None:
    async with grpc.aio.insecure_channel(service.grpc) as channel:
        with pytest.raises(grpc.aio.AioRpcError, match=WORDS) as caught:
            await chat_pb2_grpc.ChatServiceStub(channel).Complete(chat_pb2.CompleteRequest(messages=MESSAGES))
    assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    assert dict(caught.value.trailing_metadata() or ())["error-code"] == "answer_timeout"
    await service.engine.aborted.wait()


async def test_openais_client_does_not_ask_again(service: Service) -> None:
    async with openai.AsyncOpenAI(base_url=service.url + "/v1", api_key="none", max_retries=2) as client:
        with pytest.raises(openai.InternalServerError, match="answer_timeout"):
            await client.chat.completions.create(model="rlhf-online", messages=[{"role": "user", "content": "hi"}])
    assert len(service.engine.requests) == 1


async def test_an_engine_that_takes_a_request_and_says_nothing(service: Service) -> None:
    """Not even that it will answer."""
    service.engine.silent = True
    assert (await service.ask())[0] == 504


async def test_an_engine_that_does_not_come_back_in_time(service: Service) -> None:
    service.engine.die_after = 1
    asking = asyncio.create_task(service.ask())
    await service.engine.asked.wait()
    service.host.state = "restarting"
    await service.engine.allow(1)
    assert (await asking)[0] == 504


async def test_a_stream_that_has_begun_ends_with_the_error_and_is_logged(tmp_path: Path) -> None:
    async with running(tmp_path, limits={"answer_timeout_s": 5}) as service:
        await service.engine.hold()
        body = orjson.dumps({**ASK, "stream": True})
        asking = asyncio.create_task(service.session.post(service.url + "/v1/chat/completions", data=body))
        async with grpc.aio.insecure_channel(service.grpc) as channel:
            request = chat_pb2.CompleteRequest(messages=MESSAGES)
            call = chat_pb2_grpc.ChatServiceStub(channel).StreamComplete(
                chat_pb2.StreamCompleteRequest(request=request)
            )
            reading = asyncio.create_task(call.read())
            await eventually(lambda: len(service.engine.requests) == 2)
            await service.engine.allow(2)  # a token for each
            first = await reading
            assert isinstance(first, chat_pb2.StreamCompleteResponse) and first.delta == "hello"
            with pytest.raises(grpc.aio.AioRpcError, match=r"the answer was not there after 5 s") as caught:
                await call.read()
        assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
        async with await asking as response:
            said = events(await response.read())
        assert said[-1]["error"]["code"] == "answer_timeout" and said[-1]["rlhf"]["logged"] is True
        logged = [(event.answers[0].text, event.answers[0].finish_reason) for event in service.sink.completions]
        assert logged == [("hello", "abort")] * 2
        vote = {"thumb": {"answer": {"completion_id": said[-1]["rlhf"]["completion_id"]}, "up": False}}
        assert (await service.post("/v1/feedback", vote))[0] == 200


async def test_a_grpc_callers_own_deadline_ends_the_answer_sooner(tmp_path: Path) -> None:
    async with running(tmp_path) as service, grpc.aio.insecure_channel(service.grpc) as channel:
        await service.engine.hold()
        await channel.channel_ready()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            request = chat_pb2.CompleteRequest(messages=MESSAGES)
            await chat_pb2_grpc.ChatServiceStub(channel).Complete(request, timeout=2.0)
        assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
        await service.engine.aborted.wait()
        await eventually(lambda: service.chat.gateway.active == 0)
