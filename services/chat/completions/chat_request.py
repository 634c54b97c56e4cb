"""A chat request: OpenAI's fields and a few of vLLM's, and what becomes of them in the engine and in the log."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, ConfigDict, Field, PlainValidator, TypeAdapter, ValidationInfo, model_validator

from rlhf_online import events
from rlhf_online.config import EngineSettings, LimitSettings
from services.chat.bodies.validation import Array, AtMost, Expected, Integer, Mistake, Model, Within, validate
from services.chat.completions.sampling_request import (
    GenerationRequest,
    Ignored,
    SamplingRequest,
    TokenLimit,
    as_json,
)
from services.chat.completions.tools import Name, ToolCalls, ToolChoice, Tools, check_tools, constrained

MAX_MESSAGES = 2048
ASKED = (
    *("tools", "tool_choice", "parallel_tool_calls", "response_format", "chat_template_kwargs", "reasoning_effort"),
)
"""Fields that shape prompt and answers: sent as they came, and logged."""
RESERVED = ("chat_template", "conversation", "messages", "model_config", "self", "tokenizer", "tools")
"""Names that are none of a template's own variables."""


class TextPart(Model):
    """A piece of a message's text."""

    model_config = ConfigDict(extra="allow")

    type: Literal["text"] = Field(description="This service takes only text.")
    text: str = Field(description="The text.")


Part = Annotated[
    TextPart, Expected('{"type": "text", "text": …}; this service takes only text', whole=True, code="invalid_value")
]


PARTS = TypeAdapter(
    Annotated[Array[Part], Expected("a string or an array of text parts")], config=ConfigDict(strict=True)
)


def _text(value: object, info: ValidationInfo) -> str:
    if isinstance(value, str):
        return value
    if value is None and info.data.get("role") == "assistant":  # it called tools instead
        return ""
    return "\n".join(part.text for part in PARTS.validate_python(value) if part.text)  # as vLLM joins them


class Message(Model):
    """One message of the conversation. Other fields (`reasoning`, …) go to the engine as they are."""

    model_config = ConfigDict(extra="allow")

    role: Literal["assistant", "developer", "function", "system", "tool", "user"] = Field(description="Who speaks.")
    content: Annotated[str, PlainValidator(_text, json_schema_input_type=str | list[TextPart] | None)] = Field(
        description="What is said; null only from an assistant that called tools."
    )
    name: Name | None = Field(default=None, description="Who speaks, where several have one role.")
    tool_calls: ToolCalls | None = Field(default=None, description="The tools that an assistant called.")
    tool_call_id: str | None = Field(default=None, description="The call that a tool answers.")


def _given(message: Mapping[str, Any]) -> dict[str, Any]:
    """The message without the fields that are null, which is absent: vLLM refuses some of them."""
    return {name: value for name, value in message.items() if value is not None or name == "content"}


def _at_least_one(messages: list[Message]) -> list[Message]:
    if not messages:
        raise Mistake("expected at least one message, got none", code="empty_array")
    return messages


def _response_format(value: dict[str, Any]) -> dict[str, Any]:
    match value:
        case {"type": "json_schema", "json_schema": {"name": str(), "schema": dict()}}:
            pass
        case {"type": "json_schema"}:
            message = 'expected {"type": "json_schema", "json_schema": {"name": …, "schema": {…}}}'
            raise Mistake(message, param="json_schema")
        case {"type": "text" | "json_object" | "structural_tag"}:
            pass
        case _:
            raise Mistake("expected one of text, json_object, json_schema, structural_tag", param="type")
    return value


def _template_variables(values: dict[str, Any]) -> dict[str, Any]:
    for name in RESERVED:
        if name in values:
            raise Mistake("expected variables of the chat template, of which this is none", param=name)
    return values


class ChatCompletionRequest(SamplingRequest):
    """Chat with the model."""

    messages: Annotated[
        Array[Message],
        Expected("an array of messages"),
        AtMost(MAX_MESSAGES, "messages"),
        AfterValidator(_at_least_one),
        Field(min_length=1),
    ] = Field(description="The conversation so far, at least one message.")
    max_completion_tokens: TokenLimit = Field(default=None, description="As `max_tokens`; it wins if both are given.")
    response_format: Annotated[dict[str, Any], AfterValidator(_response_format)] | None = Field(
        default=None, description="Text, JSON or a schema, as OpenAI's."
    )
    tools: Tools | None = Field(
        default=None, description="What the model may call, as OpenAI's; needs the setting engine.tool_call_parser."
    )
    tool_choice: ToolChoice | None = Field(default=None, description="Whether and what the model calls, as OpenAI's.")
    parallel_tool_calls: bool | None = Field(default=None, description="As OpenAI's.")
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = Field(
        default=None, description="How much a thinking model thinks before it answers, as OpenAI's."
    )
    chat_template_kwargs: Annotated[dict[str, Any], AfterValidator(_template_variables)] | None = Field(
        default=None, description='Variables of the chat template, {"enable_thinking": false}, as vLLM\'s.'
    )
    logprobs: bool = Field(default=False, description="Tell each token's log-probability.")
    top_logprobs: Annotated[Integer, Within(0, 20)] = Field(
        default=0, description="And those of so many other candidates; only with `logprobs`."
    )
    audio: Ignored = None
    metadata: Ignored = None
    modalities: Ignored = None
    prediction: Ignored = None
    prompt_cache_key: Ignored = None
    prompt_cache_retention: Ignored = None
    service_tier: Ignored = None
    verbosity: Ignored = None

    @model_validator(mode="after")
    def _together(self) -> "ChatCompletionRequest":
        if self.top_logprobs and not self.logprobs:
            raise Mistake("top_logprobs is only for logprobs: true", param="top_logprobs")
        return self

    def token_limit(self) -> int | None:
        return self.max_completion_tokens or self.max_tokens

    def constraint(self, parser: str) -> str:
        """The field that says what an answer must look like; "" if none does."""
        if (self.response_format or {}).get("type", "text") != "text":
            return "response_format"
        return "tools" if constrained(self.tool_choice, self.tools or [], self.parallel_tool_calls, parser) else ""


def parse_chat(values: Mapping[str, Any], limits: LimitSettings, engine: EngineSettings) -> GenerationRequest:
    """The request in an OpenAI body. Raises ApiError."""
    request = validate(ChatCompletionRequest, values, {"max_answers": limits.max_answers})
    check_tools(request.tool_choice, request.tools or [], engine.tool_call_parser)
    asked = _asked(request, values)
    messages = list(map(_given, values["messages"]))  # with the fields that only the engine reads
    return request.generation(
        limits,
        engine,
        prompt={**asked, "messages": messages, "logprobs": True, "top_logprobs": request.top_logprobs},
        messages=tuple(map(_logged, request.messages)),
        asked=asked,
        constraint=request.constraint(engine.tool_call_parser),
        logprobs=request.logprobs,
        route="chat",
    )


def _asked(request: ChatCompletionRequest, values: Mapping[str, Any]) -> dict[str, Any]:
    """What was given of `ASKED`, as it came; vLLM takes no empty array of tools, and no choice without tools."""
    without = () if request.tools else ("tools", "tool_choice", "parallel_tool_calls")
    return {name: values[name] for name in ASKED if values.get(name) is not None and name not in without}


def _logged(message: Message) -> events.Message:
    said = message.model_fields_set - {"role", "content"}
    other = message.model_dump(include=said, exclude_none=True) if said else {}
    return events.Message(role=message.role, content=message.content, other=as_json(other))
