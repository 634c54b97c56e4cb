"""Votes."""

import asyncio
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from services.chat.access.caller import CALLER
from services.chat.bodies.api_error import ApiError, outcome
from services.chat.bodies.validation import parse_object
from services.chat.feedback.batch import MAX_BYTES, accept_all, parse_lines
from services.chat.feedback.own_votes import FeedbackList, item
from services.chat.transport.chat import Chat
from services.chat.transport.http import ClientDisconnected, json, read_body


class FeedbackHandlers:
    """What people think of answers."""

    def __init__(self, chat: Chat) -> None:
        self.chat = chat

    async def feedback(self, request: Request) -> Response:
        return json(await self.chat.feedback.accept(await self._body(request), CALLER.get()))

    async def feedback_batch(self, request: Request) -> Response:
        items = parse_lines(await read_body(request, MAX_BYTES), self.chat.settings.limits.max_body_bytes)
        key = request.headers.get("idempotency-key", "")
        return json(await accept_all(self.chat.feedback, items, CALLER.get(), key))

    async def feedback_options(self, request: Request) -> Response:
        return json(self.chat.feedback.options())

    async def feedback_status(self, request: Request) -> Response:
        event_id, values = request.path_params["event_id"], dict(request.query_params)
        return json(await asyncio.to_thread(self.chat.votes.status, event_id, values, CALLER.get()))

    async def list_feedback(self, request: Request) -> Response:
        found, more = await asyncio.to_thread(self.chat.votes.page, dict(request.query_params), CALLER.get())
        listed: FeedbackList = {"data": [item(recorded) for recorded in found], "has_more": more}
        return json(listed)

    async def edit_feedback(self, request: Request) -> Response:
        event_id, values = request.path_params["event_id"], await self._body(request)
        edit = await asyncio.to_thread(self.chat.votes.edit, event_id, values, CALLER.get())
        return json(await self.chat.feedback.accept(edit, CALLER.get()))

    async def withdraw_feedback(self, request: Request) -> Response:
        event_id, values = request.path_params["event_id"], dict(request.query_params)
        withdrawal = await asyncio.to_thread(self.chat.votes.withdrawal, event_id, values, CALLER.get())
        return json(await self.chat.feedback.accept(withdrawal, CALLER.get()))

    async def _body(self, request: Request) -> dict[str, Any]:
        try:
            return parse_object(await read_body(request, self.chat.settings.limits.max_body_bytes))
        except ApiError as error:
            self.chat.feedback.count("unknown", outcome(error))
            raise
        except ClientDisconnected:
            self.chat.feedback.count("unknown", "aborted")
            raise
