"""The annotators' queue."""

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from services.chat.access.caller import CALLER
from services.chat.bodies.validation import parse_object
from services.chat.feedback.batch import MAX_BYTES, parse_lines
from services.chat.transport.chat import Chat
from services.chat.transport.http import json, read_body


class AnnotationHandlers:
    """What people are asked to judge; what they think of it is feedback."""

    def __init__(self, chat: Chat) -> None:
        self._annotation = chat.annotation
        self._max_body_bytes = chat.settings.limits.max_body_bytes

    async def add_items(self, request: Request) -> Response:
        lines = parse_lines(await read_body(request, MAX_BYTES), self._max_body_bytes)
        return json(await self._annotation.adding.add_all(lines, CALLER.get()))

    async def next_item(self, request: Request) -> Response:
        return json(await self._annotation.next(await self._body(request), CALLER.get()))

    async def skip_item(self, request: Request) -> Response:
        item_id, values = request.path_params["item_id"], await self._body(request)
        return json(await self._annotation.skip(item_id, values, CALLER.get()))

    async def annotation_progress(self, request: Request) -> Response:
        return json(await self._annotation.progress(dict(request.query_params), CALLER.get()))

    async def guidelines(self, request: Request) -> Response:
        return json(await self._annotation.guidelines())

    async def _body(self, request: Request) -> dict[str, Any]:
        """An empty body says nothing, as `{}` does."""
        body = await read_body(request, self._max_body_bytes)
        return parse_object(body) if body else {}
