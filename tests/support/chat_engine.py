"""A hand-written engine with the chat routes of vLLM, and a host around it, for tests of the chat service.

Answers come from `plan`: (token id, text) per token. Every token waits for the gate, which a test opens token by token
(`allow`) or for good. Chunks look as vLLM 0.32 writes them; log-probabilities tell which version wrote a
token: -1 for the first version, -2 for the second, and so on.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from rlhf_online.versions.manifest import Change

PROMPT = [1, 2, 3]
EOS = 9
Sender = Callable[[dict[str, Any]], Awaitable[None]]


@dataclass
class FakeSwap:
    ok: bool
    pause_s: float


class ChatEngine:
    """vLLM's routes on a unix socket. `requests` keeps the bodies that it was sent."""

    def __init__(self) -> None:
        self.plan: list[tuple[int, str]] = [(11, "hello"), (12, " there"), (EOS, "")]
        self.requests: list[dict[str, Any]] = []
        self.asked = asyncio.Event()
        self.aborted = asyncio.Event()
        self.refuse: tuple[int, dict[str, Any]] | None = None
        self.die_after: int | None = None
        self.error_after: int | None = None
        self.version = 0
        self.written = 0
        self._budget: float = float("inf")
        self._turn = asyncio.Condition()
        self._paused = False
        self._runner: web.AppRunner | None = None

    async def start(self, socket: Path) -> None:
        app = web.Application()
        app.router.add_get("/health", self._health)
        app.router.add_post("/v1/chat/completions", self._chat)
        app.router.add_post("/v1/completions", self._completions)
        app.router.add_get("/v1/models", self._models)
        app.router.add_post("/update_weight_version", self._name)
        self._runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.UnixSite(self._runner, str(socket)).start()

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def hold(self) -> None:
        """From now on tokens wait for `allow`."""
        self._budget = self.written

    async def allow(self, tokens: int) -> None:
        """Let so many more tokens be written, and wait until they are."""
        async with self._turn:
            self._budget += tokens
            target = self._budget
            self._turn.notify_all()
            await self._turn.wait_for(lambda: self.written >= target)

    async def release(self) -> None:
        """Write without waiting."""
        async with self._turn:
            self._budget = float("inf")
            self._turn.notify_all()

    async def pause(self) -> None:
        self._paused = True

    async def resume(self, version: int) -> None:
        async with self._turn:
            self.version, self._paused = version, False
            self._turn.notify_all()

    async def _write(self) -> float:
        """Wait for the turn to write a token; returns its log-probability."""
        async with self._turn:
            await self._turn.wait_for(lambda: not self._paused and self.written < self._budget)
            self.written += 1
            self._turn.notify_all()
            return -1.0 - self.version

    async def _health(self, request: web.Request) -> web.Response:
        return web.Response()

    async def _models(self, request: web.Request) -> web.Response:
        return web.json_response({"data": [{"id": "base"}]})

    async def _name(self, request: web.Request) -> web.Response:
        return web.json_response({"success": True})

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.requests.append(body)
        self.asked.set()
        if self.refuse is not None:
            return web.json_response(self.refuse[1], status=self.refuse[0])
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        head = {"id": "chatcmpl-engine", "object": "chat.completion.chunk", "created": 1, "model": body["model"]}

        async def send(values: dict[str, Any]) -> None:
            await response.write(f"data: {json.dumps({**head, **values})}\n\n".encode())

        try:
            await self._answer(request, body, send)
        except (asyncio.CancelledError, ConnectionResetError):
            self.aborted.set()
            raise
        await response.write(b"data: [DONE]\n\n")
        return response

    async def _answer(self, request: web.Request, body: dict[str, Any], send: Sender) -> None:
        n, plan = body["n"], self.plan[: body["max_tokens"]]
        for position, (token, text) in enumerate(plan):
            for index in range(n):
                logprob = await self._write()
                if position == index == 0:
                    await _open(n, send)
                last = position == len(plan) - 1
                finish = ("stop" if token == EOS else "length") if last else None
                await send({"choices": [_choice(index, token, text, logprob, finish)]})
            if self.die_after == position + 1:
                self.die_after = None
                assert request.transport is not None
                request.transport.abort()
                raise ConnectionResetError
            if self.error_after == position + 1:
                error = {"message": "Internal server error", "type": "InternalServerError", "param": None, "code": 500}
                await send({"error": error})
                return
        usage = {"prompt_tokens": len(PROMPT), "completion_tokens": n * len(plan)}
        await send({"choices": [], "usage": {**usage, "total_tokens": sum(usage.values())}})

    async def _completions(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.requests.append(body)
        choices = []
        n = body.get("n", 1)
        for index in range(len(body["prompt"]) * n):
            logprobs = [await self._write() for _ in self.plan]
            likely = [{f"token_id:{token}": logprob} for (token, _), logprob in zip(self.plan, logprobs, strict=True)]
            choices.append(
                {
                    "index": index,
                    "text": "".join(text for _, text in self.plan),
                    "logprobs": {
                        "token_logprobs": logprobs,
                        "tokens": [text for _, text in self.plan],
                        "top_logprobs": likely,
                    },
                    "finish_reason": "stop",
                    "token_ids": [token for token, _ in self.plan],
                    "prompt_token_ids": body["prompt"][index // n],
                }
            )
        return web.json_response({"choices": choices[::-1], "usage": {}})


async def _open(n: int, send: Sender) -> None:
    """Each answer's first chunk: the role, no token, and the prompt's ids."""
    for index in range(n):
        delta = {"role": "assistant", "content": ""}
        choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": None}
        await send({"choices": [choice], "prompt_token_ids": PROMPT, "prompt_text": None})


def _choice(index: int, token: int, text: str, logprob: float, finish_reason: str | None) -> dict[str, Any]:
    content = [{"token": text, "logprob": logprob, "bytes": None, "top_logprobs": []}]
    choice = {
        "index": index,
        "delta": {"content": text},
        "logprobs": {"content": content},
        "finish_reason": finish_reason,
        "token_ids": [token],
    }
    return choice if finish_reason is None else {**choice, "stop_reason": None}


class ChatClient:
    """The way to the fake engine."""

    def __init__(self, socket: Path) -> None:
        self.base = "http://engine"
        self.session = aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(socket), limit=0))

    async def health(self) -> bool:
        async with self.session.get(f"{self.base}/health") as response:
            return response.status == 200


