"""A chat request: from OpenAI's JSON to what goes to the engine and what goes into the log.

Fields are OpenAI's and a few of vLLM's. Every sampling parameter is sent explicitly, so that no default of a model's
generation_config.json truncates the distribution behind the log's back. What OpenAI's service takes but has no meaning
here is accepted and ignored; anything else is refused by name.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rlhf_online.config import LimitSettings
from rlhf_online.events import Message, Sampling
from services.chat import fields
from services.chat.refusal import Refusal

PUBLIC_MODEL = "rlhf-online"
MAX_NAME = 512
MAX_STOPS = 16
MAX_LIST = 1024
TEMPERATURE_FLOOR = 0.01  # below it vLLM samples at this temperature instead: the logged one would be wrong
INT64 = 2**63

ROLES = frozenset({"system", "developer", "user", "assistant", "tool", "function"})
IGNORED = frozenset(
    {
        *("metadata", "service_tier", "prompt_cache_key", "verbosity", "modalities", "reasoning_effort"),
        *("prompt_cache_retention", "prediction", "audio"),
    }
)
PASSED = frozenset(
    {
        *("frequency_penalty", "presence_penalty", "repetition_penalty", "logit_bias", "response_format", "stop"),
        *("tools", "tool_choice", "parallel_tool_calls", "min_tokens", "ignore_eos", "stop_token_ids", "bad_words"),
    }
)
READ = frozenset(
    {
        *("messages", "model", "n", "max_tokens", "max_completion_tokens", "temperature", "top_p", "top_k", "min_p"),
        *("seed", "stream", "stream_options", "logprobs", "top_logprobs", "return_token_ids", "user"),
        *("safety_identifier", "conversation_id", "store"),
    }
)
KNOWN = IGNORED | PASSED | READ


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatRequest:
    """A checked request. `upstream` holds what the engine is sent, but for the model and the streaming options."""

    messages: tuple[Message, ...]
    upstream: dict[str, Any]
    sampling: Sampling
    n: int = 1
    model: str = ""
    stream: bool = False
    include_usage: bool = False
    logprobs: bool = False
    token_ids: bool = False
    user: str = ""
    conversation_id: str = ""
    store: bool = True
    """Off: the exchange is neither logged nor learned from, and nobody can vote on it."""


def parse_chat(values: Mapping[str, Any], limits: LimitSettings, max_model_len: int) -> ChatRequest:
    """The request in an OpenAI body. Raises Refusal."""
    fields.refuse_unknown(values, KNOWN)
    messages = _messages(values.get("messages"))
    n = fields.integer(values, "n", 1, 1, limits.max_answers)
    logprobs, top_logprobs = _logprobs(values)
    sampling = _sampling(values, min(limits.max_tokens, max_model_len))
    stream = fields.boolean(values, "stream")
    options = fields.object_(values, "stream_options")
    if options and not stream:
        raise Refusal("stream_options is only for stream: true", param="stream_options", code="invalid_value")
    upstream = {name: values[name] for name in PASSED if values.get(name) is not None}
    upstream |= {
        "messages": values["messages"],
        "n": n,
        "max_tokens": sampling.max_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k,
        "min_p": sampling.min_p,
        "logprobs": True,
        "top_logprobs": top_logprobs,
    }
    for name in ("frequency_penalty", "presence_penalty"):
        upstream.setdefault(name, 0.0)
    upstream.setdefault("repetition_penalty", 1.0)
    if sampling.seed is not None:
        upstream["seed"] = sampling.seed
    return ChatRequest(
        messages=messages,
        upstream=upstream,
        sampling=sampling,
        n=n,
        model=fields.text(values, "model", limit=MAX_NAME),
        stream=stream,
        include_usage=fields.boolean(options, "include_usage", path="stream_options."),
        logprobs=logprobs,
        token_ids=fields.boolean(values, "return_token_ids"),
        user=fields.text(values, "user", limit=MAX_NAME) or fields.text(values, "safety_identifier", limit=MAX_NAME),
        conversation_id=fields.text(values, "conversation_id", limit=MAX_NAME),
        store=fields.boolean(values, "store", default=True),
    )


def _logprobs(values: Mapping[str, Any]) -> tuple[bool, int]:
    logprobs = fields.boolean(values, "logprobs")
    top_logprobs = fields.integer(values, "top_logprobs", 0, 0, 20)
    if top_logprobs and not logprobs:
        raise Refusal("top_logprobs is only for logprobs: true", param="top_logprobs", code="invalid_value")
    return logprobs, top_logprobs


def _sampling(values: Mapping[str, Any], max_tokens: int) -> Sampling:
    limit = fields.integer(values, "max_tokens", 0, 1, INT64 - 1)
    limit = fields.integer(values, "max_completion_tokens", limit, 1, INT64 - 1)
    temperature = fields.number(values, "temperature", 1.0, 0.0, 2.0)
    top_p = fields.number(values, "top_p", 1.0, 0.0, 1.0)
    if top_p == 0.0:
        raise Refusal("top_p: expected more than 0 and at most 1, got 0", param="top_p", code="invalid_value")
    top_k = max(fields.integer(values, "top_k", 0, -1, 2**31 - 1), 0)
    min_p = fields.number(values, "min_p", 0.0, 0.0, 1.0)
    seed = None if values.get("seed") is None else fields.integer(values, "seed", 0, -INT64, INT64 - 1)
    whole = temperature >= TEMPERATURE_FLOOR and top_p == 1.0 and top_k == 0 and min_p == 0.0
    return Sampling(
        temperature=temperature,
        top_p=top_p,
        top_k=top_k,
        min_p=min_p,
        max_tokens=min(limit or max_tokens, max_tokens),
        seed=seed,
        full_support=whole and _unconstrained(values),
    )


def _unconstrained(values: Mapping[str, Any]) -> bool:
    """Checks the fields that change the distribution, and says whether none does.

    Stop strings and stop tokens leave each token's probability alone, but the answer then ends where the policy did
    not choose to end it, and its text is shorter than its tokens: such an answer does not train the policy either.
    """
    neutral = fields.number(values, "frequency_penalty", 0.0, -2.0, 2.0) == 0.0
    neutral &= fields.number(values, "presence_penalty", 0.0, -2.0, 2.0) == 0.0
    neutral &= fields.number(values, "repetition_penalty", 1.0, 0.01, 10.0) == 1.0
    neutral &= fields.integer(values, "min_tokens", 0, 0, INT64 - 1) == 0
    neutral &= not fields.boolean(values, "ignore_eos")
    neutral &= not _logit_bias(fields.object_(values, "logit_bias"))
    neutral &= not _stops(values.get("stop"))
    neutral &= not _listed(values, "stop_token_ids", int) and not _listed(values, "bad_words", str)
    fields.boolean(values, "parallel_tool_calls")
    tool_choice = values.get("tool_choice")
    if tool_choice is not None and not isinstance(tool_choice, str | dict):
        raise fields.wrong("tool_choice", "a string or an object", tool_choice)
    neutral &= not _listed(values, "tools", dict) and tool_choice in (None, "none", "auto")
    return neutral and fields.object_(values, "response_format").get("type", "text") == "text"


def _logit_bias(values: dict[str, Any]) -> dict[str, Any]:
    for token, bias in values.items():
        if not token.isdigit() or not isinstance(bias, int | float) or isinstance(bias, bool) or abs(bias) > 100:
            message = "logit_bias: expected token ids with numbers from -100 to 100"
            raise Refusal(message, param="logit_bias", code="invalid_value")
    return values


def _stops(value: object) -> bool:
    stops = [value] if isinstance(value, str) else value
    if stops is None:
        return False
    if not isinstance(stops, list) or not all(isinstance(stop, str) for stop in stops):
        raise fields.wrong("stop", "a string or an array of strings", value)
    if len(stops) > MAX_STOPS:
        raise Refusal(f"stop: {len(stops)} strings, at most {MAX_STOPS} are taken", param="stop", code="invalid_value")
    return bool(stops)


def _listed(values: Mapping[str, Any], name: str, kind: type) -> bool:
    value = values.get(name)
    if value is None:
        return False
    expected = f"an array of {fields.JSON_KINDS[kind].split()[-1]}s"
    if not isinstance(value, list) or not all(type(item) is kind for item in value):
        raise fields.wrong(name, expected, value)
    if len(value) > MAX_LIST:
        raise Refusal(f"{name}: {len(value)} items, at most {MAX_LIST} are taken", param=name, code="invalid_value")
    return bool(value)


def _messages(value: object) -> tuple[Message, ...]:
    if not isinstance(value, list):
        raise fields.wrong("messages", "an array of messages", value)
    if not value:
        raise Refusal("messages: expected at least one message, got none", param="messages", code="empty_array")
    return tuple(_message(item, f"messages[{i}]") for i, item in enumerate(value))


def _message(value: object, path: str) -> Message:
    if not isinstance(value, dict):
        raise fields.wrong(path, "an object", value)
    role = value.get("role")
    if not isinstance(role, str) or role not in ROLES:
        raise Refusal(
            f"{path}.role: expected one of {', '.join(sorted(ROLES))}", param=f"{path}.role", code="invalid_value"
        )
    content = value.get("content")
    if content is None and role == "assistant":  # it called tools instead
        return Message(role=role, content="")
    if isinstance(content, str):
        return Message(role=role, content=content)
    if isinstance(content, list):
        parts = [_part(part, f"{path}.content[{i}]") for i, part in enumerate(content)]
        return Message(role=role, content="".join(parts))
    raise fields.wrong(f"{path}.content", "a string or an array of text parts", content)


def _part(value: object, path: str) -> str:
    if not isinstance(value, dict) or value.get("type") != "text" or not isinstance(value.get("text"), str):
        message = f'{path}: expected {{"type": "text", "text": …}}; this service takes text alone'
        raise Refusal(message, param=path, code="invalid_value")
    return value["text"]
