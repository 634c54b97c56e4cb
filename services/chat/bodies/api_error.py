"""Errors as a client sees them, in OpenAI's form, over HTTP and gRPC alike."""

import traceback
from pathlib import Path

import structlog
from prometheus_client import Counter
from typing_extensions import TypedDict

from rlhf_online.errors import (
    EngineError,
    InvalidInput,
    LogError,
    ReadModelUnavailable,
    RlhfError,
    StoreUnavailable,
    UnknownVersion,
)
from services.chat.bodies.documented import documented

RETRY_AFTER_S = 5


@documented
class ErrorDetail(TypedDict):
    """What went wrong."""

    message: str
    """What happened, and what to do."""
    type: str
    """ "invalid_request_error", "authentication_error", "permission_error", "conflict_error", "rate_limit_error" or
    "server_error"."""
    param: str | None
    """The field at fault, "messages[0].role"."""
    code: str | None
    """The mistake in a word that programs can rely on."""


@documented
class ErrorBody(TypedDict):
    """An error, as OpenAI's service sends it."""

    error: ErrorDetail
    """The error."""


class ApiError(RlhfError):
    """A request that is not served: HTTP status, and OpenAI's type, param and code."""

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        type: str = "invalid_request_error",
        param: str | None = None,
        code: str | None = None,
        retry_after_s: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.type = type
        self.param = param
        self.code = code
        self.retry_after_s = retry_after_s

    def body(self) -> ErrorBody:
        return {"error": {"message": str(self), "type": self.type, "param": self.param, "code": self.code}}

    def headers(self) -> dict[str, str]:
        headers = {}
        if self.retry_after_s is not None:
            headers["Retry-After"] = str(self.retry_after_s)
        if self.status == 401:
            headers["WWW-Authenticate"] = 'Bearer realm="rlhf-online"'
        return headers


def unavailable(message: str, code: str = "engine_unavailable") -> ApiError:
    """503: try again in some seconds."""
    return ApiError(message, status=503, type="server_error", code=code, retry_after_s=RETRY_AFTER_S)


def nested_too_deeply() -> ApiError:
    """For what orjson reads and does not write: it writes fewer levels."""
    message = "an object of the request is nested too deeply: at most some 250 levels are taken"
    return ApiError(message, code="nested_too_deeply")


def as_api_error(error: Exception) -> ApiError:
    """`error` as a client sees it."""
    match error:
        case ApiError():
            return error
        case UnknownVersion():
            return ApiError(str(error), status=404, code="version_not_found")
        case InvalidInput():
            return ApiError(str(error))
        case EngineError():
            return unavailable(str(error))
        case ReadModelUnavailable():
            return unavailable(str(error), "behind_the_log")
        case StoreUnavailable():
            return unavailable(str(error), "versions_unavailable")
        case LogError():
            return unavailable(f"{error}; not acknowledged, send it again", code="log_unavailable")
        case _:
            message = str(error) if isinstance(error, RlhfError) else "something went wrong in the service"
            return ApiError(message, status=500, type="server_error", code="internal_error")


def outcome(error: Exception) -> str:
    """For the metrics: who is to blame."""
    match as_api_error(error).status:
        case 429:
            return "busy"
        case 503:
            return "unavailable"
        case 504:
            return "late"
        case status if status < 500:
            return "invalid"
        case _:
            return "error"


def report(error: Exception, internal_errors: Counter, name: str) -> ApiError:
    """`error` as a client sees it. One that is no RlhfError is a defect of the service: counted, and logged by `name`.

    The log tells where it arose, and not its message, which may hold text of a conversation.
    """
    if isinstance(error, RlhfError):
        return as_api_error(error)
    internal_errors.inc()
    frames = traceback.extract_tb(error.__traceback__)[-8:]
    places = " → ".join(f"{Path(frame.filename).name}:{frame.lineno}" for frame in frames)
    structlog.get_logger().error("internal error", id=name, error=type(error).__name__, at=places)
    message = f"something went wrong in the service; its log says more under {name}"
    return ApiError(message, status=500, type="server_error", code="internal_error")
