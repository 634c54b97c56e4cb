"""What every request for answers has in common: how they are drawn, how they are sent, who asks; and what the engine is
then asked for.

Every sampling parameter is sent explicitly, so that no default of a model's generation_config.json truncates the
distribution behind the log's back. What OpenAI's service takes but has no meaning here is accepted and ignored;
anything else is refused by name.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import orjson
from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema, field_validator, model_validator

from rlhf_online import events
from rlhf_online.config import EngineSettings, LimitSettings
from services.chat.bodies.api_error import ApiError, nested_too_deeply
from services.chat.bodies.validation import Array, AtMost, Expected, Integer, Mistake, Model, Within
from services.chat.completions.tools import Name

PUBLIC_MODEL = "rlhf-online"
UNNAMED = ("", PUBLIC_MODEL)
"""What a request names as its model that leaves the choice to the service."""
MAX_STOPS = 16
MAX_LIST = 1024
MAX_BIAS = 100
TEMPERATURE_FLOOR = 0.01  # vLLM samples at no lower one but 0, which is greedy
INT64 = 2**63
PASSED = (
    *("frequency_penalty", "presence_penalty", "repetition_penalty", "logit_bias", "stop", "stop_token_ids"),
    *("bad_words", "min_tokens", "ignore_eos"),
)
"""Fields that the engine is sent where they were given."""
Route = Literal["chat", "text"]
"""Messages that the model's template renders, or a text that it continues as it is."""

Ignored = Annotated[Any, Field(description="Accepted for OpenAI's clients; it has no meaning here.")]


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


