"""What is no HTTP, or too much of it, over raw sockets: an error of OpenAI's form, and the connection's end."""

import asyncio
import re
from contextlib import suppress
from pathlib import Path

import grpc
import orjson
import pytest

from rlhf_online.proto.rlhf.v1 import chat_pb2, chat_pb2_grpc
from services.chat.transport import connections, heads
from services.chat.transport.heads import MAX_HEAD, MAX_HEADERS
from tests.support.chat_service import ASK, Service, running
from tests.support.waiting import eventually

LINE = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
BODY = orjson.dumps(ASK)
LENGTH = b"Content-Length: %d\r\n" % len(BODY)
STREAMED_BODY = orjson.dumps({**ASK, "stream": True})
STREAMED = LINE + b"Content-Length: %d\r\n\r\n" % len(STREAMED_BODY) + STREAMED_BODY
MANY = b"".join(b"X-%d: 1\r\n" % number for number in range(MAX_HEADERS))
CHUNKED = LINE + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n" % (len(BODY), BODY)

REFUSED = {
    "many headers": (LINE + LENGTH + MANY + b"\r\n" + BODY, 431),
    "a large header": (LINE + LENGTH + b"Cookie: " + b"c" * MAX_HEAD + b"\r\n\r\n" + BODY, 431),
    "large headers": (LINE + LENGTH + (b"X-A: " + b"a" * 4000 + b"\r\n") * 9 + b"\r\n" + BODY, 431),
    "a large name": (LINE + b"X" * MAX_HEAD + b": 1\r\n\r\n", 431),
    "a long line": (b"GET /" + b"a" * MAX_HEAD + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", 431),
    "a header without end": (LINE + b"Cookie: " + b"c" * (1 << 20), 431),
    "headers without end": (LINE + (b"X-A: " + b"a" * 1000 + b"\r\n") * 1000, 431),
    "no HTTP": (b"\x16\x03\x01 hello there\r\n\r\n", 400),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    "a length that is none": (LINE + b"Content-Length: many\r\n\r\n", 400),
    "two lengths": (LINE + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd", 400),
    "a length and chunks": (LINE + LENGTH + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    "chunks that are none": (LINE + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n", 400),
}


@pytest.mark.parametrize("name", REFUSED)
async def test_it_is_refused_in_words_and_the_connection_ends(service: Service, name: str) -> None:
    sent, status = REFUSED[name]
    reply = await exchange(service, sent)
    (told,) = statuses(reply)
    assert told == status
    error = orjson.loads(reply.partition(b"\r\n\r\n")[2])["error"]
    assert error["type"] == "invalid_request_error"
    assert error["code"] == {431: "headers_too_large", 400: "invalid_http"}[status]
    assert service.engine.requests == []
    assert (await service.ask())[0] == 200


@pytest.mark.parametrize(
    "extra",
    [b"X-A: " + b"a" * (MAX_HEAD - 1000) + b"\r\n", b"".join(b"X-%d: 1\r\n" % n for n in range(MAX_HEADERS - 3))],
    ids=["large", "many"],
)
async def test_heads_up_to_the_limit_are_taken(service: Service, extra: bytes) -> None:
    reply = await exchange(service, LINE + LENGTH + b"Connection: close\r\n" + extra + b"\r\n" + BODY)
    assert statuses(reply) == [200]


async def test_each_request_of_a_connection_has_its_own_head(service: Service) -> None:
    one = LINE + LENGTH + b"X-A: " + b"a" * (MAX_HEAD // 2) + b"\r\n\r\n" + BODY
    last = LINE + LENGTH + b"Connection: close\r\n\r\n" + BODY
    assert statuses(await exchange(service, one * 3 + last)) == [200] * 4


async def test_a_large_body_is_no_head(service: Service) -> None:
    reply = await exchange(service, LINE + b"Content-Length: 900000\r\nConnection: close\r\n\r\n" + b" " * 900_000)
    assert statuses(reply) == [400]
    assert b"invalid_json" in reply


async def test_trailers_count_as_headers(service: Service) -> None:
    """The answer may have been sent before they end; nothing is kept of them."""
    reply = await exchange(service, CHUNKED + b"0\r\nX-A: " + b"a" * (1 << 20))
    assert set(statuses(reply)) <= {200, 431}
    assert await service.metric('rlhf_chat_connections_closed_total{reason="headers_too_large"}') == 1


async def test_who_goes_on_after_a_refusal_is_dropped(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heads, "LINGER_S", 0.05)
    _, writer = await asyncio.open_connection(*service.url.removeprefix("http://").split(":"))
    with pytest.raises(ConnectionError):
        while True:
            writer.write(LINE + MANY)
            await writer.drain()
            await asyncio.sleep(0.01)
    writer.close()
    assert service.engine.requests == []


async def test_a_slow_but_steady_client_is_served(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "REQUEST_S", 0.1)
    reader, writer = await asyncio.open_connection(*service.url.removeprefix("http://").split(":"))
    body = BODY + b" " * 4000
    writer.write(LINE + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(body))
    for start in range(0, len(body), 400):  # .3 s, thrice as long as a client may say nothing, at 13,000 bytes/s
        writer.write(body[start : start + 400])
        await asyncio.sleep(0.03)
    assert statuses(await reader.read()) == [200]
    writer.close()


async def test_who_leaves_is_noticed_though_more_was_asked(service: Service) -> None:
    """The last of several requests is not the one that is being answered."""
    await service.engine.hold()
    reader, writer = await asyncio.open_connection(*service.url.removeprefix("http://").split(":"))
    writer.write(STREAMED * 3)
    await service.engine.asked.wait()
    await service.engine.allow(1)
    await reader.readuntil(b"hello")
    writer.close()
    await eventually(lambda: service.sink.completions)
    assert [one.answers[0].finish_reason for one in service.sink.completions] == ["abort"]
    assert len(service.engine.requests) == 1


async def test_no_refusal_is_put_into_an_answer(service: Service) -> None:
    await service.engine.hold()
    reader, writer = await asyncio.open_connection(*service.url.removeprefix("http://").split(":"))
    writer.write(STREAMED + STREAMED)
    await service.engine.asked.wait()
    await service.engine.allow(1)
    answer = await reader.readuntil(b"hello")
    writer.write(b"\x16\x03\x01 hello there\r\n\r\n")
    with suppress(ConnectionError):
        answer += await reader.read()
    writer.close()
    assert statuses(answer) == [200]
    await eventually(lambda: service.sink.completions)
    assert service.sink.completions[0].answers[0].finish_reason == "abort"


async def test_large_metadata_is_refused_by_grpc(tmp_path: Path) -> None:
    async with running(tmp_path) as service, grpc.aio.insecure_channel(service.grpc) as channel:
        stub = chat_pb2_grpc.ChatServiceStub(channel)
        for metadata in ((("x-a", "a" * MAX_HEAD),), tuple((f"x-{number}", "a" * 200) for number in range(200))):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await stub.Complete(chat_pb2.CompleteRequest(), metadata=metadata)
            assert refused.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert service.engine.requests == []


async def exchange(service: Service, sent: bytes) -> bytes:
    """All that the service says to that, until it ends the connection."""
    reader, writer = await asyncio.open_connection(*service.url.removeprefix("http://").split(":"))
    writer.write(sent)
    try:
        return await asyncio.wait_for(reader.read(), 60)
    finally:
        writer.close()


def statuses(reply: bytes) -> list[int]:
    return [int(status) for status in re.findall(rb"HTTP/1.1 (\d+)", reply)]
