"""The engine's side of a conversation: one streamed request to vLLM, read chunk by chunk into the generation.

Every request is streamed, whatever the client asked for, and token by token: only so is it known how many had been
written when the weights changed. (vLLM's `stream_interval` would hold tokens back; it saves 2 % of an answer's CPU.)
"""

import io
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import orjson

from rlhf_online import sse
from rlhf_online.errors import EngineUnavailable
from services.chat.api_error import ApiError
from services.chat.host import Host
from services.chat.in_flight import Generation, InFlight

JSON_HEADERS = {"Content-Type": "application/json"}
NO_TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=10.0)  # a swap may hold an answer for long
Chunk = dict[str, Any]


async def post(host: Host, path: str, body: dict[str, Any]) -> aiohttp.ClientResponse:
    """The engine's answer, its headers read. Raises EngineUnavailable, or ApiError for what the engine refuses."""
    client = host.client
    try:
        data = orjson.dumps(body)
    except orjson.JSONEncodeError as error:  # orjson writes fewer levels than it reads
        message = "an object of the request is nested too deeply: at most some 250 levels are taken"
        raise ApiError(message, code="nested_too_deeply") from error
    try:
        response = await client.session.post(
            f"{client.base}{path}", data=io.BytesIO(data), headers=JSON_HEADERS, timeout=NO_TIMEOUT
        )
        if response.status == 200:
            return response
        async with response:
            raise engine_error(response.status, await response.read())
    except (aiohttp.ClientError, OSError) as error:
        raise EngineUnavailable(f"the engine does not answer ({type(error).__name__}); try again") from error


async def send(host: Host, generation: Generation) -> None:
    """Send the generation's request; `generation.response` is then to be read with `chunks`."""
    body = generation.request.upstream | {
        "model": host.model_name,
        "stream": True,
        "stream_options": {"include_usage": True},
        "return_token_ids": True,
    }
    generation.waiting = True
    generation.response = await post(host, "/v1/chat/completions", body)


async def chunks(generation: Generation, flight: InFlight) -> AsyncIterator[list[Chunk]]:
    """The engine's chunks, as many at a time as arrived together; the generation has taken them in.

    Raises EngineUnavailable if the engine ends before its last chunk, and ApiError for an error that it sends.
    """
    assert generation.response is not None, "send comes first"
    content = generation.response.content
    parser = sse.EventParser()
    done = False
    while not done:
        generation.waiting = True
        try:
            data = await content.readany()
        except (aiohttp.ClientError, OSError) as error:
            raise EngineUnavailable(f"the engine ended in the middle of an answer ({type(error).__name__})") from error
        generation.waiting = False
        flight.activity += 1
        if not data:
            raise EngineUnavailable("the engine ended in the middle of an answer")
        arrived = []
        for event in parser.feed(data):
            if event == sse.DONE:
                done = True
            else:
                chunk = orjson.loads(event)
                take_in(generation, chunk)
                arrived.append(chunk)
        if arrived:
            yield arrived
    if not generation.finished:
        raise EngineUnavailable("the engine ended an answer without saying why")


def take_in(generation: Generation, chunk: Chunk) -> None:
    """Add a chunk's tokens and text to the generation. Raises what an error chunk says."""
    if "error" in chunk:
        code = chunk["error"].get("code")
        raise engine_error(code if isinstance(code, int) else 500, orjson.dumps(chunk))
    if generation.prompt_token_ids is None and chunk.get("prompt_token_ids"):
        generation.prompt_token_ids = chunk["prompt_token_ids"]
    if chunk.get("usage"):
        generation.usage = chunk["usage"]
    for part in chunk["choices"]:
        choice = generation.choices[part["index"]]
        if token_ids := part.get("token_ids"):
            choice.token_ids += token_ids
        if logprobs := part.get("logprobs"):
            choice.logprobs += [item["logprob"] for item in logprobs["content"]]
            if generation.request.logprobs:
                choice.logprobs_content += logprobs["content"]
        delta = part["delta"]
        if text := delta.get("content"):
            choice.text.append(text)
        for call in delta.get("tool_calls") or ():
            _take_in_call(choice.tool_calls, call)
        if part.get("finish_reason"):
            choice.finish_reason = part["finish_reason"]


def _take_in_call(calls: dict[int, dict[str, Any]], delta: dict[str, Any]) -> None:
    """OpenAI sends a call's id and name once and its arguments in pieces."""
    empty = {"id": "", "type": "function", "function": {"name": "", "arguments": ""}}
    call = calls.setdefault(delta.get("index", 0), empty)
    call["id"] = delta.get("id") or call["id"]
    function = delta.get("function") or {}
    call["function"]["name"] = function.get("name") or call["function"]["name"]
    call["function"]["arguments"] += function.get("arguments") or ""


def engine_error(status: int, body: bytes) -> ApiError | EngineUnavailable:
    """What the engine's error means: the client's mistake (4xx), or a broken engine."""
    try:
        values = orjson.loads(body)
        error = values.get("error", values)
        message, param = error.get("message"), error.get("param")
    except (orjson.JSONDecodeError, AttributeError):
        message, param = None, None
    if status in (400, 413, 422):
        return ApiError(message or "the engine refused the request", param=param, code="engine_refused")
    if status in (404, 408, 409, 429):  # between two versions' names, or short of room: passes
        return EngineUnavailable(f"the engine answered {status}; try again")
    return EngineUnavailable(f"the engine failed (HTTP {status}); try again")
