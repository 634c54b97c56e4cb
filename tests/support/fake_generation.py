"""The half of a fake vLLM that writes: its chat and completions routes, and the gate at which every token waits.

What is written is up to `Answers`. After `hold`, a test opens the gate token by token (`allow`) or for good
(`release`). Chunks look as vLLM 0.32 writes them. Log-probs tell which version wrote a token: one less for each version
after the first.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from aiohttp import web

from tests.support.vllm_errors import AFTER_ROLE, NO_BASE_CASE, Refusal

PROMPT = [1, 2, 3]
EOS = 9
Token = tuple[int, str]
"""A token's id and its text."""


class Answers(Protocol):
    """What the engine writes, and how it renders a chat request's conversation.

    `eos` ends an answer; `logprob` is every token's under the first version; `token_s` is what a step takes.
    """

    eos: int
    logprob: float
    token_s: float

    def prompt_ids(self, body: dict[str, Any]) -> list[int]: ...

    def draw(self, max_tokens: int) -> Sequence[Token]: ...


@dataclass
class Same:
    """The same answer to everything."""

    tokens: Sequence[Token] = ((11, "hello"), (12, " there"), (EOS, ""))
    eos: int = EOS
    logprob: float = -1.0
    token_s: float = 0.0

    def prompt_ids(self, body: dict[str, Any]) -> list[int]:
        return PROMPT

    def draw(self, max_tokens: int) -> Sequence[Token]:
        return self.tokens[:max_tokens]


