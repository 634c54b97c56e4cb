"""The HTTP routes: OpenAI's chat API, feedback, versions, rollouts, health, metrics and the page.

Handlers parse, call and format; what they call is shared with gRPC. Routes that change weights or write at low priority
need the operator's credential.
"""

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from rlhf_online.config import ChatSettings
from rlhf_online.errors import RlhfError
from rlhf_online.versions.manifest import Change
from services.chat import replies
from services.chat.chat_request import parse_chat
from services.chat.feedback_service import FeedbackService
from services.chat.gateway import Gateway
from services.chat.http import ClientGone, EventStream, json, read_body, refused, until_gone
from services.chat.inflight import Exchange
from services.chat.refusal import Refusal, refusal
from services.chat.rollouts import Rollouts
from services.chat.tracing import TraceHttp
from services.chat.validation import parse_object
from services.chat.versions import Versions
from services.chat.watch import Watch

ROLLOUT_BODY_BYTES = 64 << 20
CLIENT_CLOSED_REQUEST = 499
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
    watch: Watch
    collector: CollectorRegistry


def build(chat: Chat) -> Starlette:
    """The ASGI application."""
    handlers = Handlers(chat)
    return Starlette(
        routes=[
            Route("/", handlers.page),
            Route("/v1/chat/completions", handlers.complete, methods=["POST"]),
            Route("/v1/models", handlers.models),
            Route("/v1/models/{model:path}", handlers.model),
            Route("/v1/feedback", handlers.feedback, methods=["POST"]),
            Route("/v1/versions", handlers.list_versions),
            Route("/v1/versions/rollback", handlers.rollback, methods=["POST"]),
            Route("/v1/versions/{version}/promote", handlers.promote, methods=["POST"]),
            Route("/v1/rollouts", handlers.sample, methods=["POST"]),
            Route("/healthz", handlers.healthz),
            Route("/readyz", handlers.readyz),
            Route("/metrics", handlers.expose),
        ],
        middleware=[Middleware(TraceHttp)],
        exception_handlers={RlhfError: _on_error, ClientGone: _on_gone, HTTPException: _on_http_error},
    )


