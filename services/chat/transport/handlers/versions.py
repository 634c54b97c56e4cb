"""Versions of the weights: listed, promoted, left."""

import asyncio
from typing import cast

from starlette.requests import Request
from starlette.responses import Response

from services.chat.access.caller import CALLER
from services.chat.transport.chat import Chat
from services.chat.transport.http import json, read_fields, watch
from services.chat.versions import VersionList, VersionRow


class VersionHandlers:
    """What the operator sees and changes."""

    def __init__(self, chat: Chat) -> None:
        self.chat = chat
        self.gateway = chat.gateway

    async def list_versions(self, request: Request) -> Response:
        rows = await asyncio.to_thread(self.chat.versions.rows, dict(request.query_params))
        listed: VersionList = {
            "serving": self.gateway.engine.serving,
            "live": await asyncio.to_thread(self.chat.versions.live),
            "versions": [cast("VersionRow", row.to_json()) for row in rows],
        }
        return json(listed)

    async def watch_versions(self, request: Request) -> Response:
        self.chat.watch.admit()
        return watch(self.chat.watch.notices())

    async def promote(self, request: Request) -> Response:
        version, by = request.path_params["version"], CALLER.get().acting
        return json(await asyncio.to_thread(self.chat.versions.promote, version, by))

    async def rollback(self, request: Request) -> Response:
        values = await read_fields(request, self.chat.settings.limits.max_body_bytes)
        return json(await asyncio.to_thread(self.chat.versions.rollback, values, CALLER.get().acting))
