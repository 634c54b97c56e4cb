"""The public chat API, pretended: answers from a list, versions set by the test, failures on demand, votes kept."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web


@dataclass
class FakeApi:
    """`answers` are given in turn; the next `fail` requests of a path get its status, or no reply at all for 0."""

    version: str = "policy-000000"
    answers: tuple[str, ...] = ("yes", "no", "sure yes", "zinc iron")
    fail: dict[str, list[int]] = field(default_factory=dict)
    chats: list[dict[str, Any]] = field(default_factory=list)
    votes: list[dict[str, Any]] = field(default_factory=list)
    url: str = ""
    broken_stream: bool = False
    _turn: int = 0

    def application(self) -> web.Application:
        application = web.Application()
        application.router.add_post("/v1/chat/completions", self.chat)
        application.router.add_post("/v1/feedback", self.feedback)
        return application

    async def chat(self, request: web.Request) -> web.StreamResponse:
        if refused := self._refused(request):
            return refused
        body = await request.json()
        self.chats.append(body)
        answers = [self._answer() for _ in range(body["n"])]
        meta = {
            "completion_id": f"completion-{len(self.chats)}",
            "conversation_id": body.get("conversation_id") or f"conversation-{len(self.chats)}",
            "versions": [[{"policy_version": self.version, "first_token": 0}] for _ in answers],
            "logged": body.get("store", True),
        }
        if not body.get("stream"):
            choices = [
                {"index": index, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
                for index, text in enumerate(answers)
            ]
            return web.json_response({"choices": choices, "rlhf": meta})
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for word in answers[0].split():
            await self._event(response, {"choices": [{"index": 0, "delta": {"content": f" {word}"}}]})
        if not self.broken_stream:
            last = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}], "rlhf": meta}
            await self._event(response, last)
            await response.write(b"data: [DONE]\n\n")
        return response

    async def feedback(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.votes.append(body)
        if refused := self._refused(request):
            return refused
        key = f"event of {body['idempotency_key']}"
        return web.json_response({"event_id": key, "position": {"local": len(self.votes)}})

    async def _event(self, response: web.StreamResponse, chunk: dict[str, Any]) -> None:
        await response.write(f"data: {json.dumps(chunk)}\n\n".encode())

    def _refused(self, request: web.Request) -> web.Response | None:
        statuses = self.fail.get(request.path)
        if not statuses:
            return None
        if (status := statuses.pop(0)) == 0:
            assert request.transport is not None
            request.transport.close()
            status = 500
        return web.json_response({"error": {"message": "on demand"}}, status=status)

    def _answer(self) -> str:
        self._turn += 1
        return self.answers[self._turn % len(self.answers)]


@asynccontextmanager
async def serving(api: FakeApi) -> AsyncIterator[FakeApi]:
    """The API on a port of the system's choice."""
    runner = web.AppRunner(api.application())
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        api.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield api
    finally:
        await runner.cleanup()