LogitBias = Annotated[
    dict[str, Any],
    AfterValidator(_biases),
    WithJsonSchema(
        {"type": "object", "additionalProperties": {"type": "number", "minimum": -MAX_BIAS, "maximum": MAX_BIAS}}
    ),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationRequest:
    """A checked request. `upstream` holds what the engine is sent, but for the model and the streaming options.

    `constraint` is the field that says what an answer must look like, "" if none does; `asked` is JSON of the fields
    beside the messages that shaped prompt and answers.
    """

    messages: tuple[events.Message, ...]
    upstream: dict[str, Any]
    sampling: events.Sampling
    route: Route = "chat"
    n: int = 1
    constraint: str = ""
    asked: str = ""
    model: str = ""
    stream: bool = False
    include_usage: bool = False
    logprobs: bool = False
    token_ids: bool = False
    profile: str = ""
    user: str = ""
    conversation_id: str = ""
    store: bool = True
    """False: request and answers are neither logged nor learned from, and nobody can vote on it."""
    comparison_id: str = ""
    slot: int = 0


class SamplingRequest(Model):
    """Answers, and how they are drawn."""

    model: Name = Field(default="", description="A name that `/v1/models` lists; by default the live version.")
    n: Annotated[Integer, Within(1, "max_answers")] = Field(default=1, description="How many answers.")
    stream: bool = Field(default=False, description="Send the answer as server-sent events, as it is written.")
    stream_options: StreamOptions | None = Field(default=None, description="Only with `stream`.")
    max_tokens: TokenLimit = Field(default=None, description="Token limit of an answer; -1 is the service's own.")
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
    return_token_ids: bool = Field(default=False, description="Tell the ids of prompt and answer, as vLLM does.")
    profile: Name = Field(
        default="",
        description="The audience whose adapter answers, as an operator has defined it; by default nobody's in "
        "particular. Not with a version as `model`.",
    )
    user: Name = Field(default="", description="The person; only a keyed hash of it is kept.")
    safety_identifier: Name = Field(default="", description="OpenAI's new name of `user`.")
    conversation_id: Name = Field(default="", description="The conversation; by default a new one.")
    store: bool = Field(
        default=True, description="If false, the answers are neither logged nor learned from, and cannot be voted on."
    )

    @field_validator("top_p")
    @classmethod
    def _some_mass(cls, value: float) -> float:
        if value == 0.0:
            raise Mistake("expected more than 0 and at most 1, got 0")
        return value

    @model_validator(mode="after")
    def _sent_as_drawn(self) -> "SamplingRequest":
        if self.stream_options and self.stream_options.model_fields_set and not self.stream:
            raise Mistake("stream_options is only for stream: true", param="stream_options")
        if self.profile and self.model not in UNNAMED:
            raise Mistake(
                "profile names whose adapter answers, and model one version: send one of the two", param="profile"
            )
        if self.n > 1 and self.temperature == 0:
            raise Mistake(f"n: expected 1 at temperature 0, where all answers are the same, got {self.n}", param="n")
        return self

    def token_limit(self) -> int | None:
        """The client's limit of an answer."""
        return self.max_tokens

    def generation(
        self,
        limits: LimitSettings,
        engine: EngineSettings,
        *,
        prompt: Mapping[str, Any],
        messages: tuple[events.Message, ...] = (),
        asked: Mapping[str, Any] | None = None,
        constraint: str = "",
        logprobs: bool,
        route: Route,
    ) -> GenerationRequest:
        """The checked request; `prompt` is what the engine is sent beside the parameters. Raises ApiError."""
        self._check_limit(limits, engine)
        sampling = self._sampling(min(limits.max_tokens, engine.max_model_len), free=not constraint)
        if self.min_tokens > sampling.max_tokens:
            message = f"min_tokens: expected at most {sampling.max_tokens}, as many as an answer may have"
            raise ApiError(message, param="min_tokens", code="invalid_value")
        return GenerationRequest(
            messages=messages,
            upstream=self._parameters(sampling) | dict(prompt),
            sampling=sampling,
            route=route,
            n=self.n,
            constraint=constraint,
            asked=as_json(asked or {}),
            model=self.model,
            stream=self.stream,
            include_usage=self.stream_options is not None and self.stream_options.include_usage,
            logprobs=logprobs,
            token_ids=self.return_token_ids,
            profile=self.profile,
            user=self.user or self.safety_identifier,
            conversation_id=self.conversation_id,
            store=self.store,
        )

    def _check_limit(self, limits: LimitSettings, engine: EngineSettings) -> None:
        """Raises ApiError for a limit above the service's: it is not lowered without a word.

        What the prompt leaves of the context may be less: there the engine ends the answer.
        """
        caps = ((limits.max_tokens, "chat.limits.max_tokens"), (engine.max_model_len, "chat.engine.max_model_len"))
        most, setting = min(caps)
        for name in ("max_tokens", "max_completion_tokens"):
            if name in self.model_fields_set and (asked := getattr(self, name) or 0) > most:
                message = f"{name}: expected at most {most}, as {setting} says, got {asked}"
                raise ApiError(message, param=name, code="invalid_value")

    def _sampling(self, max_tokens: int, *, free: bool) -> events.Sampling:
        """How the answers are drawn, each of at most `max_tokens` tokens; `free`: nothing says what they must be."""
        limit = self.token_limit() or max_tokens
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
            full_support=whole and free and self._unweighted(),
        )

    def _parameters(self, sampling: events.Sampling) -> dict[str, Any]:
        """What the engine is told of `sampling`, and of the fields beside it that were given."""
        parameters = {name: getattr(self, name) for name in PASSED if name in self.model_fields_set}
        parameters |= {
            "n": self.n,
            "max_tokens": sampling.max_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "top_k": sampling.top_k,
            "min_p": sampling.min_p,
            "frequency_penalty": self.frequency_penalty,
            "presence_penalty": self.presence_penalty,
            "repetition_penalty": self.repetition_penalty,
        }
        return parameters if sampling.seed is None else parameters | {"seed": sampling.seed}

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


def as_json(values: Mapping[str, Any]) -> str:
    """ "" for nothing. Raises ApiError for what is nested more deeply than JSON is written here."""
    try:
        return orjson.dumps(dict(values)).decode() if values else ""
    except orjson.JSONEncodeError as error:
        raise nested_too_deeply() from error
