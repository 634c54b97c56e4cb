"""A person's own conversations and votes."""

from collections.abc import AsyncGenerator

import orjson
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from services.chat.access.caller import CALLER
from services.chat.transport.chat import Chat
from services.chat.transport.http import json

DOWNLOAD = {"Content-Disposition": 'attachment; filename="conversations.jsonl"', "Cache-Control": "no-store"}


class ConversationHandlers:
    """What is kept of a person, for that person alone."""

    def __init__(self, chat: Chat) -> None:
        self._conversations = chat.conversations

    async def conversations(self, request: Request) -> Response:
        return json(await self._conversations.page(dict(request.query_params), CALLER.get()))

    async def conversation(self, request: Request) -> Response:
        name = request.path_params["conversation_id"]
        return json(await self._conversations.read(name, dict(request.query_params), CALLER.get()))

    async def erase(self, request: Request) -> Response:
        name = request.path_params["conversation_id"]
        return json(await self._conversations.erase(name, dict(request.query_params), CALLER.get()))

    async def export(self, request: Request) -> Response:
        items = await self._conversations.export(dict(request.query_params), CALLER.get())

        async def lines() -> AsyncGenerator[bytes, None]:
            async for item in items:
                yield orjson.dumps(item) + b"\n"

        return StreamingResponse(lines(), headers=DOWNLOAD, media_type="application/x-ndjson")
