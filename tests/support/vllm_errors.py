"""What vLLM 0.32.0 really answers to requests that it does not carry out, recorded from its server.

Half of them come under HTTP 200, as an event of the stream: `IN_STREAM` as its first event, `AFTER_ROLE` after the
chunk that opens the answer.
"""

from dataclasses import dataclass
from typing import Any, Literal

IN_STREAM, AFTER_ROLE = "in_stream", "after_role"


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """`where` is an HTTP status, or the place in a stream."""

    where: int | Literal["in_stream", "after_role"]
    message: str
    param: str | None = None
    code: int = 400
    type: str = "BadRequestError"

    def body(self) -> dict[str, Any]:
        return {"error": {"message": self.message, "type": self.type, "param": self.param, "code": self.code}}


def _internal(where: int | Literal["in_stream", "after_role"], message: str = "Internal server error") -> Refusal:
    return Refusal(where=where, message=message, code=500, type="InternalServerError")


NO_BASE_CASE = _internal(AFTER_ROLE)
"""response_format with the schema {"$ref": "#"}: found out when no token is allowed."""
DEAD = _internal(500, "EngineCore encountered an issue. See stack trace (above) for the root cause.")
DEAD_IN_STREAM = _internal(IN_STREAM, "EngineCore encountered an issue. See stack trace (above) for the root cause.")
"""Its core has ended; until the server ends too, some tenths of a second later, /health is 503."""
PROMPT_TOO_LONG = Refusal(
    where=400,
    message="This model's maximum context length is 1024 tokens. However, your prompt contains at least 1025 input "
    "tokens, which exceeds this limit even without any output tokens. Please reduce the length of the input prompt. "
    "(parameter=input_tokens, value=1025)",
    param="input_tokens",
)
PROMPT_FILLS_THE_CONTEXT = Refusal(
    where=400, message="max_tokens must be at least 1, got 0. (parameter=max_tokens, value=0)", param="max_tokens"
)
BAD_TOOL_SCHEMA = Refusal(where=IN_STREAM, message="Invalid grammar specification: 'triggers'")
"""A tool whose parameters' schema is none, where it is `strict` or must be called."""
NO_SUCH_DEFINITION = Refusal(where=IN_STREAM, message="Grammar error: Pointer '/$defs/nope' does not exist")
BAD_PATTERN = Refusal(where=IN_STREAM, message="Grammar error: regex parse error:\n    (\n    ^\nerror: unclosed group")
NOTHING_SATISFIES = Refusal(
    where=IN_STREAM, message="Grammar error: Unsatisfiable schema: minimum (5) is greater than maximum (1)"
)
TOO_MANY_LOGPROBS = Refusal(
    where=IN_STREAM,
    message="Requested sample logprobs of 20, which is greater than max allowed: 5 (parameter=logprobs, value=20)",
    param="logprobs",
)
NO_SUCH_STOP_TOKEN = Refusal(
    where=IN_STREAM,
    message="token_id(s) [99999] in stop_token_ids contain out-of-vocab token ids. Vocabulary size: 263 "
    "(parameter=stop_token_ids, value=[99999])",
    param="stop_token_ids",
)
NO_SUCH_BIASED_TOKEN = Refusal(
    where=IN_STREAM,
    message="token_id(s) [99999] in logit_bias contain out-of-vocab token ids. Vocabulary size: 263 "
    "(parameter=logit_bias, value=[99999])",
    param="logit_bias",
)
EMPTY_BAD_WORD = Refusal(where=400, message="bad_words cannot contain an empty string. Got bad_words=['']")
MIN_TOKENS_BEYOND_THE_ROOM = Refusal(
    where=400, message="min_tokens must be less than or equal to max_tokens=524, got 900."
)
NAME_IS_AN_OBJECT = Refusal(
    where=400,
    message="14 validation errors:\n  {'type': 'literal_error', 'loc': 'body.messages.0."
    "ChatCompletionDeveloperMessageParam.role', 'msg': \"Input should be 'developer'\", 'input': 'user', 'ctx': "
    "{'expected': \"'developer'\"}}\n  {'type': 'string_type', 'loc': 'body.messages.0."
    "ChatCompletionDeveloperMessageParam.name', 'msg': 'Input should be a valid string', 'input': '<dict of 1 items>'}",
    param="body.messages.0.ChatCompletionDeveloperMessageParam.role",
    type="Bad Request",
)
CALL_WITHOUT_A_FUNCTION = Refusal(
    where=400,
    message="4 validation errors:\n  {'type': 'missing', 'loc': 'body.0.ChatCompletionMessageFunctionToolCallParam."
    "function', 'msg': 'Field required', 'input': '<dict of 1 items>'}",
    param="body.0.ChatCompletionMessageFunctionToolCallParam.function",
    type="Bad Request",
)
