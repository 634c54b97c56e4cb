"""Requests for a server on this machine: at random moments whatever the answers take (open loop), or as fast as it can.

A client must cost little where it shares a core with the engine's stand-in, so this one is a parser in C and not much
else. In the open loop requests are due by a Poisson process, and latencies count from the moment that one was due, not
from when it was sent: what a server holds up delays nobody else's arrival (no coordinated omission).
"""

import asyncio
import random
import statistics
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import httptools

from tests.benches.support.figures import p99
from tests.benches.support.stand_in import STAMP, now_us

TIMEOUT_S = 60.0


@dataclass(slots=True)
class Reply:
    """An answer as it arrived; moments in seconds. `chunks` is how long each streamed word was on its way.

    `failure` says why it is none.
    """

    due_s: float = 0.0
    first_s: float = 0.0
    end_s: float = 0.0
    chunks: list[float] = field(default_factory=list)
    failure: str = ""

    def word(self, stamp_us: int) -> None:
        """A streamed word has arrived."""
        now = now_us()
        self.first_s = self.first_s or now / 1e6
        self.chunks.append((now - stamp_us) / 1e6)


Ask = Callable[[int, Reply], Awaitable[None]]
"""Send the request of this number, and fill in the reply until its end."""


class _Connection(asyncio.Protocol):
    """One request after another."""

    def __init__(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._reply = Reply()
        self._whole = b""
        self._ended: asyncio.Future[None] | None = None
        self.open = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's is no subclass of it

    def connection_lost(self, exc: Exception | None) -> None:
        self.open = False
        if self._ended is not None and not self._ended.done():
            self._reply.failure = f"the connection ended ({exc})"
            self._ended.set_result(None)

    async def ask(self, request: bytes, reply: Reply) -> None:
        self._reply, self._whole = reply, b""
        self._ended = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        await self._ended

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_body(self, body: bytes) -> None:
        stamps = STAMP.findall(body)
        for stamp in stamps:
            self._reply.word(int(stamp))
        self._whole += body if not stamps else b""

    def on_message_complete(self) -> None:
        self._reply.end_s = now_us() / 1e6
        if (status := self._parser.get_status_code()) != 200:
            self._reply.failure = f"{status} {self._whole[:200].decode(errors='replace')}"
        elif b'"error"' in self._whole:
            self._reply.failure = self._whole[:200].decode(errors="replace")
        self._parser = httptools.HttpResponseParser(self)
        assert self._ended is not None
        self._ended.set_result(None)


class HttpClient:
    """Sends `requests` in turn to a port of this machine or a unix socket, over as many connections as are needed."""

    def __init__(self, address: int | Path, requests: Sequence[bytes]) -> None:
        self._address = address
        self._requests = requests
        self._idle: deque[_Connection] = deque()

    async def ask(self, number: int, reply: Reply) -> None:
        connection = await self._connection()
        await connection.ask(self._requests[number % len(self._requests)], reply)
        self._idle.append(connection)

    async def _connection(self) -> _Connection:
        while self._idle:
            if (connection := self._idle.pop()).open:
                return connection
        loop = asyncio.get_running_loop()
        if isinstance(self._address, Path):
            return (await loop.create_unix_connection(_Connection, str(self._address)))[1]
        return (await loop.create_connection(_Connection, "127.0.0.1", self._address))[1]

    async def close(self) -> None:
        while self._idle:
            self._idle.pop().transport.abort()


def post(path: str, body: bytes, headers: dict[str, str]) -> bytes:
    """A request's bytes."""
    lines = [f"POST {path} HTTP/1.1", "host: 127.0.0.1", "content-type: application/json"]
    lines += [*(f"{name}: {value}" for name, value in headers.items()), f"content-length: {len(body)}"]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


async def open_loop(ask: Ask, *, rate: float, seconds: float, seed: int) -> list[Reply]:
    """`rate` requests a second, due at random moments that `seed` fixes."""
    draw = random.Random(seed)
    begin = now_us() / 1e6 + 0.05
    due_s, tasks = begin + draw.expovariate(rate), []
    replies: list[Reply] = []
    while due_s < begin + seconds:
        await asyncio.sleep(due_s - now_us() / 1e6)
        replies.append(Reply(due_s=due_s))
        tasks.append(asyncio.create_task(_ask(ask, len(replies), replies[-1])))
        due_s += draw.expovariate(rate)
    await asyncio.gather(*tasks)
    return replies


async def closed_loop(ask: Ask, *, at_once: int, seconds: float, warm_up_s: float = 1.0) -> tuple[float, list[Reply]]:
    """Replies a second with so many requests always in progress, and the replies, those of the warm-up among them."""
    replies: list[Reply] = []
    begin = now_us() / 1e6

    async def one(number: int) -> None:
        while now_us() / 1e6 < begin + warm_up_s + seconds:
            reply = Reply(due_s=now_us() / 1e6)
            await _ask(ask, number, reply)
            replies.append(reply)

    await asyncio.gather(*(one(number) for number in range(at_once)))
    counted = [reply for reply in replies if warm_up_s <= reply.end_s - begin < warm_up_s + seconds]
    return len(counted) / seconds, replies


async def at_once(ask: Ask, count: int) -> list[Reply]:
    """So many requests, all begun within a second."""
    replies = [Reply(due_s=now_us() / 1e6) for _ in range(count)]
    tasks = []
    for number, reply in enumerate(replies):
        tasks.append(asyncio.create_task(_ask(ask, number, reply)))
        if number % 20 == 0:
            await asyncio.sleep(20 / count)
    await asyncio.gather(*tasks)
    return replies


async def _ask(ask: Ask, number: int, reply: Reply) -> None:
    try:
        async with asyncio.timeout(TIMEOUT_S):
            await ask(number, reply)
    except TimeoutError:
        reply.failure = f"no answer within {TIMEOUT_S:.0f} s"
    except OSError as error:
        reply.failure = str(error)


def failures(replies: Sequence[Reply]) -> list[str]:
    """Why requests failed."""
    return [reply.failure for reply in replies if reply.failure]


def expect_none(replies: Sequence[Reply]) -> None:
    """Raises AssertionError for a request that failed: then the figures say nothing."""
    failed = failures(replies)
    assert not failed, f"{len(failed)} of {len(replies)} requests failed: {failed[0]}"


def latencies_ms(replies: Sequence[Reply]) -> dict[str, float]:
    """p50 and p99 of the whole answer, and of the first word and of each word's way where they were streamed."""
    whole = [1000 * (reply.end_s - reply.due_s) for reply in replies]
    found = {"p50": statistics.median(whole), "p99": p99(whole)}
    if replies[0].chunks:
        first = [1000 * (reply.first_s - reply.due_s) for reply in replies]
        chunks = [1000 * chunk for reply in replies for chunk in reply.chunks]
        found |= {"first_p50": statistics.median(first), "first_p99": p99(first)}
        found |= {"chunk_p50": statistics.median(chunks), "chunk_p99": p99(chunks)}
    return found
