"""The HTTP routes: OpenAI's chat API, feedback, versions, rollouts, health, metrics and the page.

Handlers parse, call and format; what they call is shared with gRPC.
"""

from collections.abc import Mapping, Sequence

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from rlhf_online import tracing
from services.chat.access.caller import CALLER
from services.chat.api.operations import OPERATIONS, Operation
from services.chat.bodies.api_error import ApiError, report
from services.chat.tracing import TraceHttp
from services.chat.transport.chat import Chat
from services.chat.transport.handlers import Handler, handlers
from services.chat.transport.http import error_response, json
from services.chat.transport.presence import ClientDisconnected

CLIENT_CLOSED_REQUEST = 499
OPENAI = ("/v1/chat/completions", "/v1/completions", "/v1/models")


class Paths:
    """Answers what is asked at a whole path, by its method, and leaves all else to `others`, routes with parameters.

    Starlette's routing, and its handling of errors of which nothing is left here, took a seventh of an answer's CPU.
    """

    def __init__(self, paths: Mapping[str, Mapping[str, Handler]], others: ASGIApp) -> None:
        self._paths = paths
        self._others = others

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        methods = self._paths.get(scope["path"], {})
        if (handler := methods.get(scope["method"])) is None:
            await self._others(scope, receive, send)
            return
        response = await handler(Request(scope, receive))
        await response(scope, receive, send)


def build(chat: Chat) -> ASGIApp:
    """The ASGI application: a route for each path of the table."""
    answers = handlers(chat)
    paths: dict[str, dict[str, Handler]] = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method] = _endpoint(operation, answers[operation.name], chat)
    routed = Starlette(
        routes=[Route(path, _by_method(methods), methods=sorted(methods)) for path, methods in paths.items()],
        exception_handlers={HTTPException: _on_http_error},
    )
    whole = {path: methods for path, methods in paths.items() if "{" not in path}
    return _cors(TraceHttp(Paths(whole, routed)), chat.settings.allowed_origins)


def _cors(app: ASGIApp, origins: Sequence[str]) -> ASGIApp:
    """Lets pages of these sites read what the service answers them; nothing here goes by cookies, so none are asked."""
    if not origins:
        return app
    return CORSMiddleware(
        app,
        allow_origins=origins,
        allow_methods=sorted({operation.method for operation in OPERATIONS}),
        allow_headers=["*"],
        expose_headers=["*"],
        allow_credentials=False,
    )


def _by_method(methods: dict[str, Handler]) -> Handler:
    """One route for all methods of a path, so that a wrong method is told all right ones. HEAD is GET."""

    async def endpoint(request: Request) -> Response:
        return await methods["GET" if request.method == "HEAD" else request.method](request)

    return endpoint


def _endpoint(operation: Operation, handler: Handler, chat: Chat) -> Handler:
    """The handler, for those who may call the operation; every error becomes an answer here."""

    async def endpoint(request: Request) -> Response:
        try:
            tracing.opened().name(f"{operation.method} {operation.path}", {"http.route": operation.path})
            if operation.method != "GET":
                _check_origin(request, chat)
            CALLER.set(chat.authorization.admit(operation.requires, request.headers))
            return await handler(request)
        except ClientDisconnected:
            return Response(status_code=CLIENT_CLOSED_REQUEST)
        except Exception as error:
            return error_response(report(error, chat.gateway.metrics.internal_errors, tracing.request_id()))

    return endpoint


def _check_origin(request: Request, chat: Chat) -> None:
    try:
        chat.origins.check(request.headers)
    except ApiError:
        chat.gateway.metrics.requests.labels(outcome="cross_origin").inc()
        raise


async def _on_http_error(request: Request, error: Exception) -> Response:
    """Starlette's own: no such route, wrong method."""
    assert isinstance(error, HTTPException)
    message = f"{error.detail}: {request.method} {request.url.path}"
    if error.status_code == 404 and request.url.path.startswith("/v1/"):
        message = f"there is no {request.url.path} here; what this service does of OpenAI's API: {', '.join(OPENAI)}"
    code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code)
    refused = ApiError(message, status=error.status_code, code=code)
    return json(refused.body(), refused.status, dict(error.headers or {}))
