"""Clients that hold on: gRPC's keepalive pings, and HTTP connections that are kept for the next request."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from rlhf_online.config import ChatSettings
from tests.support.chat_service import running
from tests.support.http2 import ping

ORDINARY_PING_S = 10  # gRPC's guide lets no client ping more often
ORDINARY_IDLE_S = 60  # for which proxies and pools keep a connection


def test_by_default_ordinary_clients_are_served() -> None:
    settings = ChatSettings(state_dir=Path("state"))
    assert settings.grpc.min_ping_interval_s < ORDINARY_PING_S
    assert settings.http_keep_alive_s > ORDINARY_IDLE_S


async def test_a_client_may_ping_as_often_as_the_settings_say(tmp_path: Path) -> None:
    async with running(tmp_path, grpc={"min_ping_interval_s": 0}) as service:
        assert await ping(service.grpc, 20) == ""


async def test_a_client_that_pings_more_often_is_disconnected(tmp_path: Path) -> None:
    async with running(tmp_path, grpc={"min_ping_interval_s": 60}) as service:
        assert await ping(service.grpc, 20) == "too_many_pings"


async def test_an_idle_http_connection_is_kept_as_long_as_the_settings_say(tmp_path: Path) -> None:
    async with (
        running(tmp_path / "short", http_keep_alive_s=1) as short,
        running(tmp_path / "long") as long,
        connection(short.url) as (brief, _),
        connection(long.url) as kept,
    ):
        assert await brief.read() == b"", "the server closes it"
        await get(*kept)


@asynccontextmanager
async def connection(url: str) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection on which a request was made."""
    reader, writer = await asyncio.open_connection(*url.removeprefix("http://").split(":"))
    try:
        await get(reader, writer)
        yield reader, writer
    finally:
        writer.close()


async def get(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200")
    (length,) = re.findall(rb"content-length: (\d+)", head)
    await reader.readexactly(int(length))
