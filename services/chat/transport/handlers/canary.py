"""The canary: told, promoted, taken back."""

import asyncio

from starlette.requests import Request
from starlette.responses import Response

from services.chat.access.caller import CALLER
from services.chat.transport.chat import Chat
from services.chat.transport.http import json, read_fields


class CanaryHandlers:
    """What the operator sees and ends."""

    def __init__(self, chat: Chat) -> None:
        self._canaries = chat.canaries
        self._max_bytes = chat.settings.limits.max_body_bytes

    async def canary(self, request: Request) -> Response:
        return json(await asyncio.to_thread(self._canaries.state, dict(request.query_params)))

    async def promote_canary(self, request: Request) -> Response:
        values = await read_fields(request, self._max_bytes)
        return json(await asyncio.to_thread(self._canaries.promote, values, CALLER.get().acting))

    async def abort_canary(self, request: Request) -> Response:
        values = await read_fields(request, self._max_bytes)
        return json(await asyncio.to_thread(self._canaries.abort, values, CALLER.get().acting))
