"""The annotators' queue."""

from starlette.requests import Request
from starlette.responses import Response

from services.chat.access.caller import CALLER
from services.chat.feedback.batch import MAX_BYTES, parse_lines
from services.chat.transport.chat import Chat
from services.chat.transport.http import json, read_body, read_fields


class AnnotationHandlers:
    """What people are asked to judge; what they think of it is feedback."""

    def __init__(self, chat: Chat) -> None:
        self._annotation = chat.annotation
        self._max_body_bytes = chat.settings.limits.max_body_bytes

    async def add_items(self, request: Request) -> Response:
        lines = parse_lines(await read_body(request, MAX_BYTES), self._max_body_bytes)
        return json(await self._annotation.adding.add_all(lines, CALLER.get()))

    async def next_item(self, request: Request) -> Response:
        values = await read_fields(request, self._max_body_bytes)
        return json(await self._annotation.next(values, CALLER.get()))

    async def skip_item(self, request: Request) -> Response:
        values = await read_fields(request, self._max_body_bytes)
        return json(await self._annotation.skip(request.path_params["item_id"], values, CALLER.get()))

    async def take_item_back(self, request: Request) -> Response:
        values = dict(request.query_params)
        return json(await self._annotation.take_back(request.path_params["item_id"], values, CALLER.get()))

    async def annotation_progress(self, request: Request) -> Response:
        return json(await self._annotation.progress(dict(request.query_params), CALLER.get()))

    async def guidelines(self, request: Request) -> Response:
        return json(await self._annotation.guidelines())
