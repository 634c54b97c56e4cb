"""Clients who do not play along, as long as they are let: silent ones, halves of requests, streams that nobody reads.

What becomes of their own requests is theirs; everybody else must not notice them.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Self
from urllib.parse import urlsplit

import orjson

from tests.faults.clients import PROMPTS

ASK = {"messages": [{"role": "user", "content": PROMPTS[0]}], "max_tokens": 512, "n": 16, "stream": True}
HEAD = "POST /v1/{} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n"
SLOW_S = 0.1
DEAF_S = 45.0


class Hostile:
    """`each` of a kind at once."""

    def __init__(self, url: str, *, each: int, seed: int) -> None:
        address = urlsplit(url)
        assert address.hostname is not None and address.port is not None
        self._host, self._port = address.hostname, address.port
        self._rng = random.Random(f"{seed} hostile")
        self._kinds = [self._silent, self._half, self._slow, self._deaf] * each
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        self._tasks = [asyncio.create_task(self._again_and_again(kind)) for kind in self._kinds]
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _again_and_again(
        self, kind: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
    ) -> None:
        while True:
            with suppress(OSError):
                reader, writer = await asyncio.open_connection(self._host, self._port, limit=1024)
                try:
                    await kind(reader, writer)
                finally:
                    writer.close()
            await asyncio.sleep(self._rng.uniform(0.1, 1.0))

    async def _silent(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async def _half(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = (HEAD.format("feedback", 99) + "{").encode()
        writer.write(request[: self._rng.randint(1, len(request))])
        await reader.read()

    async def _slow(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """A whole request, by a few bytes at a time."""
        request = b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        for at in range(0, len(request), 4):
            writer.write(request[at : at + 4])
            await asyncio.sleep(SLOW_S)
        await reader.read()

    async def _deaf(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """A stream of which a kilobyte is read, and then no more."""
        body = orjson.dumps(ASK)
        writer.write(HEAD.format("chat/completions", len(body)).encode() + body)
        await asyncio.sleep(DEAF_S)
