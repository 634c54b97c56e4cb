"""The response objects of OpenAI's older API, `/v1/completions`, with what this service adds, as `responses` has it."""

from typing import Any, Literal, NotRequired

from pydantic import ConfigDict, with_config
from typing_extensions import TypedDict

from services.chat.bodies.documented import documented
from services.chat.completions.in_flight import Choice, Generation
from services.chat.completions.responses import Provenance, provenance
from services.chat.completions.sampling_request import PUBLIC_MODEL


@documented
class TextLogprobs(TypedDict):
    """Log-probabilities of an answer's tokens, as OpenAI's."""

    tokens: list[str]
    """Each token's text."""
    token_logprobs: list[float]
    """Its log-probability."""
    top_logprobs: list[dict[str, float]]
    """The likeliest candidates for its place, and itself."""
    text_offset: list[int]
    """Where it begins in the answer's text."""


@documented
class TextChoice(TypedDict):
    """One answer."""

    index: int
    """Its position, from 0."""
    text: str
    """How the text goes on."""
    logprobs: TextLogprobs | None
    """If they were asked for."""
    finish_reason: str
    """ "stop" or "length"."""
    token_ids: NotRequired[list[int]]
    """The answer's tokens, if they were asked for."""
    prompt_token_ids: NotRequired[list[int] | None]
    """The prompt's tokens, likewise."""


@documented
class TextCompletion(TypedDict):
    """One or several whole answers to a text."""

    id: str
    """Id of the completion."""
    object: Literal["text_completion"]
    """Always "text_completion"."""
    created: int
    """When the request arrived, Unix time in seconds."""
    model: str
    """Always "rlhf-online"; `rlhf.versions` tells the version."""
    choices: list[TextChoice]
    """The answers."""
    usage: dict[str, Any] | None
    """Tokens of prompt and answers, as OpenAI's."""
    system_fingerprint: str
    """The version that wrote the end of the first answer."""
    rlhf: Provenance
    """What this service adds to OpenAI's object."""


@with_config(ConfigDict(use_attribute_docstrings=True))
class TextCompletionChunk(TypedDict):
    """A piece of a streamed answer, as a server-sent event; `data: [DONE]` ends the stream."""

    id: str
    """Id of the completion."""
    object: Literal["text_completion"]
    """Always "text_completion"."""
    created: int
    """When the request arrived, Unix time in seconds."""
    model: str
    """Always "rlhf-online"."""
    choices: list[dict[str, Any]]
    """The pieces, as OpenAI's."""
    usage: NotRequired[dict[str, Any] | None]
    """In the last chunk, if it was asked for."""
    system_fingerprint: NotRequired[str]
    """In the last chunk: the version that wrote the end of the first answer."""
    rlhf: NotRequired[Provenance]
    """In the last chunk, which is sent when request and answers are on disk."""


def text_completion(generation: Generation) -> TextCompletion:
    """The answers of a settled request."""
    return {
        "id": generation.completion_id,
        "object": "text_completion",
        "created": generation.started_ms // 1000,
        "model": PUBLIC_MODEL,
        "choices": [_choice(generation, choice) for choice in generation.choices],
        "usage": generation.usage,
        "system_fingerprint": generation.version,
        "rlhf": provenance(generation),
    }


def _choice(generation: Generation, choice: Choice) -> TextChoice:
    values: TextChoice = {
        "index": choice.index,
        "text": "".join(choice.text),
        "logprobs": _logprobs(choice) if generation.request.logprobs else None,
        "finish_reason": choice.finish_reason,
    }
    if generation.request.token_ids:
        values["token_ids"] = choice.token_ids
        values["prompt_token_ids"] = generation.prompt_token_ids
    return values


def _logprobs(choice: Choice) -> TextLogprobs:
    """Those of all pieces; the engine counts the offsets over all of them."""
    told: TextLogprobs = {"tokens": [], "token_logprobs": [], "top_logprobs": [], "text_offset": []}
    for piece in choice.logprobs_content:
        told["tokens"] += piece["tokens"]
        told["token_logprobs"] += piece["token_logprobs"]
        told["top_logprobs"] += piece["top_logprobs"]
        told["text_offset"] += piece["text_offset"]
    return told
