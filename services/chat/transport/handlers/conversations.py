"""A person's own conversations and votes."""

from collections.abc import AsyncGenerator

import orjson
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from services.chat.access.caller import CALLER, PersonQuery
from services.chat.bodies.validation import validate
from services.chat.transport.chat import Chat
from services.chat.transport.http import json

DOWNLOAD = {"Content-Disposition": 'attachment; filename="conversations.jsonl"', "Cache-Control": "no-store"}


class ConversationHandlers:
    """What is kept of a person, for that person alone."""

    def __init__(self, chat: Chat) -> None:
        self._conversations = chat.conversations
        self._people = chat.people

    async def conversations(self, request: Request) -> Response:
        return json(await self._conversations.page(dict(request.query_params), CALLER.get()))

    async def conversation(self, request: Request) -> Response:
        name = request.path_params["conversation_id"]
        return json(await self._conversations.read(name, dict(request.query_params), CALLER.get()))

    async def erase(self, request: Request) -> Response:
        name = request.path_params["conversation_id"]
        return json(await self._conversations.erase(name, dict(request.query_params), CALLER.get()))

    async def erase_everything(self, request: Request) -> Response:
        user = validate(PersonQuery, dict(request.query_params)).user
        return json(await self._people.erase(await self._conversations.known(user, CALLER.get())))

    async def erase_person(self, request: Request) -> Response:
        return json(await self._people.erase(request.path_params["person"]))

    async def export(self, request: Request) -> Response:
        items = await self._conversations.export(dict(request.query_params), CALLER.get())

        async def lines() -> AsyncGenerator[bytes, None]:
            async for item in items:
                yield orjson.dumps(item) + b"\n"

        return StreamingResponse(lines(), headers=DOWNLOAD, media_type="application/x-ndjson")
