"""The HTTP routes: OpenAI's chat API, feedback, versions, rollouts, health, metrics and the page.

Handlers parse, call and format; what they call is shared with gRPC.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, cast

from prometheus_client import CollectorRegistry, generate_latest
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from rlhf_online.config import ChatSettings
from services.chat import openapi, responses
from services.chat.api_error import ApiError, outcome, report
from services.chat.authorization import Authorization
from services.chat.chat_request import parse_chat
from services.chat.exporter import Exporter
from services.chat.feedback_service import FeedbackService
from services.chat.gateway import Gateway
from services.chat.http import ClientDisconnected, EventStream, error_response, json, read_body, until_disconnect
from services.chat.in_flight import Generation
from services.chat.operations import OPERATIONS, Operation
from services.chat.origins import Origins
from services.chat.responses import Health, ModelList, Readiness
from services.chat.rollouts import Rollouts
from services.chat.secrets import Secrets
from services.chat.tracing import TraceHttp
from services.chat.validation import parse_object
from services.chat.versions import VersionList, VersionRow, Versions

ROLLOUT_BODY_BYTES = 64 << 20
CLIENT_CLOSED_REQUEST = 499
Handler = Callable[[Request], Awaitable[Response]]
PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Chat:
    """What the handlers, HTTP and gRPC, are wired to."""

    settings: ChatSettings
    gateway: Gateway
    feedback: FeedbackService
    rollouts: Rollouts
    versions: Versions
    authorization: Authorization
    origins: Origins
    exporter: Exporter
    collector: CollectorRegistry
    secrets: Secrets
    connections: int
    """The most over HTTP, and over gRPC."""


def build(chat: Chat) -> Starlette:
    """The ASGI application: a route for each operation of the table."""
    handlers = Handlers(chat)
    return Starlette(
        routes=[
            Route(
                operation.path,
                _endpoint(operation, getattr(handlers, operation.name), chat),
                methods=[operation.method],
            )
            for operation in OPERATIONS
        ],
        middleware=[Middleware(TraceHttp)],
        exception_handlers={HTTPException: _on_http_error},
    )


def _endpoint(operation: Operation, handler: Handler, chat: Chat) -> Handler:
    """The handler, for those who may call the operation; every error becomes an answer here."""

    async def endpoint(request: Request) -> Response:
        try:
            if operation.method == "POST":
                chat.origins.check(request.headers)
            chat.authorization.check(operation.requires, request.headers.get("authorization"))
            return await handler(request)
        except ClientDisconnected:
            return Response(status_code=CLIENT_CLOSED_REQUEST)
        except Exception as error:
            return error_response(report(error, chat.gateway.metrics.internal_errors))

    return endpoint


class Handlers:
    """Large because it has one method an operation, and there are as many."""

    def __init__(self, chat: Chat) -> None:
        self.chat = chat
        self.gateway = chat.gateway
        self._metrics = chat.gateway.metrics
        self._page = files("services.chat").joinpath("page.html").read_text(encoding="utf-8")

    async def page(self, request: Request) -> Response:
        return HTMLResponse(self._page, headers=PAGE_HEADERS)

    async def complete(self, request: Request) -> Response:
        try:
            values = parse_object(await read_body(request, self.chat.settings.limits.max_body_bytes))
            chat = parse_chat(values, self.chat.settings.limits, self.chat.settings.engine)
            if chat.stream:
                generation = await until_disconnect(request.receive, self.gateway.open(chat))
                return self._stream(generation)
            generation = await until_disconnect(request.receive, self.gateway.complete(chat))
        except ClientDisconnected:
            self._count("aborted")
            raise
        except Exception as error:
            self._count(outcome(error))
            raise
        self._count("ok")
        return json(responses.completion(generation))

    def _stream(self, generation: Generation) -> EventStream:
        ended = "aborted"

        async def events() -> AsyncGenerator[bytes, None]:
            nonlocal ended
            chunks = responses.Chunks(generation)
            try:
                async for arrived in self.gateway.read(generation):
                    yield chunks.events(arrived)
                await self.gateway.settle(generation)
                ended = "ok"
                yield chunks.last()
            except Exception as error:
                ended = outcome(error)
                body: dict[str, Any] = {**report(error, self._metrics.internal_errors).body()}
                if generation.tokens and not generation.settled:  # what the client has seen can be rated
                    await self.gateway.settle(generation)
                    body["rlhf"] = responses.provenance(generation)
                yield responses.server_sent_event(body) + responses.DONE

        def finish() -> None:
            self.gateway.end(generation)
            self._count(ended)

        return EventStream(events(), finish)

    def _count(self, ended: str) -> None:
        self._metrics.requests.labels(outcome=ended).inc()

    async def models(self, request: Request) -> Response:
        models: ModelList = {"object": "list", "data": [responses.model_info(name) for name in self.gateway.models()]}
        return json(models)

    async def model(self, request: Request) -> Response:
        name = request.path_params["model"]
        self.gateway.check_model(name)
        return json(responses.model_info(name))

    async def feedback(self, request: Request) -> Response:
        try:
            values = parse_object(await read_body(request, self.chat.settings.limits.max_body_bytes))
        except ApiError as error:
            self.chat.feedback.count("unknown", outcome(error))
            raise
        except ClientDisconnected:
            self.chat.feedback.count("unknown", "aborted")
            raise
        return json(await self.chat.feedback.accept(values))

    async def list_versions(self, request: Request) -> Response:
        rows = await asyncio.to_thread(self.chat.versions.rows, dict(request.query_params))
        listed: VersionList = {
            "serving": self.gateway.engine.serving,
            "live": self.chat.versions.live(),
            "versions": [cast("VersionRow", row.to_json()) for row in rows],
        }
        return json(listed)

    async def promote(self, request: Request) -> Response:
        return json(await asyncio.to_thread(self.chat.versions.promote, request.path_params["version"]))

    async def rollback(self, request: Request) -> Response:
        body = await read_body(request, self.chat.settings.limits.max_body_bytes)
        return json(await asyncio.to_thread(self.chat.versions.rollback, parse_object(body) if body else {}))

    async def sample(self, request: Request) -> Response:
        ended = "aborted"
        try:
            values = parse_object(await read_body(request, ROLLOUT_BODY_BYTES))
            response = await until_disconnect(request.receive, self.chat.rollouts.sample(values))
            ended = "ok"
        except Exception as error:
            if not isinstance(error, ClientDisconnected):
                ended = outcome(error)
            raise
        finally:
            self._metrics.rollouts.labels(outcome=ended).inc()
        return json(response)

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


def readiness(chat: Chat) -> Readiness:
    """Whether people can be answered and the log takes events, and what is missing."""
    engine, writer = chat.gateway.engine, chat.gateway.writer
    ready = engine.state == "ready"
    return {
        "ready": ready and writer.healthy,
        "state": engine.state,
        "message": "" if ready else str(chat.gateway.not_ready()),
        "log": "ok" if writer.healthy else "the event log did not take the last events: see the service's log",
        "serving": engine.serving,
        "model": engine.model_name,
        "restarts": engine.restarts,
        "secrets": chat.secrets.check(),
    }


async def _on_http_error(request: Request, error: Exception) -> Response:
    """Starlette's own: no such route, wrong method."""
    assert isinstance(error, HTTPException)
    message = f"{error.detail}: {request.method} {request.url.path}"
    code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code)
    refused = ApiError(message, status=error.status_code, code=code)
    return json(refused.body(), refused.status, dict(error.headers or {}))