@dataclass
class ChatHost:
    """`services.chat.host.Host` without a process. `swap` is what EngineHost does around a swap."""

    engine: ChatEngine
    client: ChatClient
    state: str = "ready"
    failure: str = ""
    serving: str = "policy-000000"
    model_name: str = "base"
    restarts: int = 0
    swaps: list[FakeSwap] = field(default_factory=list)
    on_pause: list[Callable[[str, str], Awaitable[None]]] = field(default_factory=list)
    on_restore: list[Callable[[str, str], Awaitable[None]]] = field(default_factory=list)
    on_change: list[Callable[[Change], Awaitable[None]]] = field(default_factory=list)
    while_paused: Callable[[], Awaitable[None]] | None = None

    async def swap(self, new: str, *, ok: bool = True) -> None:
        """Pause, mark, load (`while_paused` happens here), resume on the new or on the old weights."""
        old = self.serving
        await self.engine.pause()
        for listener in self.on_pause:
            await listener(old, new)
        if self.while_paused is not None:
            await self.while_paused()
        if not ok:
            for listener in self.on_restore:
                await listener(old, new)
        await self.engine.resume(self.engine.version + ok)
        self.swaps.append(FakeSwap(ok=ok, pause_s=0.25))
        if ok:
            self.serving = new
        for listener in self.on_change:
            await listener(Change(version=new, state="live" if ok else "failed", previous=old))

    async def restart(self) -> None:
        """The engine ended and is back."""
        self.state = "restarting"
        await asyncio.sleep(0)
        self.restarts += 1
        self.state = "ready"
