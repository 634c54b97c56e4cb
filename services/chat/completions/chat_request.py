"""A chat request: OpenAI's fields and a few of vLLM's, and what becomes of them in the engine and in the log.

Every sampling parameter is sent explicitly, so that no default of a model's generation_config.json truncates the
distribution behind the log's back. What OpenAI's service takes but has no meaning here is accepted and ignored;
anything else is refused by name.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import orjson
from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    TypeAdapter,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from rlhf_online import events
from rlhf_online.config import EngineSettings, LimitSettings
from services.chat.bodies.api_error import ApiError, nested_too_deeply
from services.chat.bodies.validation import Array, AtMost, Expected, Integer, Mistake, Model, Within, validate
from services.chat.completions.tools import Name, ToolCalls, ToolChoice, Tools, check_tools, constrained

PUBLIC_MODEL = "rlhf-online"
MAX_STOPS = 16
MAX_MESSAGES = 2048
MAX_LIST = 1024
MAX_BIAS = 100
TEMPERATURE_FLOOR = 0.01  # vLLM samples at no lower one but 0, which is greedy
INT64 = 2**63
PASSED = (
    *("frequency_penalty", "presence_penalty", "repetition_penalty", "logit_bias", "stop", "stop_token_ids"),
    *("bad_words", "min_tokens", "ignore_eos"),
)
"""Fields that the engine is sent where they were given, beside those of `ASKED`."""
ASKED = (
    *("tools", "tool_choice", "parallel_tool_calls", "response_format", "chat_template_kwargs", "reasoning_effort"),
)
"""Fields that shape prompt and answers: sent as they came, and logged."""
RESERVED = ("chat_template", "conversation", "messages", "model_config", "self", "tokenizer", "tools")
"""Names that are none of a template's own variables."""

Ignored = Annotated[Any, Field(description="Accepted for OpenAI's clients; it has no meaning here.")]


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


class StreamOptions(Model):
    """How a stream is sent."""

    include_usage: bool = Field(default=False, description="End the stream with a chunk that counts its tokens.")
    include_obfuscation: Ignored = None


def _biases(values: dict[str, Any]) -> dict[str, Any]:
    for token, bias in values.items():
        if not (token.isascii() and token.isdecimal()) or type(bias) not in (int, float) or not abs(bias) <= MAX_BIAS:
            raise Mistake(f"expected token ids with numbers from -{MAX_BIAS} to {MAX_BIAS}")
    return values


def _unlimited(value: object) -> object:
    return None if value == -1 else value


TokenLimit = Annotated[
    Annotated[Integer, Within(1, INT64 - 1)] | None,
    BeforeValidator(_unlimited, json_schema_input_type=Annotated[int, Field(ge=-1)]),
]
Strings = Annotated[Array[str], Expected("an array of strings", whole=True), AtMost(MAX_LIST, "items")]
Integers = Annotated[Array[int], Expected("an array of integers", whole=True), AtMost(MAX_LIST, "items")]


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


LogitBias = Annotated[
    dict[str, Any],
    AfterValidator(_biases),
    WithJsonSchema(
        {"type": "object", "additionalProperties": {"type": "number", "minimum": -MAX_BIAS, "maximum": MAX_BIAS}}
    ),
]


def _template_variables(values: dict[str, Any]) -> dict[str, Any]:
    for name in RESERVED:
        if name in values:
            raise Mistake("expected variables of the chat template, of which this is none", param=name)
    return values


