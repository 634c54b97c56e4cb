"""People who do not play along: requests that never end, answers that nobody reads, connections without end."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

import aiohttp
import grpc
import orjson
import psutil
import pytest

from rlhf_online import process
from rlhf_online.config import grpc as grpc_settings
from rlhf_online.proto.rlhf.v1 import chat_pb2, chat_pb2_grpc, events_pb2
from rlhf_online.versions import open_registry
from rlhf_online.versions.manifest import Manifest
from services.chat.transport import connections
from tests.support import few_files
from tests.support.chat_process import chat_process
from tests.support.chat_service import ASK, Service, running
from tests.support.fake_generation import Same
from tests.support.http2 import most_at_once
from tests.support.waiting import eventually

HEAD = b"POST /v1/feedback HTTP/1.1\r\nHost: localhost\r\n"
BODY = orjson.dumps({"thumb": {"answer": {"completion_id": "a"}, "up": True}})
WHOLE = HEAD + b"Content-Length: %d\r\n\r\n%b" % (len(BODY), BODY)
SHORT_S = 0.2
LONG = Same([(token, "word " * 2000) for token in range(400)])
"""An answer of 4 MB: sixteen of them fit into no socket's buffers."""


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "REQUEST_S", SHORT_S)
    monkeypatch.setattr(connections, "UNREAD_S", SHORT_S)


@pytest.fixture
async def crowded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Service]:
    """A service that may have four connections of a kind."""
    monkeypatch.setattr(process, "connection_budget", lambda open_files, kinds: 4)
    async with running(tmp_path) as service:
        yield service


@asynccontextmanager
async def connected(
    address: str, sent: bytes = b""
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port_of(address))
    writer.write(sent)
    yield reader, writer
    writer.close()
    with suppress(ConnectionError):
        await writer.wait_closed()


def port_of(address: str) -> int:
    return int(address.rpartition(":")[2])


async def closed(service: Service, reason: str) -> float:
    return await service.metric(f'rlhf_chat_connections_closed_total{{reason="{reason}"}}')


# Requests


@pytest.mark.parametrize("sent", [HEAD[:9], HEAD, WHOLE[:-1]], ids=["a word", "half a head", "half a body"])
@pytest.mark.parametrize("before", [b"", WHOLE], ids=["first", "second"])
async def test_a_request_that_never_ends(service: Service, impatient: None, before: bytes, sent: bytes) -> None:
    async with connected(service.url, before) as (reader, writer):
        if before:
            assert b" 200 OK" in await reader.readuntil(b"\r\n\r\n")
            await reader.readuntil(b"}}")
        writer.write(sent)
        said = await reader.read()
    assert said.startswith(b"HTTP/1.1 408 Request Timeout\r\n")
    assert orjson.loads(said.partition(b"\r\n\r\n")[2])["error"]["code"] == "request_timeout"
    assert await closed(service, "request_too_slow") == 1
    assert len(service.sink.feedback) == bool(before)


async def test_a_connection_that_says_nothing(service: Service, impatient: None) -> None:
    async with connected(service.url) as (reader, _):
        assert await reader.read() == b""
    assert await closed(service, "silent") == 1


async def test_a_request_that_is_refused_before_it_has_come_must_end_too(service: Service, impatient: None) -> None:
    async with connected(service.url, HEAD + b"Content-Length: 99999999\r\n\r\nx") as (reader, _):
        assert b" 413 " in await reader.read()
    assert await closed(service, "request_too_slow") == 1


async def test_a_slow_request_that_comes_along_is_taken(
    service: Service, impatient: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "SLOWEST", 1)
    async with connected(service.url, WHOLE[:-1]) as (reader, writer):
        await asyncio.sleep(3 * SHORT_S)
        writer.write(WHOLE[-1:])
        assert b" 200 OK" in await reader.readuntil(b"\r\n\r\n")


async def test_an_answer_that_takes_long_is_waited_for(service: Service, impatient: None) -> None:
    await service.engine.hold()
    asking = asyncio.create_task(service.ask())
    await service.engine.asked.wait()
    await asyncio.sleep(3 * SHORT_S)
    await service.engine.release()
    status, _ = await asking
    assert status == 200


