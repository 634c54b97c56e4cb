"""HTTP to the engine: what of its answers arrives, in which pieces, and which connections are used again."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from services.chat.access.caller import Caller
from services.chat.access.limits import TooLate, Visit
from services.chat.completions import engine_connections
from services.chat.completions.engine_connections import EngineConnections, Reply
from tests.support.waiting import eventually

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"transfer-encoding: chunked\r\n\r\n"
HELLO = OK + b"content-length: 5\r\n\r\nhello"


class Engine:
    """Answers each request with the next of `answers`; an empty piece of one ends the connection."""

    def __init__(self, *answers: list[bytes]) -> None:
        self.answers = list(answers)
        self.requests: list[bytes] = []
        self.opened = self.left = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.opened += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                size = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
                self.requests.append(head + await reader.readexactly(size))
                for piece in self.answers.pop(0):
                    if not piece:
                        return
                    writer.write(piece)
                    await asyncio.sleep(0.002)  # so that it arrives by itself
        except (asyncio.IncompleteReadError, ConnectionError):
            self.left += 1
        finally:
            writer.close()

    @asynccontextmanager
    async def listening(self, form: str = "http://127.0.0.1:{}") -> AsyncIterator[EngineConnections]:
        server = await asyncio.start_server(self.serve, "127.0.0.1", 0)
        connections = EngineConnections(form.format(server.sockets[0].getsockname()[1]))
        try:
            yield connections
        finally:
            connections.close()
            server.close()


async def taken(connections: EngineConnections) -> list[bytes]:
    """The pieces of an answer, to its end."""
    pieces: list[bytes] = []

    def take(reply: Reply, piece: bytes) -> bool:
        pieces.append(piece)
        return True

    reply = await connections.post("/v1", b"{}", take, None)
    while not reply.complete:
        await reply.changed()
    return pieces


async def test_pieces_are_handed_on_as_they_arrive_however_the_bytes_were_cut() -> None:
    engine = Engine([CHUNKED + b"5\r\nhel", b"lo\r\n1\r\n \r\n5\r\nthe", b"re\r\n0\r\n\r\n"])
    async with engine.listening() as connections:
        assert await taken(connections) == [b"hel", b"lo", b" ", b"the", b"re"]


async def test_connections_are_used_again_and_more_are_opened_for_those_at_once() -> None:
    engine = Engine(*[[HELLO]] * 5)
    async with engine.listening() as connections:
        for _ in range(3):
            assert await taken(connections) == [b"hello"]
        assert engine.opened == 1
        await asyncio.gather(taken(connections), taken(connections))
        assert engine.opened == 2


async def test_a_connection_that_the_engine_may_be_closing_is_not_used_again(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine([HELLO], [HELLO])
    monkeypatch.setattr(engine_connections, "IDLE_S", 0.0)
    async with engine.listening() as connections:
        await taken(connections)
        await taken(connections)
        assert engine.opened == 2


@pytest.mark.parametrize(
    "answer",
    [
        [b""],
        [CHUNKED + b"5\r\nhello\r\n", b""],
        [OK + b"content-length: 9\r\n\r\nhello", b""],
        [b"no answer of HTTP\r\n\r\n"],
    ],
)
async def test_an_answer_that_is_cut_off_or_none_is_an_error(answer: list[bytes]) -> None:
    async with Engine(answer).listening() as connections:
        with pytest.raises(ConnectionError):
            await taken(connections)


@pytest.mark.parametrize("answer", [[HELLO + b"more"], [OK + b"connection: close\r\ncontent-length: 5\r\n\r\nhello"]])
async def test_a_connection_that_is_out_of_step_is_not_used_again(answer: list[bytes]) -> None:
    engine = Engine(answer, [HELLO])
    async with engine.listening() as connections:
        assert await taken(connections) == [b"hello"]
        assert await taken(connections) == [b"hello"]
        assert engine.opened == 2


async def test_an_answer_without_a_length_ends_with_its_connection() -> None:
    async with Engine([OK + b"\r\nhello", b""]).listening() as connections:
        assert await taken(connections) == [b"hello"]


async def test_only_the_last_head_counts() -> None:
    async with Engine([b"HTTP/1.1 102 Processing\r\n\r\n" + HELLO]).listening() as connections:
        assert await taken(connections) == [b"hello"]


async def test_what_refuses_is_read_whole_and_not_taken() -> None:
    refusal = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 2\r\n\r\nno"
    async with Engine([refusal]).listening() as connections:
        reply = await connections.post("/v1", b"{}", lambda reply, piece: pytest.fail("it was taken"), None)
        assert (reply.status, await reply.read()) == (400, b"no")


async def test_what_cannot_be_taken_in_is_told_to_whoever_waits() -> None:
    def take(reply: Reply, piece: bytes) -> bool:
        raise ValueError(piece)

    async with Engine([HELLO]).listening() as connections:
        with pytest.raises(ValueError, match="hello"):
            reply = await connections.post("/v1", b"{}", take, None)
            await reply.changed()


@pytest.mark.parametrize(("ended", "opened"), [(False, 2), (True, 1)])
async def test_closing_stops_the_engine_unless_it_has_ended(ended: bool, opened: int) -> None:
    engine = Engine([CHUNKED + b"5\r\nhello\r\n", b"0\r\n\r\n"], [HELLO])
    async with engine.listening() as connections:
        reply = await connections.post("/v1", b"{}", lambda reply, piece: True, None)
        reply.close(ended=ended)
        await eventually(lambda: reply.complete or engine.left)
        await taken(connections)
        assert engine.opened == opened


async def test_what_takes_longer_than_is_allowed_is_given_up() -> None:
    engine = Engine([CHUNKED])
    visit = Visit(Caller(roles=frozenset()), [], {}, lambda: 0.0, 0.02)
    async with engine.listening() as connections:
        reply = await connections.post("/v1", b"{}", lambda reply, piece: True, visit)
        with pytest.raises(TooLate):
            await reply.read()
        await eventually(lambda: engine.left)


async def test_a_paused_answer_is_read_to_its_end_once_it_is_resumed() -> None:
    engine = Engine([CHUNKED + b"5\r\nhello\r\n", b"5\r\nthere\r\n0\r\n\r\n"])
    pieces: list[bytes] = []

    def take(reply: Reply, piece: bytes) -> bool:
        pieces.append(piece)
        reply.pause()
        return True

    async with engine.listening() as connections:
        reply = await connections.post("/v1", b"{}", take, None)
        while not reply.complete:
            reply.resume()
            await reply.changed()
    assert pieces == [b"hello", b"there"]


async def test_the_last_bytes_of_an_answer_that_is_paused_and_not_wanted_any_more_are_read() -> None:
    engine = Engine([CHUNKED + b"5\r\nhello\r\n", b"0\r\n\r\n"])
    async with engine.listening() as connections:
        reply = await connections.post("/v1", b"{}", lambda reply, piece: reply.pause() or True, None)
        reply.close(ended=True)
        await eventually(lambda: reply.complete)


async def test_after_an_answer_that_was_paused_when_it_had_come_whole_the_next_one_is_read() -> None:
    engine = Engine([CHUNKED + b"5\r\nhello\r\n5\r\nthere\r\n0\r\n\r\n"], [HELLO])
    async with engine.listening() as connections, asyncio.timeout(10):
        reply = await connections.post("/v1", b"{}", lambda reply, piece: reply.pause() or True, None)
        assert reply.complete
        assert await taken(connections) == [b"hello"]
        assert engine.opened == 1


@pytest.mark.parametrize(
    ("form", "line", "header"),
    [
        ("http://127.0.0.1:{}", b"POST /v1 HTTP/1.1", b"host: 127.0.0.1:"),
        ("http://localhost:{}/engines/one/", b"POST /engines/one/v1 HTTP/1.1", b"host: localhost:"),
        ("http://me:p%40ss@127.0.0.1:{}", b"POST /v1 HTTP/1.1", b"authorization: Basic bWU6cEBzcw=="),
    ],
)
async def test_what_an_address_says(form: str, line: bytes, header: bytes) -> None:
    engine = Engine([HELLO])
    async with engine.listening(form) as connections:
        await taken(connections)
    (request,) = engine.requests
    assert request.startswith(line + b"\r\n")
    assert header in request
    assert request.endswith(b"content-length: 2\r\n\r\n{}")


async def test_a_socket_of_this_machine(tmp_path: Path) -> None:
    engine = Engine([HELLO])
    server = await asyncio.start_unix_server(engine.serve, tmp_path / "engine.sock")
    connections = EngineConnections(f"unix:{tmp_path / 'engine.sock'}")
    assert await taken(connections) == [b"hello"]
    connections.close()
    server.close()


def _nobody(port: int, folder: Path) -> list[str]:
    return [f"http://127.0.0.1:{port}", f"unix:{folder / 'nothing.sock'}"]


@pytest.mark.parametrize("which", [0, 1])
async def test_where_nobody_listens(tmp_path: Path, which: int) -> None:
    server = await asyncio.start_server(Engine().serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    with pytest.raises(OSError):
        await taken(EngineConnections(_nobody(port, tmp_path)[which]))
