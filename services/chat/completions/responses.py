"""OpenAI's response objects, whole and in chunks, and what this service adds: who wrote it, whether it is on disk."""

from collections.abc import Mapping
from typing import Any, Literal, NotRequired

import orjson
from pydantic import ConfigDict, with_config
from typing_extensions import TypedDict

from services.chat.bodies.documented import documented
from services.chat.completions.in_flight import Choice, Generation
from services.chat.completions.sampling_request import PUBLIC_MODEL, GenerationRequest
from services.chat.completions.upstream import Chunk

DONE = b"data: [DONE]\n\n"
OBJECTS = {"chat": "chat.completion.chunk", "text": "text_completion"}
"""Of streams."""


@documented
class Health(TypedDict):
    """The process lives."""

    status: Literal["ok"]
    """Always "ok"."""


@documented
class Readiness(TypedDict):
    """Whether people can be answered, by the version that others answer with, and the log takes events; what is
    missing."""

    ready: bool
    """True if all hold."""
    state: str
    """The engine's: "starting", "waiting" (`message` says for what), "ready", "restarting" or "failed"."""
    message: str
    """What the engine is doing where it is not ready, or why this pod should get no more requests."""
    log: str
    """ "ok", or what is wrong with the event log."""
    serving: str
    """The policy version that writes answers now; empty before the first."""
    model: str
    """The name under which the engine serves it."""
    restarts: int
    """How often the engine was started again after it had ended."""
    lag_s: float
    """For how many seconds another version has been live than the one that serves; 0 if that is the live one."""
    could_not: dict[str, str]
    """The live version, if this pod could not serve it, and why; it is tried again."""
    versions: str
    """ "ok", or since when the store of versions has not answered; what serves goes on."""
    secrets: str
    """ "ok", or which file of the state folder no longer holds the secret that the service works with."""


@documented
class ModelInfo(TypedDict):
    """A name that a request may give as its model."""

    id: str
    """The name."""
    object: Literal["model"]
    """Always "model"."""
    created: int
    """Always 0: names are no versions."""
    owned_by: str
    """Always "rlhf-online"."""


@documented
class ModelList(TypedDict):
    """The names that a request may give as its model: those of the live version, then those of versions beside it."""

    object: Literal["list"]
    """Always "list"."""
    data: list[ModelInfo]
    """The names."""
    profiles: list[str]
    """The audiences that a request may name as its profile; each is answered by an adapter of its own, once it has
    one."""


@documented
class Span(TypedDict):
    """From which token on an answer was written by which weights."""

    policy_version: str
    """The version."""
    first_token: int | None
    """Index of the first token that it wrote; null where the boundary could not be told."""


@documented
class Provenance(TypedDict):
    """Who wrote the answers, and whether they are on disk."""

    completion_id: str
    """Name this in feedback."""
    conversation_id: str
    """The conversation."""
    versions: list[list[Span]]
    """For each answer, the versions that wrote it."""
    logged: bool
    """True once request and answers are on disk."""


@documented
class AssistantMessage(TypedDict):
    """What the model says."""

    role: Literal["assistant"]
    """Always "assistant"."""
    content: str | None
    """The text; null where there is none beside thoughts and calls."""
    refusal: None
    """Always null."""
    reasoning: NotRequired[str]
    """What a thinking model thought before it answered, as vLLM's."""
    tool_calls: NotRequired[list[dict[str, Any]]]
    """The tools that it calls, as OpenAI's."""


@documented
class Logprobs(TypedDict):
    """Log-probabilities of an answer's tokens."""

    content: list[dict[str, Any]]
    """One entry a token, as OpenAI's."""
    refusal: None
    """Always null."""


@documented
class ChatChoice(TypedDict):
    """One answer."""

    index: int
    """Its position, from 0."""
    message: AssistantMessage
    """The answer, as a message."""
    logprobs: Logprobs | None
    """If they were asked for."""
    finish_reason: str
    """ "stop", "length" or "tool_calls"."""
    token_ids: NotRequired[list[int]]
    """The answer's tokens, if they were asked for."""


@documented
class ChatCompletion(TypedDict):
    """One or several whole answers."""

    id: str
    """Id of the completion."""
    object: Literal["chat.completion"]
    """Always "chat.completion"."""
    created: int
    """When the request arrived, Unix time in seconds."""
    model: str
    """Always "rlhf-online"; `rlhf.versions` tells the version."""
    choices: list[ChatChoice]
    """The answers."""
    usage: dict[str, Any] | None
    """Tokens of prompt and answers, as OpenAI's."""
    system_fingerprint: str
    """The version that wrote the end of the first answer."""
    rlhf: Provenance
    """What this service adds to OpenAI's object."""
    prompt_token_ids: NotRequired[list[int] | None]
    """The prompt's tokens, if token ids were asked for."""


@with_config(ConfigDict(use_attribute_docstrings=True))
class ChatCompletionChunk(TypedDict):
    """A piece of a streamed answer, as a server-sent event; `data: [DONE]` ends the stream."""

    id: str
    """Id of the completion."""
    object: Literal["chat.completion.chunk"]
    """Always "chat.completion.chunk"."""
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


