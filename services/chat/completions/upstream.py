"""The engine's side of a conversation: one streamed request to vLLM, taken into the generation chunk by chunk.

Every request is streamed, whatever the client asked for, and token by token: only so is it known how many had been
written when the weights changed. (vLLM's `stream_interval` would hold tokens back; it saves 2 % of an answer's CPU.)
A chunk counts in the turn of the event loop that it arrives in, whoever waits for it, or does not.
"""

from collections.abc import Callable
from typing import Any

import orjson

from rlhf_online import sse
from rlhf_online.errors import EngineUnavailable
from services.chat.access.limits import Visit
from services.chat.bodies.api_error import nested_too_deeply
from services.chat.completions.engine import Engine
from services.chat.completions.engine_connections import EngineConnections, Reply, Take
from services.chat.completions.engine_errors import engine_error
from services.chat.completions.in_flight import Choice, Generation, InFlight

UNREAD_BYTES = 64 << 10
"""Of a stream whose client reads no further: then the engine's bytes stay in its socket."""
Chunk = dict[str, Any]
PATHS = {"chat": "/v1/chat/completions", "text": "/v1/completions"}
PROMPTS = {"chat": "messages", "text": "prompt"}
"""The request's field that becomes the prompt."""


async def post(
    connections: EngineConnections,
    engine: Engine,
    path: str,
    body: dict[str, Any],
    constraint: str = "",
    prompt: str = "prompts",
    visit: Visit | None = None,
    take: Take | None = None,
) -> Reply:
    """The engine's answer, its headers read. Raises EngineUnavailable, or ApiError for what the engine refuses.

    With a `visit` the answer, to its last byte, may take what is left of that; then TooLate. (A swap may hold it for
    long: without one there is no limit.) See `engine_error` for `constraint` and `prompt`.
    """
    try:
        data = orjson.dumps(body)
    except orjson.JSONEncodeError as error:
        raise nested_too_deeply() from error
    try:
        reply = await connections.post(path, data, take, visit)
        if reply.status != 200:
            raise await engine_error(engine, reply.status, await reply.read(), constraint, prompt)
    except OSError as error:
        raise EngineUnavailable(f"the engine does not answer ({type(error).__name__}); try again") from error
    return reply


async def send(connections: EngineConnections, engine: Engine, generation: Generation, flight: InFlight) -> None:
    """Send the generation's request, and wait for its first token.

    Much of what the engine refuses it tells in its stream, before a token.
    """
    request = generation.request
    body = request.upstream | {
        "model": generation.model,
        "stream": True,
        "stream_options": {"include_usage": True},
        "return_token_ids": True,
    }
    generation.waiting = True
    path, prompt = PATHS[request.route], PROMPTS[request.route]

    def take(reply: Reply, data: bytes) -> bool:
        return _take(generation, flight, reply, data)

    generation.reply = await post(connections, engine, path, body, request.constraint, prompt, generation.visit, take)
    await _until(engine, generation, lambda: generation.first is not None)


async def chunks(engine: Engine, generation: Generation) -> list[Chunk]:
    """What has arrived and was not read before, of a generation that is streamed; none at the end.

    Raises EngineUnavailable if the engine ends before its last chunk, ApiError for an error that it sends, and TooLate
    when the time for the answer is over.
    """
    await _until(engine, generation, lambda: bool(generation.unread))
    arrived, generation.unread, generation.unread_bytes = generation.unread, [], 0
    if generation.reply is not None and not generation.waiting:
        generation.waiting = True
        generation.reply.resume()
    return arrived


async def end(engine: Engine, generation: Generation) -> None:
    """Wait for the last chunk. Raises as `chunks`."""
    await _until(engine, generation, lambda: False)