class ChatCompletionRequest(Model):
    """Chat with the model."""

    messages: Annotated[
        Array[Message],
        Expected("an array of messages"),
        AtMost(MAX_MESSAGES, "messages"),
        AfterValidator(_at_least_one),
        Field(min_length=1),
    ] = Field(description="The conversation so far, at least one message.")
    model: Name = Field(default="", description="A name that `/v1/models` lists; all mean the live version.")
    n: Annotated[Integer, Within(1, "max_answers")] = Field(default=1, description="How many answers.")
    stream: bool = Field(default=False, description="Send the answer as server-sent events, as it is written.")
    stream_options: StreamOptions | None = Field(default=None, description="Only with `stream`.")
    max_tokens: TokenLimit = Field(default=None, description="Token limit of an answer; -1 is the service's own.")
    max_completion_tokens: TokenLimit = Field(default=None, description="The same; it wins if both are given.")
    temperature: Annotated[float, Within(0.0, 2.0)] = Field(
        default=1.0, description="0 is greedy; one below .01 counts as .01."
    )
    top_p: Annotated[float, Within(0.0, 1.0)] = Field(default=1.0, description="Nucleus mass, more than 0.")
    top_k: Annotated[Integer, Within(-1, 2**31 - 1)] = Field(
        default=0, description="Largest number of candidates; 0 and -1 keep all."
    )
    min_p: Annotated[float, Within(0.0, 1.0)] = Field(
        default=0.0, description="Smallest probability relative to the best candidate."
    )
    seed: Annotated[Integer, Within(-INT64, INT64 - 1)] | None = Field(
        default=None, description="For repeatable sampling."
    )
    frequency_penalty: Annotated[float, Within(-2.0, 2.0)] = Field(default=0.0, description="As OpenAI's.")
    presence_penalty: Annotated[float, Within(-2.0, 2.0)] = Field(default=0.0, description="As OpenAI's.")
    repetition_penalty: Annotated[float, Within(0.01, 10.0)] = Field(default=1.0, description="As vLLM's.")
    logit_bias: LogitBias | None = Field(default=None, description="By token id, -100 to 100.")
    stop: (
        Annotated[
            str | Array[str],
            Expected("a string or an array of strings", whole=True),
            AtMost(MAX_STOPS, "strings"),
        ]
        | None
    ) = Field(default=None, description="Texts at which an answer ends.")
    stop_token_ids: Integers | None = Field(default=None, description="Tokens at which an answer ends, as vLLM's.")
    bad_words: Strings | None = Field(default=None, description="What may not be written, as vLLM's.")
    min_tokens: Annotated[Integer, Within(0, INT64 - 1)] = Field(
        default=0, description="An answer ends no sooner, as vLLM's."
    )
    ignore_eos: bool = Field(default=False, description="Go on after the end of a turn, as vLLM's.")
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
    return_token_ids: bool = Field(default=False, description="Tell the ids of prompt and answer, as vLLM does.")
    user: Name = Field(default="", description="The person; only a keyed hash of it is kept.")
    safety_identifier: Name = Field(default="", description="OpenAI's new name of `user`.")
    conversation_id: Name = Field(default="", description="The conversation; by default a new one.")
    store: bool = Field(
        default=True, description="If false, the answers are neither logged nor learned from, and cannot be voted on."
    )
    audio: Ignored = None
    metadata: Ignored = None
    modalities: Ignored = None
    prediction: Ignored = None
    prompt_cache_key: Ignored = None
    prompt_cache_retention: Ignored = None
    service_tier: Ignored = None
    verbosity: Ignored = None

    @field_validator("top_p")
    @classmethod
    def _some_mass(cls, value: float) -> float:
        if value == 0.0:
            raise Mistake("expected more than 0 and at most 1, got 0")
        return value

    @model_validator(mode="after")
    def _together(self) -> "ChatCompletionRequest":
        if self.top_logprobs and not self.logprobs:
            raise Mistake("top_logprobs is only for logprobs: true", param="top_logprobs")
        if self.stream_options and self.stream_options.model_fields_set and not self.stream:
            raise Mistake("stream_options is only for stream: true", param="stream_options")
        if self.n > 1 and self.temperature == 0:
            raise Mistake(f"n: expected 1 at temperature 0, where all answers are the same, got {self.n}", param="n")
        return self

    def sampling(self, max_tokens: int, parser: str) -> events.Sampling:
        """How the answers are drawn, each of at most `max_tokens` tokens; `parser` is the engine's for tools."""
        limit = self.max_completion_tokens or self.max_tokens or max_tokens
        top_k = max(self.top_k, 0)
        temperature = max(self.temperature, TEMPERATURE_FLOOR) if self.temperature else 0.0
        whole = temperature > 0 and self.top_p == 1.0 and top_k == 0 and self.min_p == 0.0
        return events.Sampling(
            temperature=temperature,
            top_p=self.top_p,
            top_k=top_k,
            min_p=self.min_p,
            max_tokens=min(limit, max_tokens),
            seed=self.seed,
            full_support=whole and not self.constraint(parser) and self._unweighted(),
        )

    def constraint(self, parser: str) -> str:
        """The field that says what an answer must look like; "" if none does."""
        if (self.response_format or {}).get("type", "text") != "text":
            return "response_format"
        return "tools" if constrained(self.tool_choice, self.tools or [], self.parallel_tool_calls, parser) else ""

    def _unweighted(self) -> bool:
        """Whether no field changes a token's probability.

        Stop strings and stop tokens leave each token's probability alone, but the answer then ends where the policy did
        not choose to end it, and its text is shorter than its tokens: such an answer does not train the policy either.
        """
        weighted = (
            self.frequency_penalty
            or self.presence_penalty
            or self.repetition_penalty != 1.0
            or self.min_tokens
            or self.ignore_eos
            or self.logit_bias
            or self.stop not in (None, [])
            or self.stop_token_ids
            or self.bad_words
        )
        return not weighted


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatRequest:
    """A checked request. `upstream` holds what the engine is sent, but for the model and the streaming options.

    `constraint` is the field that says what an answer must look like, "" if none does; `asked` is JSON of `ASKED`.
    """

    messages: tuple[events.Message, ...]
    upstream: dict[str, Any]
    sampling: events.Sampling
    n: int = 1
    constraint: str = ""
    asked: str = ""
    model: str = ""
    stream: bool = False
    include_usage: bool = False
    logprobs: bool = False
    token_ids: bool = False
    user: str = ""
    conversation_id: str = ""
    store: bool = True
    """False: request and answers are neither logged nor learned from, and nobody can vote on it."""
    comparison_id: str = ""
    slot: int = 0