class Handlers:
    """One method a route."""

    def __init__(self, chat: Chat) -> None:
        self.chat = chat
        self.gateway = chat.gateway
        self._metrics = chat.gateway.metrics
        self._page = files("services.chat").joinpath("page.html").read_text(encoding="utf-8")

    async def page(self, request: Request) -> Response:
        return HTMLResponse(self._page, headers=PAGE_HEADERS)

    async def complete(self, request: Request) -> Response:
        try:
            body = await read_body(request, self.chat.settings.limits.max_body_bytes)
            settings = self.chat.settings
            chat = parse_chat(parse_object(body), settings.limits, settings.engine.max_model_len)
            if chat.stream:
                exchange = await until_gone(request.receive, self.gateway.open(chat))
                return self._stream(exchange)
            exchange = await until_gone(request.receive, self.gateway.complete(chat))
        except ClientGone:
            self._outcome("aborted")
            raise
        except RlhfError as error:
            self._outcome(refusal(error).outcome)
            raise
        self._outcome("ok")
        return json(replies.whole(exchange))

    def _stream(self, exchange: Exchange) -> EventStream:
        outcome = "aborted"

        async def events() -> AsyncGenerator[bytes, None]:
            nonlocal outcome
            chunks = replies.Chunks(exchange)
            try:
                async for arrived in self.gateway.read(exchange):
                    yield chunks.events(arrived)
                await self.gateway.settle(exchange)
                outcome = "ok"
                yield chunks.last()
            except RlhfError as error:
                outcome = refusal(error).outcome
                body = refusal(error).body()
                if exchange.tokens:  # what the client has seen can be rated
                    await self.gateway.settle(exchange)
                    body["rlhf"] = replies.provenance(exchange)
                yield replies.event(body) + replies.DONE

        def finish() -> None:
            self.gateway.end(exchange)
            self._outcome(outcome)

        return EventStream(events(), finish)

    def _outcome(self, outcome: str) -> None:
        self._metrics.requests.labels(outcome=outcome).inc()

    async def models(self, request: Request) -> Response:
        return json({"object": "list", "data": [_model(name) for name in self.gateway.models()]})

    async def model(self, request: Request) -> Response:
        name = request.path_params["model"]
        if name not in self.gateway.models():
            message = f"The model {name!r} does not exist; there are: {', '.join(self.gateway.models())}"
            raise Refusal(message, status=404, param="model", code="model_not_found")
        return json(_model(name))

    async def feedback(self, request: Request) -> Response:
        try:
            body = await read_body(request, self.chat.settings.limits.max_body_bytes)
            values = parse_object(body)
        except Refusal as error:
            self.chat.feedback.count("unknown", error.outcome)
            raise
        event_id, position = await self.chat.feedback.take(values)
        return json({"event_id": event_id, "position": position})

    async def list_versions(self, request: Request) -> Response:
        kind = request.query_params.get("kind")
        if kind not in (None, "policy", "reward"):
            raise Refusal("kind: expected policy or reward", param="kind")
        listing = await asyncio.to_thread(self.chat.versions.listing, kind)
        return json({"serving": self.gateway.host.serving, **listing})

    async def promote(self, request: Request) -> Response:
        self.chat.versions.authorize(request.headers.get("authorization"))
        return json(_change(await asyncio.to_thread(self.chat.versions.promote, request.path_params["version"])))

    async def rollback(self, request: Request) -> Response:
        self.chat.versions.authorize(request.headers.get("authorization"))
        body = await read_body(request, self.chat.settings.limits.max_body_bytes)
        values = parse_object(body) if body else {}
        return json(_change(await asyncio.to_thread(self.chat.versions.rollback, values)))

    async def sample(self, request: Request) -> Response:
        self.chat.versions.authorize(request.headers.get("authorization"))
        outcome = "aborted"
        try:
            values = parse_object(await read_body(request, ROLLOUT_BODY_BYTES))
            reply = await until_gone(request.receive, self.chat.rollouts.sample(values))
            outcome = "ok"
        except RlhfError as error:
            outcome = refusal(error).outcome
            raise
        finally:
            self._metrics.rollouts.labels(outcome=outcome).inc()
        return json(reply)

    async def healthz(self, request: Request) -> Response:
        return json({"status": "ok"})

    async def readyz(self, request: Request) -> Response:
        values = readiness(self.chat)
        return json(values, 200 if values["ready"] else 503)

    async def expose(self, request: Request) -> Response:
        self.chat.watch.update()
        return Response(generate_latest(self.chat.collector), media_type="text/plain; version=0.0.4; charset=utf-8")


def readiness(chat: Chat) -> dict[str, Any]:
    """Whether people can be answered and the log takes events, and what is missing."""
    host, journal = chat.gateway.host, chat.gateway.journal
    ready = host.state == "ready"
    return {
        "ready": ready and journal.healthy,
        "state": host.state,
        "message": "" if ready else str(chat.gateway.not_ready()),
        "log": "ok" if journal.healthy else "the event log did not take the last events: see the service's log",
        "serving": host.serving,
        "model": host.model_name,
        "restarts": host.restarts,
    }


def _model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "rlhf-online"}


def _change(change: Change) -> dict[str, Any]:
    return {
        "version": change.version,
        "state": change.state,
        "previous": change.previous,
        "reason": change.reason,
    }


async def _on_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RlhfError)
    return refused(refusal(error))


async def _on_gone(request: Request, error: Exception) -> Response:
    return Response(status_code=CLIENT_CLOSED_REQUEST)


async def _on_http_error(request: Request, error: Exception) -> Response:
    """Starlette's own: no such route, wrong method."""
    assert isinstance(error, HTTPException)
    message = f"{error.detail}: {request.method} {request.url.path}"
    return refused(Refusal(message, status=error.status_code, code="not_found" if error.status_code == 404 else None))
