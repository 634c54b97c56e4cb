"""The trace that a request belongs to (W3C Trace Context): taken from its header, logged with the events it leads to.

Whoever traces requests finds the event in Kafka by it; nothing here makes traces of its own.
"""

import re
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any

import grpc
from starlette.types import ASGIApp, Receive, Scope, Send

HEADER = "traceparent"
_VALID = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
_current: ContextVar[str] = ContextVar(HEADER, default="")


def current() -> str:
    """The `traceparent` of the request that is being worked on; "" without one."""
    return _current.get()


def enter(value: str) -> None:
    """A header that breaks the standard's format is as good as none."""
    _current.set(value if _VALID.fullmatch(value) else "")


class TraceHttp:
    """ASGI middleware."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        enter(dict(scope.get("headers", ())).get(HEADER.encode(), b"").decode("latin-1"))
        await self._app(scope, receive, send)


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
