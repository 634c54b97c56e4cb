"""The trace that a request belongs to (W3C Trace Context): taken from its header, logged with the events it leads to.

Whoever traces requests finds the event in Kafka by it; nothing here makes traces of its own. An HTTP answer also names
its request (`x-request-id`, which OpenAI's clients read): a defect is logged under that name.
"""

import re
import secrets
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any

import grpc
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HEADER = "traceparent"
_VALID = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
REQUEST_ID = "x-request-id"
_current: ContextVar[str] = ContextVar(HEADER, default="")
_request: ContextVar[str] = ContextVar(REQUEST_ID, default="")


def current() -> str:
    """The `traceparent` of the request that is being worked on; "" without one."""
    return _current.get()


def request_id() -> str:
    """The name of the request that is being worked on, which its answer tells; a new one outside of HTTP."""
    return _request.get() or _new_request()


def enter(value: str) -> None:
    """A header that breaks the standard's format is as good as none."""
    _current.set(value if _VALID.fullmatch(value) else "")


class TraceHttp:
    """ASGI middleware."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        enter(dict(scope.get("headers", ())).get(HEADER.encode(), b"").decode("latin-1"))
        _request.set(named := _new_request())
        header = (REQUEST_ID.encode(), named.encode())

        async def send_named(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], header]
            await send(message)

        await self._app(scope, receive, send_named)


def _new_request() -> str:
    return f"req_{secrets.token_hex(16)}"


class TraceGrpc(grpc.aio.ServerInterceptor):
    """The same for gRPC's metadata."""

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        found = dict(handler_call_details.invocation_metadata or ()).get(HEADER, "")
        enter(found if isinstance(found, str) else "")
        return await continuation(handler_call_details)
