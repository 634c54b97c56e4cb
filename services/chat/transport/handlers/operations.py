"""The page, health, metrics and the description of the service."""

import asyncio

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from rlhf_online.metrics import exposition
from services.chat.access.caller import CALLER
from services.chat.api import openapi, reference
from services.chat.bodies.api_error import ApiError
from services.chat.completions.responses import Health
from services.chat.page import assets
from services.chat.transport.chat import Chat, readiness
from services.chat.transport.http import json

CLASSIC = "text/plain; version=0.0.4; charset=utf-8"


class OperationHandlers:
    """What browsers, probes and scrapers ask."""

    def __init__(self, chat: Chat) -> None:
        self.chat = chat
        self._pages = assets.read(chat.settings.reasons)

    async def page(self, request: Request) -> Response:
        return HTMLResponse(self._pages.html["page.html"], headers=assets.PAGE_HEADERS)

    async def annotate(self, request: Request) -> Response:
        return HTMLResponse(self._pages.html["annotate/annotate.html"], headers=assets.PAGE_HEADERS)

    async def console(self, request: Request) -> Response:
        return HTMLResponse(self._pages.html["console/console.html"], headers=assets.PAGE_HEADERS)

    async def caller(self, request: Request) -> Response:
        return json(CALLER.get().told())

    async def page_asset(self, request: Request) -> Response:
        name = request.path_params["name"]
        content = self._pages.assets.get(name) if request.path_params["digest"] == self._pages.digest else None
        if content is None:
            raise ApiError(f"the page has no such file: {request.url.path}", status=404, code="not_found")
        return Response(content, media_type=assets.media_type(name), headers=assets.ASSET_HEADERS)

    async def openapi(self, request: Request) -> Response:
        return json(openapi.document())

    async def reference(self, request: Request) -> Response:
        return HTMLResponse(reference.page(), headers=reference.HEADERS)

    async def healthz(self, request: Request) -> Response:
        healthy: Health = {"status": "ok"}
        return json(healthy)

    async def readyz(self, request: Request) -> Response:
        values = readiness(self.chat)
        return json(values, 200 if values["ready"] else 503)

    async def expose(self, request: Request) -> Response:
        self.chat.exporter.update()
        accept = request.headers.get("accept", "")
        content, content_type = await asyncio.to_thread(exposition, self.chat.collector, accept)
        return Response(content, headers={"content-type": content_type})

    async def expose_engine(self, request: Request) -> Response:
        """Raises EngineError: none that answers."""
        content = await self.chat.gateway.engine.client.metrics()
        return Response(content, headers={"content-type": CLASSIC})