class FakeGeneration:
    """`requests` are the bodies that asked for answers; `asked` is set by the first, `aborted` by a client that left.
    `version` counts the versions after the first.

    Faults, all of the chat route: `refuse` is for whoever asks; `die_after` breaks one stream off after so many tokens
    of each answer, `error_after` ends each with vLLM's error event; one that is `silent` sends not even headers.
    """

    def __init__(self, answers: Answers | None = None) -> None:
        self.answers: Answers = answers or Same()
        self.requests: list[dict[str, Any]] = []
        self.headers: dict[str, str] = {}
        self.asked = asyncio.Event()
        self.aborted = asyncio.Event()
        self.refuse: Refusal | None = None
        self.die_after: int | None = None
        self.error_after: int | None = None
        self.silent = False
        self.version = 0
        self._written = 0
        self._budget = float("inf")
        self._turn = asyncio.Condition()
        self._paused = False

    async def hold(self) -> None:
        """From now on tokens wait for `allow`."""
        self._budget = self._written

    async def allow(self, tokens: int) -> None:
        """Let so many more tokens be written, and wait until they are."""
        async with self._turn:
            self._budget += tokens
            target = self._budget
            self._turn.notify_all()
            await self._turn.wait_for(lambda: self._written >= target)

    async def release(self) -> None:
        """Write without waiting."""
        async with self._turn:
            self._budget = float("inf")
            self._turn.notify_all()

    async def pause(self) -> None:
        """Keep the requests, and write nothing more for them."""
        self._paused = True

    async def resume(self) -> None:
        async with self._turn:
            self._paused = False
            self._turn.notify_all()

    async def chat(self, request: web.Request) -> web.StreamResponse:
        return await self._stream(request, await request.json(), _same)

    async def text(self, request: web.Request) -> web.StreamResponse:
        """A text that goes on: the chat's chunks in the older API's form."""
        return await self._stream(request, await request.json(), _as_text)

    async def _stream(
        self, request: web.Request, body: dict[str, Any], form: Callable[[dict[str, Any]], dict[str, Any] | None]
    ) -> web.StreamResponse:
        self.requests.append(body)
        self.headers = {name.lower(): value for name, value in request.headers.items()}
        self.asked.set()
        if self.refuse is not None and isinstance(self.refuse.where, int):
            return web.json_response(self.refuse.body(), status=self.refuse.where)
        if self.silent:
            await asyncio.Event().wait()
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        head = {"id": "chatcmpl-engine", "object": "chat.completion.chunk", "created": 1, "model": body["model"]}
        try:
            async for chat in self._chunks(request, body):
                if (values := form(chat)) is None:
                    continue
                await response.write(f"data: {json.dumps({**head, **values})}\n\n".encode())
        except (asyncio.CancelledError, ConnectionResetError):
            self.aborted.set()
            raise
        await response.write(b"data: [DONE]\n\n")
        return response

    async def completions(self, request: web.Request) -> web.Response:
        """Rollouts: the choices come in another order than asked for."""
        body = await request.json()
        self.requests.append(body)
        choices = []
        for index in range(len(body["prompt"]) * body["n"]):
            tokens = self.answers.draw(body["max_tokens"])
            choices.append(
                {
                    "index": index,
                    "text": "".join(text for _, text in tokens),
                    "logprobs": {"token_logprobs": [await self._write() for _ in tokens]},
                    "finish_reason": self._finish_reason(tokens),
                    "token_ids": [token for token, _ in tokens],
                }
            )
        return web.json_response({"choices": choices[::-1], "usage": {}})

    async def _chunks(self, request: web.Request, body: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
        """What a stream says; the roles come with the first token, as they do from vLLM."""
        prompt_ids = self.answers.prompt_ids(body)
        if self.refuse is not None:
            if self.refuse.where == AFTER_ROLE:
                yield _opening(0, prompt_ids)
            yield self.refuse.body()
            return
        answers = [self.answers.draw(body["max_tokens"]) for _ in range(body["n"])]
        for position in range(max(map(len, answers))):
            await asyncio.sleep(self.answers.token_s)
            for index, tokens in enumerate(answers):
                if position < len(tokens):
                    logprob = await self._write()
                    if position == index == 0:
                        for each in range(len(answers)):
                            yield _opening(each, prompt_ids)
                    finish_reason = self._finish_reason(tokens) if position == len(tokens) - 1 else None
                    yield {"choices": [_choice(body, index, tokens[position], logprob, finish_reason, position)]}
            if self.die_after == position + 1:
                self.die_after = None
                assert request.transport is not None
                request.transport.abort()
                raise ConnectionResetError
            if self.error_after == position + 1:
                yield NO_BASE_CASE.body()
                return
        usage = {"prompt_tokens": len(prompt_ids), "completion_tokens": sum(map(len, answers))}
        yield {"choices": [], "usage": {**usage, "total_tokens": sum(usage.values())}}

    async def _write(self) -> float:
        """Wait for the turn to write a token; returns its log-prob."""
        async with self._turn:
            await self._turn.wait_for(lambda: not self._paused and self._written < self._budget)
            self._written += 1
            self._turn.notify_all()
            return self.answers.logprob - self.version

    def _finish_reason(self, tokens: Sequence[Token]) -> str:
        return "stop" if tokens[-1][0] == self.answers.eos else "length"


def _same(chunk: dict[str, Any]) -> dict[str, Any]:
    return chunk


def _as_text(chunk: dict[str, Any]) -> dict[str, Any] | None:
    """The prompt's ids come with the first piece of each answer, and no piece says a role."""
    if not chunk.get("choices"):
        return chunk
    [part] = chunk["choices"]
    if "role" in part["delta"]:
        return None
    said = part["logprobs"]["content"]
    told = {
        "tokens": [item["token"] for item in said],
        "token_logprobs": [item["logprob"] for item in said],
        "top_logprobs": [{other["token"]: other["logprob"] for other in item["top_logprobs"]} for item in said],
        "text_offset": [0 for _ in said],
    }
    prompt = {"prompt_token_ids": PROMPT}
    choice = {**part, "text": part["delta"]["content"], "logprobs": told, **prompt}
    del choice["delta"]
    return {"choices": [choice]}


def _opening(index: int, prompt_ids: list[int]) -> dict[str, Any]:
    """An answer's first chunk: the role, no token, and the prompt's ids."""
    delta = {"role": "assistant", "content": ""}
    choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": None}
    return {"choices": [choice], "prompt_token_ids": prompt_ids, "prompt_text": None}


def _choice(
    body: dict[str, Any], index: int, token: Token, logprob: float, finish_reason: str | None, position: int
) -> dict[str, Any]:
    """A token's chunk. Where a call is required, the text is its arguments; where it is to think, a thought first."""
    token_id, text = token
    thinks = body.get("reasoning_effort") and position == 0
    delta: dict[str, Any] = {"reasoning": text} if thinks else {"content": text}
    if body.get("tool_choice") == "required":
        opening = {"id": f"call-{index}", "type": "function"} if position == 0 else {}
        name = {"name": body["tools"][0]["function"]["name"]} if position == 0 else {}
        delta = {"tool_calls": [{"index": 0, **opening, "function": {**name, "arguments": text}}]}
        finish_reason = finish_reason and "tool_calls"
    choice = {
        "index": index,
        "delta": delta,
        "logprobs": {"content": [_logprob(text, logprob, body.get("top_logprobs", 0))]},
        "finish_reason": finish_reason,
        "token_ids": [token_id],
    }
    return choice if finish_reason is None else {**choice, "stop_reason": None}


def _logprob(text: str, logprob: float, others: int = 0) -> dict[str, Any]:
    top = [_logprob(f"other {rank}", logprob - rank) for rank in range(others)]
    return {"token": text, "logprob": logprob, "bytes": list(text.encode()), "top_logprobs": top}
