"""Votes."""

from starlette.requests import Request
from starlette.responses import Response

from services.chat.access.caller import CALLER
from services.chat.bodies.api_error import ApiError, outcome
from services.chat.bodies.validation import parse_object
from services.chat.transport.chat import Chat
from services.chat.transport.http import ClientDisconnected, json, read_body


class FeedbackHandlers:
    """What people think of answers."""

    def __init__(self, chat: Chat) -> None:
        self.chat = chat

    async def feedback(self, request: Request) -> Response:
        try:
            values = parse_object(await read_body(request, self.chat.settings.limits.max_body_bytes))
        except ApiError as error:
            self.chat.feedback.count("unknown", outcome(error))
            raise
        except ClientDisconnected:
            self.chat.feedback.count("unknown", "aborted")
            raise
        return json(await self.chat.feedback.accept(values, CALLER.get()))