def model_info(name: str) -> ModelInfo:
    return {"id": name, "object": "model", "created": 0, "owned_by": "rlhf-online"}


def headers(generation: Generation) -> dict[str, str]:
    """What is known of the answers as they begin to be sent: not a stream's last version, nor if it is logged."""
    said = {
        "x-rlhf-completion-id": generation.completion_id,
        "x-rlhf-first-version": generation.first_version,
    }
    if generation.settled:
        said |= {"x-rlhf-last-version": generation.last_version}
    if generation.settled or not generation.request.store:
        said |= {"x-rlhf-logged": str(generation.logged).lower()}
    return said


def completion(generation: Generation) -> ChatCompletion:
    """The answers of a settled chat request."""
    response: ChatCompletion = {
        "id": generation.completion_id,
        "object": "chat.completion",
        "created": generation.started_ms // 1000,
        "model": PUBLIC_MODEL,
        "choices": [_choice(generation, choice) for choice in generation.choices],
        "usage": generation.usage,
        "system_fingerprint": generation.version,
        "rlhf": provenance(generation),
    }
    if generation.request.token_ids:
        response["prompt_token_ids"] = generation.prompt_token_ids
    return response


def _choice(generation: Generation, choice: Choice) -> ChatChoice:
    text = "".join(choice.text)
    message: AssistantMessage = {"role": "assistant", "content": text, "refusal": None}
    if choice.reasoning:
        message["reasoning"] = "".join(choice.reasoning)
    if choice.tool_calls:
        message["tool_calls"] = list(choice.tool_calls.values())
    if choice.reasoning or choice.tool_calls:
        message["content"] = text or None
    values: ChatChoice = {
        "index": choice.index,
        "message": message,
        "logprobs": {"content": choice.logprobs_content, "refusal": None} if generation.request.logprobs else None,
        "finish_reason": choice.finish_reason,
    }
    if generation.request.token_ids:
        values["token_ids"] = choice.token_ids
    return values


def provenance(generation: Generation) -> Provenance:
    """The "rlhf" object. Where a boundary is not exact, `first_token` of the later versions is null."""
    return {
        "completion_id": generation.completion_id,
        "conversation_id": generation.conversation_id,
        "versions": [_versions(choice) for choice in generation.choices],
        "logged": generation.logged,
    }


def _versions(choice: Choice) -> list[Span]:
    return [
        {
            "policy_version": span.policy_version,
            "first_token": span.first_token if choice.spans_exact or span.first_token == 0 else None,
        }
        for span in choice.spans
    ]


def server_sent_event(values: Mapping[str, Any]) -> bytes:
    """A server-sent event."""
    return b"data: " + orjson.dumps(values) + b"\n\n"


def for_client(request: GenerationRequest, chunk: Chunk) -> Chunk:
    """The engine's chunk without what the service asked for and the client did not."""
    if not request.token_ids:
        chunk.pop("prompt_token_ids", None)
    chunk.pop("prompt_text", None)
    if request.include_usage:
        chunk["usage"] = None
    for part in chunk["choices"]:
        if not request.token_ids:
            part.pop("token_ids", None)
            part.pop("prompt_token_ids", None)
        if not request.logprobs:
            part["logprobs"] = None
        part.pop("stop_reason", None)
    return chunk


class Chunks:
    """Turns the engine's chunks into the client's.

    The last one (usage if the client wants it, else the last finish) is held back: it is sent, with the "rlhf" object,
    once request and answers are on disk.
    """

    def __init__(self, generation: Generation) -> None:
        self.generation = generation
        self.held: Chunk | None = None

    def events(self, arrived: list[Chunk]) -> bytes:
        """What can be sent now."""
        out = []
        for chunk in arrived:
            if not chunk["choices"]:  # usage
                if self.generation.request.include_usage:
                    out += self._hold(chunk)
                continue
            for_client(self.generation.request, self._head(chunk))
            out += self._hold(chunk) if self.generation.finished else [server_sent_event(chunk)]
        return b"".join(out)

    def last(self) -> bytes:
        """The chunk held back, and the end of the stream. Only after the generation is settled."""
        chunk = self.held or self._head({"choices": []})
        chunk["system_fingerprint"] = self.generation.version
        chunk["rlhf"] = provenance(self.generation)
        return server_sent_event(chunk) + DONE

    def _hold(self, chunk: Chunk) -> list[bytes]:
        """Keep the chunk; the one kept before was not the last, and is returned to be sent."""
        before, self.held = self.held, self._head(chunk)
        return [] if before is None else [server_sent_event(before)]

    def _head(self, chunk: Chunk) -> Chunk:
        chunk["id"] = self.generation.completion_id
        chunk["object"] = OBJECTS[self.generation.request.route]
        chunk["created"] = self.generation.started_ms // 1000
        chunk["model"] = PUBLIC_MODEL
        return chunk
