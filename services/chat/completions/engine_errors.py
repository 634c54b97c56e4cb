"""What an error of the engine means: the client's mistake, a request that this engine cannot carry out, or its loss.

vLLM answers 400 to most mistakes, under its own names of fields. Some are found only while it writes, and end the
stream with the same 500 as a dead engine: a JSON schema or a regular expression that it cannot follow is one. So the
engine's health decides between the two. Only a request whose engine is lost is sent again: another try of a request
that the engine cannot carry out costs everybody's time and ends alike.
"""

import re
from typing import Any

import orjson

from rlhf_online.errors import EngineUnavailable
from services.chat.bodies.api_error import ApiError
from services.chat.completions.chat_request import ChatCompletionRequest
from services.chat.completions.engine import Engine
from services.chat.completions.text_request import CompletionRequest

KNOWN = ChatCompletionRequest.model_fields.keys() | CompletionRequest.model_fields.keys() | {"prompts"}
"""Fields under which the engine's refusal can be told."""

NO_ROOM = "max_tokens must be at least 1, got 0."
"""What vLLM says of a prompt that fills the context to the last token."""


async def engine_error(
    engine: Engine, status: int, body: bytes, constraint: str = "", prompt: str = "messages"
) -> ApiError | EngineUnavailable:
    """The error that `body` is, under an HTTP status or one inside a stream.

    `constraint` is the request's field that says what an answer must look like, if one does, and `prompt` that which
    holds the prompt.
    """
    error = _detail(body)
    if status in (400, 413, 422):
        return _refusal(error, constraint, prompt)
    if status in (404, 408, 409, 429, 503):  # between two versions' names, or short of room: passes
        return EngineUnavailable(f"the engine answered {status}; try again")
    if not await engine.client.health():
        return EngineUnavailable(f"the engine failed (HTTP {status}); try again")
    if constraint:
        return ApiError(
            f"{constraint}: the engine cannot write what it asks for; look for a part that never ends, such as a "
            "schema that requires itself, or one that nothing can satisfy",
            param=constraint,
            code="invalid_schema",
        )
    return ApiError(
        "the engine failed on this request and goes on with others; its log says more",
        status=500,
        type="server_error",
        code="request_failed",
    )


def _detail(body: bytes) -> dict[str, Any]:
    try:
        values = orjson.loads(body)
        return values.get("error", values)
    except (orjson.JSONDecodeError, AttributeError):
        return {}


def _refusal(error: dict[str, Any], constraint: str, prompt: str) -> ApiError:
    message = _sentence(str(error.get("message") or "the engine refused the request"))
    if message == NO_ROOM:
        message = "the prompt fills the model's context: there is no room for an answer; shorten it"
        return ApiError(message, param=prompt, code="context_length_exceeded")
    if error.get("param") == "input_tokens":
        return ApiError(message, param=prompt, code="context_length_exceeded")
    param = _clients_field(str(error.get("param") or message), prompt) or constraint or None
    if param in ("response_format", "tools"):
        return ApiError(f"{param}: {message}", param=param, code="invalid_schema")
    return ApiError(message, param=param, code="engine_refused")


def _sentence(message: str) -> str:
    """Without vLLM's own parameter and value at the end; of pydantic's many errors the first."""
    if found := re.search(r"validation errors?:.*?'msg': (['\"])(.*?)\1, '", message, re.DOTALL):
        message = found[2]
    return re.sub(r" \(parameter=.*\)$", "", message, flags=re.DOTALL)


def _clients_field(said: str, prompt: str) -> str:
    """The field that `said`, a parameter or a message of vLLM's, begins with; "" if it begins with none."""
    path = said.removeprefix("body.")
    name = re.split(r"\W", path, maxsplit=1)[0]
    if name.isdecimal():  # pydantic leaves the name of `messages` out of the path of a tool call
        return "messages"
    differ = {"input_tokens": prompt, "prompt": prompt, "Token": prompt}  # "Token id 7 is out of vocabulary"
    if prompt == "messages":
        differ["logprobs"] = "top_logprobs"
    name = differ.get(name, name)
    return name if name in KNOWN else ""
