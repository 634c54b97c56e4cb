"""A fake vLLM as a process that writes words of the tiny world, drawn at random.

    python -m tests.support.engine_process SOCKET

Every word is as likely as any other, which is what a policy with random weights thinks, too; so the log-probs are true
ones for a trainer to learn from.
"""

import asyncio
import math
import random
import sys
from pathlib import Path
from typing import Any

from rlhf_online.process import die_with_parent
from rlhf_online.simulation.world import SPECIALS, VOCABULARY
from tests.support.fake_generation import Token
from tests.support.fake_vllm import FakeVllm

BOS, EOS, ANSWER = 1, 2, 3


class RandomWords:
    """Answers of random length, with the end mark if there is room for it."""

    eos = EOS
    logprob = -math.log(len(VOCABULARY))
    token_s = 0.01

    def __init__(self) -> None:
        self._rng = random.Random(0)

    def prompt_ids(self, body: dict[str, Any]) -> list[int]:
        return [BOS, *map(VOCABULARY.index, body["messages"][-1]["content"].split()), ANSWER]

    def draw(self, max_tokens: int) -> list[Token]:
        words = self._rng.choices(range(len(SPECIALS), len(VOCABULARY)), k=self._rng.randint(1, max_tokens))
        texts = [VOCABULARY[words[0]], *(f" {VOCABULARY[word]}" for word in words[1:])]
        return [*zip(words, texts, strict=True), (EOS, "")][:max_tokens]


async def serve(socket: Path) -> None:
    """Until the process is ended."""
    engine = FakeVllm(RandomWords())
    await engine.start(socket)
    await asyncio.Event().wait()


if __name__ == "__main__":
    die_with_parent()
    asyncio.run(serve(Path(sys.argv[1])))
