"""Learning: paused or not, and by what weights."""

import asyncio

from starlette.requests import Request
from starlette.responses import Response

from services.chat.access.caller import CALLER
from services.chat.bodies.validation import parse_object
from services.chat.transport.chat import Chat
from services.chat.transport.http import json, read_body, read_fields


class LearningHandlers:
    """What the operator steers."""

    def __init__(self, chat: Chat) -> None:
        self._learning = chat.learning
        self._max_bytes = chat.settings.limits.max_body_bytes

    async def learning(self, request: Request) -> Response:
        return json(await asyncio.to_thread(self._learning.state))

    async def pause_learning(self, request: Request) -> Response:
        values = await read_fields(request, self._max_bytes)
        return json(await asyncio.to_thread(self._learning.pause, values, CALLER.get().key_id))

    async def resume_learning(self, request: Request) -> Response:
        return json(await asyncio.to_thread(self._learning.resume, CALLER.get().key_id))

    async def set_reward_weights(self, request: Request) -> Response:
        values = parse_object(await read_body(request, self._max_bytes))
        return json(await asyncio.to_thread(self._learning.set_weights, values, CALLER.get().key_id))