# Answers


async def test_a_stream_that_is_never_read_is_broken_off_and_logged(tmp_path: Path, impatient: None) -> None:
    async with running(tmp_path, limits={"max_concurrent": 1}) as service:
        service.engine.answers = LONG
        body = orjson.dumps({**ASK, "stream": True, "n": 16})
        head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n"
        with socket.create_connection(("127.0.0.1", port_of(service.url))) as client:
            client.sendall(head % len(body) + body)
            await service.engine.aborted.wait()
            await eventually(lambda: service.sink.completions)
            assert await closed(service, "answer_not_read") == 1
        assert service.sink.completions[0].answers[0].finish_reason == "abort"
        assert await service.metric('rlhf_chat_requests_total{outcome="aborted"}') == 1
        service.engine.answers = Same()
        assert (await service.ask())[0] == 200, "its place is free"


async def test_a_grpc_stream_that_is_never_read_is_broken_off_and_logged(tmp_path: Path, impatient: None) -> None:
    async with running(tmp_path, limits={"max_concurrent": 1}) as service:
        service.engine.answers = LONG
        request = chat_pb2.CompleteRequest(messages=[events_pb2.Message(role="user", content="hi")], n=16)
        async with grpc.aio.insecure_channel(service.grpc) as channel:
            stub = chat_pb2_grpc.ChatServiceStub(channel)
            stream = stub.StreamComplete(chat_pb2.StreamCompleteRequest(request=request))
            await stream.initial_metadata()
            await service.engine.aborted.wait()
            await eventually(lambda: service.sink.completions)
            assert service.sink.completions[0].answers[0].finish_reason == "abort"
            service.engine.answers = Same()
            request.n = 1
            assert (await stub.Complete(request)).choices[0].text == "hello there"
            stream.cancel()


# How many


async def test_who_waits_longest_makes_room_for_a_request(crowded: Service) -> None:
    """However many connect and say nothing, or half of what they want."""
    async with AsyncExitStack() as stack:
        idle = [await stack.enter_async_context(connected(crowded.url, HEAD[: number % 2])) for number in range(20)]
        status, _ = await crowded.ask()
        assert status == 200
        assert await asyncio.gather(*[reader.read() for reader, _ in idle[:10]]) == [b""] * 10
        assert await closed(crowded, "no_room") >= 17


async def test_nobody_who_is_being_answered_makes_room(crowded: Service) -> None:
    await crowded.engine.hold()
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        asking = [
            asyncio.create_task(session.post(crowded.url + "/v1/chat/completions", data=orjson.dumps(ASK)).__aenter__())
            for _ in range(4)
        ]
        await eventually(lambda: len(crowded.engine.requests) == 4)
        async with connected(crowded.url, WHOLE) as (reader, _):
            assert await reader.read() == b""
        await crowded.engine.release()
        assert [(await task).status for task in asking] == [200] * 4


async def test_grpc_connections_are_bounded(crowded: Service) -> None:
    assert await most_at_once(crowded.grpc, 8) == 4


async def test_a_grpc_connection_on_which_nothing_is_said_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grpc_settings, "HANDSHAKE_MS", 300)
    async with running(tmp_path) as service, connected(service.grpc) as (reader, _):
        await reader.read()


async def test_a_flood_of_half_requests_takes_no_file_from_the_service(tmp_path: Path) -> None:
    """With few descriptors: log and registry are read and written, people are answered, votes are taken."""
    async with chat_process(tmp_path, module="tests.support.few_files") as service:
        port = port_of(service.url)
        flood = []
        try:
            for _ in range(600):
                client = socket.create_connection(("127.0.0.1", port))
                client.sendall(HEAD)
                flood.append(client)
            assert psutil.Process(service.pid).num_fds() < few_files.OPEN_FILES - 64
            registry = open_registry(service.state.versions)
            version = registry.reserve("policy")
            registry.stage(version)
            registry.publish(Manifest(version=version, tuning="lora"))
            registry.promote(version)
            await eventually(lambda: service.serves(version))
            await service.vote(await service.ask())
        finally:
            for client in flood:
                client.close()
        assert await service.ready() == 200