def parse_chat(values: Mapping[str, Any], limits: LimitSettings, engine: EngineSettings) -> ChatRequest:
    """The request in an OpenAI body. Raises ApiError."""
    request = validate(ChatCompletionRequest, values, {"max_answers": limits.max_answers})
    check_tools(request.tool_choice, request.tools or [], engine.tool_call_parser)
    sampling = request.sampling(min(limits.max_tokens, engine.max_model_len), engine.tool_call_parser)
    if request.min_tokens > sampling.max_tokens:
        message = f"min_tokens: expected at most {sampling.max_tokens}, as many as an answer may have"
        raise ApiError(message, param="min_tokens", code="invalid_value")
    asked = _asked(request, values)
    upstream = {name: getattr(request, name) for name in PASSED if name in request.model_fields_set} | asked
    upstream |= {
        "messages": list(map(_given, values["messages"])),  # with the fields that only the engine reads
        "n": request.n,
        "max_tokens": sampling.max_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k,
        "min_p": sampling.min_p,
        "frequency_penalty": request.frequency_penalty,
        "presence_penalty": request.presence_penalty,
        "repetition_penalty": request.repetition_penalty,
        "logprobs": True,
        "top_logprobs": request.top_logprobs,
    }
    if sampling.seed is not None:
        upstream["seed"] = sampling.seed
    return ChatRequest(
        messages=tuple(map(_logged, request.messages)),
        upstream=upstream,
        sampling=sampling,
        n=request.n,
        constraint=request.constraint(engine.tool_call_parser),
        asked=_json(asked),
        model=request.model,
        stream=request.stream,
        include_usage=request.stream_options is not None and request.stream_options.include_usage,
        logprobs=request.logprobs,
        token_ids=request.return_token_ids,
        user=request.user or request.safety_identifier,
        conversation_id=request.conversation_id,
        store=request.store,
    )


def _asked(request: ChatCompletionRequest, values: Mapping[str, Any]) -> dict[str, Any]:
    """What was given of `ASKED`, as it came; vLLM takes no empty array of tools, and no choice without tools."""
    without = () if request.tools else ("tools", "tool_choice", "parallel_tool_calls")
    return {name: values[name] for name in ASKED if values.get(name) is not None and name not in without}


def _logged(message: Message) -> events.Message:
    other = message.model_dump(exclude={"role", "content"}, exclude_none=True)
    return events.Message(role=message.role, content=message.content, other=_json(other))


def _json(values: dict[str, Any]) -> str:
    """Raises ApiError for what is nested more deeply than JSON is written here."""
    try:
        return orjson.dumps(values).decode() if values else ""
    except orjson.JSONEncodeError as error:
        raise nested_too_deeply() from error
