"""The engine's side of a conversation: one streamed request to vLLM, read chunk by chunk into the generation.

Every request is streamed, whatever the client asked for, and token by token: only so is it known how many had been
written when the weights changed. (vLLM's `stream_interval` would hold tokens back; it saves 2 % of an answer's CPU.)
"""

import io
from typing import Any

import aiohttp
import orjson

from rlhf_online import sse
from rlhf_online.errors import EngineUnavailable, RlhfError
from services.chat.access.limits import TooLate, Visit
from services.chat.bodies.api_error import nested_too_deeply
from services.chat.completions.engine import Engine
from services.chat.completions.engine_errors import engine_error
from services.chat.completions.in_flight import Choice, Generation, InFlight

JSON_HEADERS = {"Content-Type": "application/json"}
CONNECT_S = 10.0
Chunk = dict[str, Any]
PATHS = {"chat": "/v1/chat/completions", "text": "/v1/completions"}
PROMPTS = {"chat": "messages", "text": "prompt"}
"""The request's field that becomes the prompt."""


async def post(
    engine: Engine,
    path: str,
    body: dict[str, Any],
    constraint: str = "",
    prompt: str = "prompts",
    visit: Visit | None = None,
) -> aiohttp.ClientResponse:
    """The engine's answer, its headers read. Raises EngineUnavailable, or ApiError for what the engine refuses.

    With a `visit` the answer, to its last byte, may take what is left of that; then TooLate. (A swap may hold it for
    long: without one there is no limit.) See `engine_error` for `constraint` and `prompt`.
    """
    client = engine.client
    try:
        data = orjson.dumps(body)
    except orjson.JSONEncodeError as error:
        raise nested_too_deeply() from error
    timeout = aiohttp.ClientTimeout(total=visit and visit.left_s(), sock_connect=CONNECT_S)
    try:
        response = await client.session.post(
            f"{client.base}{path}", data=io.BytesIO(data), headers=JSON_HEADERS, timeout=timeout
        )
        if response.status == 200:
            return response
        async with response:
            raise await engine_error(engine, response.status, await response.read(), constraint, prompt)
    except (aiohttp.ClientError, OSError) as error:
        raise _lost(error, f"the engine does not answer ({type(error).__name__}); try again", visit) from error


def _lost(error: Exception, message: str, visit: Visit | None) -> RlhfError:
    """What it means that the engine's connection gave no more: its loss, or the end of the time for the answer."""
    if visit is not None and isinstance(error, TimeoutError) and not isinstance(error, aiohttp.ClientError):
        return TooLate(visit.allowed_s)
    return EngineUnavailable(message)


async def send(engine: Engine, generation: Generation) -> None:
    """Send the generation's request; its answers are then to be read with `more`."""
    body = generation.request.upstream | {
        "model": generation.model,
        "stream": True,
        "stream_options": {"include_usage": True},
        "return_token_ids": True,
    }
    generation.waiting = True
    request = generation.request
    path, prompt = PATHS[request.route], PROMPTS[request.route]
    generation.response = await post(engine, path, body, request.constraint, prompt, generation.visit)


async def more(engine: Engine, generation: Generation, flight: InFlight) -> list[Chunk]:
    """The engine's next chunks, as many as arrived together, which the generation has taken in; none at the end.

    Raises EngineUnavailable if the engine ends before its last chunk, ApiError for an error that it sends, and TooLate
    when the time for the answer is over.
    """
    assert generation.response is not None, "send comes first"
    if generation.failure is not None:
        raise generation.failure
    arrived: list[Chunk] = []
    while not arrived and not generation.ended:
        generation.waiting = True
        try:
            data = await generation.response.content.readany()
        except (aiohttp.ClientError, OSError) as error:
            message = f"the engine ended in the middle of an answer ({type(error).__name__})"
            raise _lost(error, message, generation.visit) from error
        generation.waiting = False
        flight.activity += 1
        if not data:
            raise EngineUnavailable("the engine ended in the middle of an answer")
        for event in generation.events.feed(data):
            if event == sse.DONE:
                generation.ended = True
                continue
            chunk = orjson.loads(event)
            if "error" in chunk:
                code = chunk["error"].get("code")
                status = code if isinstance(code, int) else 500
                request = generation.request
                generation.failure = await engine_error(
                    engine, status, event, request.constraint, PROMPTS[request.route]
                )
                if not arrived:
                    raise generation.failure
                return arrived
            take_in(generation, chunk)
            arrived.append(chunk)
    if not arrived and not generation.finished:
        raise EngineUnavailable("the engine ended an answer without saying why")
    return arrived


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
