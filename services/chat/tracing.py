"""A request's trace (W3C Trace Context) and its name, `x-request-id`, over HTTP: taken from its headers, or made here.

Its answer names it (OpenAI's clients read that), each log line of it does, and the events that it leads to carry the
trace. A span is made of what asks for work: not of what is only looked at, as probes and scrapes do every second.
"""

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rlhf_online import tracing

_HEADERS = (tracing.HEADER.encode(), tracing.REQUEST_ID.encode())
LOOKING = ("GET", "HEAD", "OPTIONS")


class TraceHttp:
    """ASGI middleware."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = dict(scope.get("headers", ()))
        tracing.enter(*(headers.get(name, b"").decode("latin-1") for name in _HEADERS))
        header = (_HEADERS[1], tracing.request_id().encode())
        status = 0

        async def send_named(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], header]
            await send(message)

        method = scope.get("method", "")
        if method in LOOKING:
            await self._app(scope, receive, send_named)
            return
        with tracing.within(tracing.start(method, kind="server")) as span:
            await self._app(scope, receive, send_named)
            if span.recorded:
                span.note({"http.request.method": method, "http.response.status_code": status})
                if status >= 500:
                    span.fail(str(status))
