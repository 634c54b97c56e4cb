"""Versions of the weights: listed, promoted, left."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import cast

from starlette.requests import Request
from starlette.responses import Response

from services.chat.bodies.validation import parse_object
from services.chat.completions.responses import DONE, server_sent_event
from services.chat.transport.chat import Chat
from services.chat.transport.http import EventStream, json, read_body
from services.chat.versions import VersionList, VersionRow

QUIET = b": nothing has changed\n\n"
"""A comment, which clients pass over."""


class VersionHandlers:
    """What the operator sees and changes."""

    def __init__(self, chat: Chat) -> None:
        self.chat = chat
        self.gateway = chat.gateway

    async def list_versions(self, request: Request) -> Response:
        rows = await asyncio.to_thread(self.chat.versions.rows, dict(request.query_params))
        listed: VersionList = {
            "serving": self.gateway.engine.serving,
            "live": self.chat.versions.live(),
            "versions": [cast("VersionRow", row.to_json()) for row in rows],
        }
        return json(listed)

    async def watch_versions(self, request: Request) -> Response:
        self.chat.watch.admit()
        notices = self.chat.watch.notices()

        async def events() -> AsyncGenerator[bytes, None]:
            async with aclosing(notices):
                async for notice in notices:
                    yield server_sent_event(notice) if notice else QUIET
            yield DONE

        return EventStream(events(), lambda: None)

    async def promote(self, request: Request) -> Response:
        return json(await asyncio.to_thread(self.chat.versions.promote, request.path_params["version"]))

    async def rollback(self, request: Request) -> Response:
        body = await read_body(request, self.chat.settings.limits.max_body_bytes)
        return json(await asyncio.to_thread(self.chat.versions.rollback, parse_object(body) if body else {}))
