"""The page, health, metrics and the description of the service."""

from importlib.resources import files

from prometheus_client import generate_latest
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from services.chat.api import openapi
from services.chat.completions.responses import Health
from services.chat.transport.chat import Chat, readiness
from services.chat.transport.http import json

PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


class OperationHandlers:
    """What browsers, probes and scrapers ask."""

    def __init__(self, chat: Chat) -> None:
        self.chat = chat
        self._page = files("services.chat.page").joinpath("page.html").read_text(encoding="utf-8")

    async def page(self, request: Request) -> Response:
        return HTMLResponse(self._page, headers=PAGE_HEADERS)

    async def openapi(self, request: Request) -> Response:
        return json(openapi.document())

    async def healthz(self, request: Request) -> Response:
        healthy: Health = {"status": "ok"}
        return json(healthy)

    async def readyz(self, request: Request) -> Response:
        values = readiness(self.chat)
        return json(values, 200 if values["ready"] else 503)

    async def expose(self, request: Request) -> Response:
        self.chat.exporter.update()
        return Response(generate_latest(self.chat.collector), media_type="text/plain; version=0.0.4; charset=utf-8")
