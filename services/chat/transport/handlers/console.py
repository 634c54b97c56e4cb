"""The console's data."""

from collections.abc import AsyncGenerator
from contextlib import aclosing

from starlette.requests import Request
from starlette.responses import Response

from services.chat.completions.responses import DONE, server_sent_event
from services.chat.transport.chat import Chat
from services.chat.transport.handlers.versions import QUIET
from services.chat.transport.http import EventStream, json


class ConsoleHandlers:
    """What operators see of learning."""

    def __init__(self, chat: Chat) -> None:
        self._console = chat.console

    async def console_overview(self, request: Request) -> Response:
        return json(await self._console.overview())

    async def console_versions(self, request: Request) -> Response:
        return json(await self._console.versions())

    async def console_history(self, request: Request) -> Response:
        return json(await self._console.history(dict(request.query_params)))

    async def watch_console(self, request: Request) -> Response:
        self._console.admit()
        updates = self._console.updates()

        async def events() -> AsyncGenerator[bytes, None]:
            async with aclosing(updates):
                async for update in updates:
                    yield server_sent_event(update) if update else QUIET
            yield DONE

        return EventStream(events(), lambda: None)
