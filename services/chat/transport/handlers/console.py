"""The console's data."""

import asyncio

from starlette.requests import Request
from starlette.responses import Response

from services.chat.access.caller import CALLER
from services.chat.console.attribution import Attribution
from services.chat.console.reports import VersionReports
from services.chat.console.search import Search
from services.chat.console.strengths import Strengths
from services.chat.transport.chat import Chat
from services.chat.transport.http import json, watch


class ConsoleHandlers:
    """What operators see of learning."""

    def __init__(self, chat: Chat) -> None:
        self._console = chat.console
        self._search = Search(chat.conversations.store)
        self._strengths = Strengths(chat.console.opinions, chat.versions.registry)
        self._reports = VersionReports(chat.versions.registry, chat.gateway.writer.keys)
        self._attribution = Attribution(chat.votes.history, chat.conversations.store, chat.versions.registry)

    async def console_overview(self, request: Request) -> Response:
        return json(await self._console.overview())

    async def console_versions(self, request: Request) -> Response:
        return json(await self._console.versions())

    async def console_history(self, request: Request) -> Response:
        return json(await self._console.history(dict(request.query_params)))

    async def watch_console(self, request: Request) -> Response:
        self._console.admit()
        return watch(self._console.updates())

    async def version_report(self, request: Request) -> Response:
        version, key_id = request.path_params["version"], CALLER.get().key_id
        return json(await asyncio.to_thread(self._reports.read, version, key_id))

    async def version_strengths(self, request: Request) -> Response:
        return json(await asyncio.to_thread(self._strengths.find))

    async def search_conversations(self, request: Request) -> Response:
        values = dict(request.query_params)
        return json(await asyncio.to_thread(self._search.find, values, CALLER.get().key_id))

    async def trace_completion(self, request: Request) -> Response:
        return json(await asyncio.to_thread(self._attribution.trace, request.path_params["completion_id"]))

    async def version_data(self, request: Request) -> Response:
        return json(await asyncio.to_thread(self._attribution.version, request.path_params["version"]))

    async def person_data(self, request: Request) -> Response:
        return json(await asyncio.to_thread(self._attribution.person, request.path_params["person"]))

    async def console_conversation(self, request: Request) -> Response:
        path, values = request.path_params, dict(request.query_params)
        whose, key_id = (path["person"], path["conversation_id"]), CALLER.get().key_id
        return json(await asyncio.to_thread(self._search.read, *whose, values, key_id))
