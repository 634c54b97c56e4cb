"""A request to continue a text as it is, without the model's chat template: OpenAI's older API, `/v1/completions`.

One prompt a request: it is one exchange of the log, whose answers can be compared. What it asks for and the log could
not tell apart from the answer (`echo`), or the engine does not do (`suffix`, `best_of`), is refused by name.
"""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field, PlainValidator, model_validator

from rlhf_online.config import EngineSettings, LimitSettings
from services.chat.bodies.validation import Integer, Mistake, Within, validate
from services.chat.completions.sampling_request import GenerationRequest, SamplingRequest, TokenLimit

MAX_TOKENS = 16
"""OpenAI's default, which clients of this API know."""
MOST_LOGPROBS = 20
"""As many as the engine tells."""
EXPECTED = "a text, or an array of token ids; an array of one prompt is that prompt"


def _prompt(value: object) -> str | list[int]:
    match value:
        case [str() | list() as only]:
            prompt: object = only
        case [str() | list(), *others] if all(isinstance(other, str | list) for other in others):
            message = f"expected one prompt, got {len(others) + 1}: send a request for each"
            raise Mistake(message, code="one_prompt")
        case _:
            prompt = value
    match prompt:
        case "" | []:
            raise Mistake("expected at least one character or token, got none", code="empty_prompt")
        case str():
            return prompt
        case list() if all(type(token) is int and token >= 0 for token in prompt):
            return prompt
        case _:
            raise Mistake(f"expected {EXPECTED}", code="invalid_type")


class CompletionRequest(SamplingRequest):
    """Continue a text."""

    prompt: Annotated[str | list[int], PlainValidator(_prompt, json_schema_input_type=str | list[int] | list[str])] = (
        Field(description=f"What is continued: {EXPECTED}.")
    )
    max_tokens: TokenLimit = Field(
        default=MAX_TOKENS, description=f"Token limit of an answer, {MAX_TOKENS} by default; -1 is the service's own."
    )
    logprobs: Annotated[Integer, Within(0, MOST_LOGPROBS)] | None = Field(
        default=None, description="Tell each token's log-probability, and those of so many other candidates."
    )
    echo: bool = Field(default=False, description="Only false: the answer is sent without its prompt.")
    suffix: str = Field(default="", description="Only empty: the model writes on, and does not fill in.")
    best_of: Integer | None = Field(default=None, description="Only `n`: every answer that is drawn is sent.")

    @model_validator(mode="after")
    def _as_served(self) -> "CompletionRequest":
        if self.echo:
            raise Mistake("echo: expected false: the answer is sent without its prompt", param="echo")
        if self.suffix:
            raise Mistake("suffix: expected none: the model writes on, and does not fill in", param="suffix")
        if self.best_of is not None and self.best_of != self.n:
            message = f"best_of: expected n, {self.n}, since every answer that is drawn is sent, got {self.best_of}"
            raise Mistake(message, param="best_of")
        return self


def parse_completion(values: Mapping[str, Any], limits: LimitSettings, engine: EngineSettings) -> GenerationRequest:
    """The request in a body of OpenAI's older API. Raises ApiError.

    The log has the text under `asked`: there are no messages, and the tokens are the engine's.
    """
    request = validate(CompletionRequest, values, {"max_answers": limits.max_answers})
    return request.generation(
        limits,
        engine,
        prompt={"prompt": request.prompt, "logprobs": request.logprobs or 0},
        asked={"prompt": request.prompt} if isinstance(request.prompt, str) else {},
        logprobs=request.logprobs is not None,
        route="text",
    )
