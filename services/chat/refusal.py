"""A request that is turned down, in OpenAI's form; and how the project's errors look to a client."""

from typing import Any

from rlhf_online.errors import EngineError, InvalidInput, LogError, RlhfError, UnknownVersion

RETRY_AFTER_S = 5


class Refusal(RlhfError):
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

    @property
    def outcome(self) -> str:
        """For the metric: who is to blame."""
        match self.status:
            case 429:
                return "busy"
            case 503:
                return "unavailable"
            case status if status < 500:
                return "invalid"
            case _:
                return "error"

    def body(self) -> dict[str, Any]:
        """OpenAI's error object."""
        return {"error": {"message": str(self), "type": self.type, "param": self.param, "code": self.code}}

    def headers(self) -> dict[str, str]:
        headers = {}
        if self.retry_after_s is not None:
            headers["Retry-After"] = str(self.retry_after_s)
        if self.status == 401:
            headers["WWW-Authenticate"] = 'Bearer realm="operator"'
        return headers


def unavailable(message: str, code: str = "engine_unavailable") -> Refusal:
    """503: try again in some seconds."""
    return Refusal(message, status=503, type="server_error", code=code, retry_after_s=RETRY_AFTER_S)


def refusal(error: RlhfError) -> Refusal:
    """`error` as a client sees it."""
    match error:
        case Refusal():
            return error
        case UnknownVersion():
            return Refusal(str(error), status=404, code="version_not_found")
        case InvalidInput():
            return Refusal(str(error))
        case EngineError():
            return unavailable(str(error))
        case LogError():
            return unavailable(f"{error}; not acknowledged, send it again", code="log_unavailable")
        case _:
            return Refusal(str(error), status=500, type="server_error", code="internal_error")