async def _until(engine: Engine, generation: Generation, enough: Callable[[], bool]) -> None:
    """Wait until it is `enough`, or the engine has sent its last chunk."""
    reply = generation.reply
    assert reply is not None, "send comes first"
    while not enough():
        if generation.error:
            code = orjson.loads(generation.error)["error"].get("code")
            request = generation.request
            status = code if isinstance(code, int) else 500
            raise await engine_error(engine, status, generation.error, request.constraint, PROMPTS[request.route])
        if generation.ended:
            if not generation.finished:
                raise EngineUnavailable("the engine ended an answer without saying why")
            return
        if reply.complete:
            raise EngineUnavailable("the engine ended in the middle of an answer")
        try:
            await reply.changed()
        except OSError as error:
            message = f"the engine ended in the middle of an answer ({type(error).__name__})"
            raise EngineUnavailable(message) from error


def _take(generation: Generation, flight: InFlight, reply: Reply, data: bytes) -> bool:
    """Count what arrived. Says whether somebody may wait for it: the first token and the end, and all of a stream."""
    flight.activity += 1
    told = generation.streamed or generation.first is None
    for event in generation.events.feed(data):
        if event == sse.DONE:
            generation.ended = True
            return True
        chunk = orjson.loads(event)
        if "error" in chunk:
            generation.error = event
            return True
        take_in(generation, chunk)
        if generation.streamed:
            generation.unread.append(chunk)
    if generation.streamed:
        generation.unread_bytes += len(data)
        if generation.unread_bytes > UNREAD_BYTES:
            generation.waiting = False
            reply.pause()
    return told


def take_in(generation: Generation, chunk: Chunk) -> None:
    """Add a chunk's tokens and text to the generation."""
    if generation.prompt_token_ids is None and chunk.get("prompt_token_ids"):
        generation.prompt_token_ids = chunk["prompt_token_ids"]
    if chunk.get("usage"):
        generation.usage = chunk["usage"]
    for part in chunk["choices"]:
        choice = generation.choices[part["index"]]
        if token_ids := part.get("token_ids"):
            choice.token_ids += token_ids
            generation.first = generation.first or choice
            generation.latest = choice
            generation.token_came()
        if generation.request.route == "chat":
            _take_in_delta(choice, part, told=generation.request.logprobs)
        else:
            _take_in_text(generation, choice, part)
        if part.get("finish_reason"):
            choice.finish_reason = part["finish_reason"]


def _take_in_delta(choice: Choice, part: dict[str, Any], *, told: bool) -> None:
    """A piece of a chat's answer; `told`: the client wants to know the log-probs."""
    if logprobs := part.get("logprobs"):
        choice.logprobs += [item["logprob"] for item in logprobs["content"]]
        if told:
            choice.logprobs_content += logprobs["content"]
    delta = part["delta"]
    if text := delta.get("content"):
        choice.text.append(text)
    if reasoning := delta.get("reasoning"):
        choice.reasoning.append(reasoning)
    for call in delta.get("tool_calls") or ():
        _take_in_call(choice.tool_calls, call)


def _take_in_text(generation: Generation, choice: Choice, part: dict[str, Any]) -> None:
    """A piece of a text; the prompt's tokens stand beside the first of each answer."""
    if generation.prompt_token_ids is None and part.get("prompt_token_ids"):
        generation.prompt_token_ids = part["prompt_token_ids"]
    if logprobs := part.get("logprobs"):
        choice.logprobs += logprobs["token_logprobs"]
        if generation.request.logprobs:
            choice.logprobs_content.append(logprobs)
    if part["text"]:
        choice.text.append(part["text"])


def _take_in_call(calls: dict[int, dict[str, Any]], delta: dict[str, Any]) -> None:
    """OpenAI sends a call's id and name once and its arguments in pieces."""
    empty = {"id": "", "type": "function", "function": {"name": "", "arguments": ""}}
    call = calls.setdefault(delta.get("index", 0), empty)
    call["id"] = delta.get("id") or call["id"]
    function = delta.get("function") or {}
    call["function"]["name"] = function.get("name") or call["function"]["name"]
    call["function"]["arguments"] += function.get("arguments") or ""
