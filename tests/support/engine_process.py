"""An engine as a process: vLLM's routes on a unix socket, words of the tiny world drawn at random.

    python -m tests.support.engine_process SOCKET

Every word is as likely as any other, which is what a policy with random weights thinks, too; so the log-probabilities
are true ones for a trainer to learn from. Weights are loaded and probed as `fake_engine` does it.
"""

import asyncio
import json
import math
import random
import sys
from pathlib import Path
from typing import Any

from aiohttp import web

from rlhf_online.process import die_with_parent
from rlhf_online.simulation.world import SPECIALS, VOCABULARY
from tests.support.fake_engine import FakeEngine

BOS, EOS, ANSWER = 1, 2, 3
LOGPROB = -math.log(len(VOCABULARY))
TOKEN_S = 0.01


class RandomEngine:
    """The routes that answer, around the control routes of a `FakeEngine`."""

    def __init__(self) -> None:
        self.control = FakeEngine()
        self._rng = random.Random(0)

    def app(self) -> web.Application:
        app = web.Application(client_max_size=16 << 20)
        app.add_routes(
            [
                web.post("/pause", self.control.pause),
                web.post("/resume", self.control.resume),
                web.post("/reset_prefix_cache", self.control.reset),
                web.post("/update_weight_version", self.control.name),
                web.post("/collective_rpc", self.control.rpc),
                web.get("/health", self.control.health),
                web.get("/v1/models", self.control.models),
                web.post("/v1/chat/completions", self.chat),
                web.post("/v1/completions", self.completions),
            ]
        )
        return app

    async def chat(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        head = {"id": "chatcmpl-engine", "object": "chat.completion.chunk", "created": 1, "model": body["model"]}

        async def send(choices: list[dict[str, Any]], **more: Any) -> None:
            await response.write(f"data: {json.dumps({**head, 'choices': choices, **more})}\n\n".encode())

        words = [VOCABULARY.index(word) for word in body["messages"][-1]["content"].split()]
        answers = [self._answer(body["max_tokens"]) for _ in range(body["n"])]
        for index in range(body["n"]):
            opening = {"index": index, "delta": {"role": "assistant", "content": ""}, "logprobs": None}
            await send([opening | {"finish_reason": None}], prompt_token_ids=[BOS, *words, ANSWER])
        for position in range(body["max_tokens"]):
            await asyncio.sleep(TOKEN_S)
            for index, tokens in enumerate(answers):
                if position < len(tokens):
                    await send([_choice(index, tokens, position)])
        await send([], usage={"prompt_tokens": len(words) + 2, "completion_tokens": sum(map(len, answers))})
        await response.write(b"data: [DONE]\n\n")
        return response

    async def completions(self, request: web.Request) -> web.Response:
        body = await request.json()
        choices = []
        for index in range(len(body["prompt"]) * body["n"]):
            tokens = self._answer(body["max_tokens"])
            choices.append(
                {
                    "index": index,
                    "text": _text(tokens),
                    "logprobs": {"token_logprobs": [LOGPROB] * len(tokens)},
                    "finish_reason": _finish_reason(tokens),
                    "token_ids": tokens,
                }
            )
        return web.json_response({"choices": choices, "usage": {}})

    def _answer(self, max_tokens: int) -> list[int]:
        """Up to `max_tokens` token ids, with the end mark if there is room for it."""
        words = self._rng.choices(range(len(SPECIALS), len(VOCABULARY)), k=self._rng.randint(1, max_tokens))
        return [*words, EOS][:max_tokens]


def _choice(index: int, tokens: list[int], position: int) -> dict[str, Any]:
    """The chunk of one token."""
    text = ("" if position == 0 else " ") + _text(tokens[position : position + 1])
    content = [{"token": text, "logprob": LOGPROB, "bytes": None, "top_logprobs": []}]
    return {
        "index": index,
        "delta": {"content": text},
        "logprobs": {"content": content},
        "finish_reason": _finish_reason(tokens) if position == len(tokens) - 1 else None,
        "token_ids": tokens[position : position + 1],
    }


def _text(tokens: list[int]) -> str:
    return " ".join(VOCABULARY[token] for token in tokens if token != EOS)


def _finish_reason(tokens: list[int]) -> str:
    return "stop" if tokens[-1] == EOS else "length"


async def serve(socket: Path) -> None:
    """Until the process is ended."""
    runner = web.AppRunner(RandomEngine().app(), handler_cancellation=True)
    await runner.setup()
    await web.UnixSite(runner, str(socket)).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    die_with_parent()
    asyncio.run(serve(Path(sys.argv[1])))
