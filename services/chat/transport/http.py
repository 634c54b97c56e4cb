"""HTTP pieces that the routes share: bounded bodies, JSON replies, streams of events."""

from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from typing import Any

import orjson
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from services.chat.bodies.api_error import ApiError
from services.chat.bodies.validation import parse_object
from services.chat.completions.responses import DONE, server_sent_event
from services.chat.transport.presence import ClientDisconnected, until_disconnect

QUIET = b": nothing has changed\n\n"
"""A comment, which clients pass over."""
STREAM_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]


def json(values: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(orjson.dumps(values), status, headers, media_type="application/json")


def error_response(error: ApiError) -> Response:
    return json(error.body(), error.status, error.headers())


async def read_body(request: Request, limit: int) -> bytes:
    """The body, at most `limit` bytes. Raises ClientDisconnected, and ApiError: 413, 415."""
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise ApiError("send the body as it is: a compressed one is not read", status=415, code="unsupported_encoding")
    length = request.headers.get("content-length", "")
    if length.isdigit() and int(length) > limit:
        raise _too_large(limit)
    parts, size = [], 0
    try:
        async for part in request.stream():
            size += len(part)
            if size > limit:
                raise _too_large(limit)
            parts.append(part)
    except ClientDisconnect:
        raise ClientDisconnected from None
    return b"".join(parts)


async def read_fields(request: Request, limit: int) -> dict[str, Any]:
    """What the body's object says; an empty body says nothing, as `{}` does. Raises as `read_body`; ApiError: 400."""
    body = await read_body(request, limit)
    return parse_object(body) if body else {}


def _too_large(limit: int) -> ApiError:
    return ApiError(f"the body is larger than {limit} bytes", status=413, code="body_too_large")


class EventStream(Response):
    """A reply of server-sent events, sent as `events` gives them; `finish` is called at the end, however it ends."""

    def __init__(
        self, events: AsyncGenerator[bytes, None], finish: Callable[[], None], headers: Mapping[str, str] | None = None
    ) -> None:
        self.events = events
        self.finish = finish
        self.raw_headers = [
            *STREAM_HEADERS,
            *((name.encode(), value.encode()) for name, value in (headers or {}).items()),
        ]
        self.background = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await until_disconnect(scope, self._send(send))
        except ClientDisconnected:
            pass
        finally:  # in this order: a generator that was never begun runs none of its own clean-up
            self.finish()
            await self.events.aclose()

    async def _send(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        async for part in self.events:
            if part:
                await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def watch(updates: AsyncGenerator[Any, None]) -> EventStream:
    """Each update as it comes, a comment for None, which says that nothing has changed, and `DONE` at the end."""

    async def events() -> AsyncGenerator[bytes, None]:
        async with aclosing(updates):
            async for update in updates:
                yield server_sent_event(update) if update else QUIET
        yield DONE

    return EventStream(events(), lambda: None)
