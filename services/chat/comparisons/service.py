"""Answers side by side: one request to the engine for each, all at once, in an order that chance decided.

    request ──▶ writers shuffled ──▶ a generation each ──▶ pieces, as they come ──▶ all logged ──▶ the last piece

Each answer is a completion of its own, also where one version writes all: so no id, index or field tells which were
written together. The order is that of the requests to the engine, too. Its events name the comparison and the slot.
If one of the answers cannot be had, there is no comparison.

While a canary is held beside the live version, two answers that name no versions are one by each: what people find
decides about it.
"""

import asyncio
import random
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from rlhf_online.config import ChatSettings
from rlhf_online.events import now_ms
from services.chat.access.caller import Caller
from services.chat.bodies.api_error import ApiError
from services.chat.bodies.validation import validate
from services.chat.comparisons.replies import Comparison, ComparisonPiece, ComparisonResult
from services.chat.comparisons.request import FEWEST, SAMPLED, CompareRequest
from services.chat.completions.chat_request import parse_chat
from services.chat.completions.gateway import Gateway
from services.chat.completions.in_flight import Generation
from services.chat.completions.sampling_request import GenerationRequest
from services.chat.completions.upstream import Chunk
from services.chat.feedback.comparisons import KnownComparisons

CHANCE = random.SystemRandom()
QUEUE = 64
"""Pieces that wait for a slow client before the engine's answers do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """A comparison that is being written: its answers, the one shown first first."""

    comparison_id: str
    created: int
    generations: Sequence[Generation]

    def reply(self) -> Comparison:
        return {
            "object": "comparison",
            "comparison_id": self.comparison_id,
            "created": self.created,
            "conversation_id": self.generations[0].conversation_id,
            "answers": [
                {
                    "answer": {"completion_id": generation.completion_id, "index": 0},
                    "text": "".join(generation.choices[0].text),
                    "reasoning": "".join(generation.choices[0].reasoning),
                    "finish_reason": generation.choices[0].finish_reason,
                }
                for generation in self.generations
            ],
            "logged": all(generation.logged for generation in self.generations),
        }


class Comparisons:
    """Where both HTTP and gRPC ask for comparisons."""

    def __init__(self, gateway: Gateway, known: KnownComparisons, settings: ChatSettings) -> None:
        self.gateway = gateway
        self.known = known
        self._settings = settings

    def parse(self, values: Mapping[str, Any]) -> CompareRequest:
        """Raises ApiError, also for a version that cannot be asked now."""
        request = validate(CompareRequest, values)
        for version in request.versions:
            if version not in (models := self.gateway.models()):
                message = f"versions: {version!r} cannot be asked now; those that can are {', '.join(models)}"
                raise ApiError(message, status=404, param="versions", code="model_not_found")
        return request

    async def whole(self, request: CompareRequest, values: Mapping[str, Any], caller: Caller) -> Comparison:
        """All answers, logged. Raises ApiError or EngineUnavailable."""
        comparison_id, created, asked = self._asked(request, values)
        answers = await _all_or_none([self.gateway.complete(one, caller) for one in asked], lambda generation: None)
        return Shown(comparison_id=comparison_id, created=created, generations=answers).reply()

    async def open(self, request: CompareRequest, values: Mapping[str, Any], caller: Caller) -> Shown:
        """Answers that have begun, for `pieces` and `end`. Raises ApiError or EngineUnavailable."""
        comparison_id, created, asked = self._asked(request, values)
        begun = await _all_or_none([self.gateway.open(one, caller) for one in asked], self.gateway.end)
        return Shown(comparison_id=comparison_id, created=created, generations=begun)

    async def pieces(self, shown: Shown) -> AsyncGenerator[ComparisonPiece, None]:
        """What the answers' clients are to see, as it comes, and the end. Raises ApiError or EngineUnavailable."""
        arrived: asyncio.Queue[tuple[int, list[Chunk]]] = asyncio.Queue(QUEUE)

        async def read(slot: int, generation: Generation) -> None:
            async for chunks in self.gateway.read(generation):
                await arrived.put((slot, chunks))
            await self.gateway.settle(generation)

        readers = [asyncio.create_task(read(slot, generation)) for slot, generation in enumerate(shown.generations)]
        ended = asyncio.gather(*readers)
        try:
            while not ended.done() or not arrived.empty():
                if arrived.empty():
                    some = asyncio.ensure_future(arrived.get())
                    await asyncio.wait((some, ended), return_when=asyncio.FIRST_COMPLETED)
                    if not some.done():
                        some.cancel()
                        continue
                    slot, chunks = some.result()
                else:
                    slot, chunks = arrived.get_nowait()
                for piece in _pieces(shown, slot, chunks):
                    yield piece
            ended.result()
        finally:
            for reader in readers:
                reader.cancel()
            await asyncio.wait(readers)
            ended.cancel()
        yield {"comparison_id": shown.comparison_id, "final": shown.reply()}

    def end(self, shown: Shown) -> None:
        """Let go of the answers, however it went; what the client received of unfinished ones is logged as aborted."""
        for generation in shown.generations:
            self.gateway.end(generation)

    def result(self, comparison_id: str, caller: Caller) -> ComparisonResult:
        """What was compared, and by whom it was written, if the caller has voted. Raises ApiError (404)."""
        found = self.known.get(comparison_id, caller.person)
        if found is None:
            message = f"comparison_id: you were shown no comparison {comparison_id!r}, or it is too long ago"
            raise ApiError(message, status=404, param="comparison_id", code="comparison_not_found")
        return {
            "comparison_id": found.comparison_id,
            "conversation_id": found.conversation_id,
            "answers": [
                {
                    "answer": {"completion_id": answer.ref.completion_id, "index": answer.ref.index},
                    "versions": list(answer.versions) if found.opened else [],
                }
                for answer in found.answers()
            ],
            "voted": found.opened,
            "tells": found.tells,
        }

    def _asked(self, request: CompareRequest, values: Mapping[str, Any]) -> tuple[str, int, list[GenerationRequest]]:
        """Id and time of a new comparison, and a request for each writer, in the order in which they are shown."""
        same = {name: values[name] for name in SAMPLED if name in values} | {"stream": request.stream}
        same["conversation_id"] = request.conversation_id or f"conv-{uuid.uuid4().hex}"
        writers, engine = request.writers, self.gateway.engine
        canary = engine.audience_canaries.get(request.profile) if request.profile else engine.canary
        if canary is not None and not request.versions and request.n == FEWEST:
            writers = [canary.live, canary.version]
            same.pop("profile", None)  # these are its versions
        seeds = [{} if request.seed is None else {"seed": request.seed + i} for i in range(len(writers))]
        requests = [
            parse_chat({**same, "model": model, **seed}, self._settings.limits, self._settings.engine)
            for model, seed in zip(writers, seeds, strict=True)
        ]
        CHANCE.shuffle(requests)
        comparison_id = f"comparison-{uuid.uuid4().hex}"
        placed = [replace(one, comparison_id=comparison_id, slot=slot) for slot, one in enumerate(requests)]
        return comparison_id, now_ms() // 1000, placed


async def _all_or_none(
    asked: Sequence[Awaitable[Generation]], let_go: Callable[[Generation], None]
) -> Sequence[Generation]:
    """All generations; if one cannot be had, or the client goes away, the others are let go of."""
    tasks = [asyncio.ensure_future(one) for one in asked]
    try:
        return await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        for task in tasks:
            if not task.cancelled() and task.exception() is None:
                let_go(task.result())
        raise


def _pieces(shown: Shown, slot: int, chunks: Sequence[Chunk]) -> list[ComparisonPiece]:
    """The engine's chunks without what tells who wrote them, those that say nothing left out."""
    pieces: list[ComparisonPiece] = []
    completion_id = shown.generations[slot].completion_id
    for part in (part for chunk in chunks for part in chunk["choices"]):
        delta = part["delta"]
        said = {
            "delta": delta.get("content"),
            "reasoning": delta.get("reasoning"),
            "finish_reason": part.get("finish_reason"),
        }
        if any(said.values()):
            piece = {"comparison_id": shown.comparison_id, "slot": slot, "completion_id": completion_id}
            pieces.append(ComparisonPiece(**piece, **{name: value for name, value in said.items() if value}))
    return pieces
