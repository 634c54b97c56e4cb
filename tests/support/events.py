"""Streams of server-sent events, read as tests need them."""

import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp

from rlhf_online import sse


def events(received: bytes) -> list[dict[str, Any]]:
    """The JSON of every event but `[DONE]`."""
    return _events(sse.EventParser(), received)


async def streamed(response: aiohttp.ClientResponse) -> AsyncIterator[dict[str, Any]]:
    """The same, as it arrives."""
    parser = sse.EventParser()
    async for piece in response.content.iter_any():
        for event in _events(parser, piece):
            yield event


def _events(parser: sse.EventParser, piece: bytes) -> list[dict[str, Any]]:
    return [json.loads(data) for data in parser.feed(piece) if data != sse.DONE]
