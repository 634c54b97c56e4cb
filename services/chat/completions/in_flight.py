"""Answers being written, and which version writes which of their tokens.

While the engine is paused for a swap, every token that the old weights wrote has left it. `boundary` waits until all of
them have been read here, then notes for each answer in flight: from this token on, the new version. The wait is causal,
not a matter of luck: the engine's server answers a health request only after it has handed out what it held before, and
then its connections must have stayed silent. An answer whose count cannot be trusted (its client reads so slowly that
tokens wait unread) keeps its versions, but its boundary is not exact, and its spans are logged as unknown.
"""

import asyncio
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from rlhf_online import sse, tracing
from rlhf_online.events import Answer, ToolCall, VersionSpan, now_ms
from services.chat.access.limits import Visit
from services.chat.completions.engine import Engine
from services.chat.completions.engine_connections import Reply
from services.chat.completions.sampling_request import UNNAMED, GenerationRequest

QUIET_S = 0.02
QUIET_LIMIT_S = 5.0
ROUND_TRIPS = 2
PREFIXES = {"chat": "chatcmpl", "text": "cmpl"}
"""Of ids, as OpenAI's."""


@dataclass(slots=True)
class Choice:
    """One answer as far as it has come. `spans_exact`: each boundary between versions is known to the token.

    `before_switch` is what spans and `spans_exact` were before the last switch, while that can still be undone.
    """

    index: int
    spans: tuple[VersionSpan, ...]
    spans_exact: bool = True
    text: list[str] = field(default_factory=list)
    reasoning: list[str] = field(default_factory=list)
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    logprobs_content: list[Any] = field(default_factory=list)
    tool_calls: dict[int, dict[str, Any]] = field(default_factory=dict)
    finish_reason: str = ""
    before_switch: tuple[tuple[VersionSpan, ...], bool] | None = None

    def switch_version(self, version: str, *, exact: bool) -> None:
        """From here on `version` writes; a version that wrote no token leaves no span."""
        self.before_switch = (self.spans, self.spans_exact)
        received = len(self.token_ids)
        kept = tuple(span for span in self.spans if span.first_token < received)
        self.spans = (*kept, VersionSpan(policy_version=version, first_token=received))
        self.spans_exact = self.spans_exact and exact

    def undo_switch(self, version: str) -> None:
        """The last switch did not happen: `version` goes on writing."""
        if self.before_switch is not None:
            self.spans, self.spans_exact = self.before_switch
            self.before_switch = None
        elif not self.token_ids:
            self.spans = (VersionSpan(policy_version=version, first_token=0),)

    def answer(self) -> Answer:
        """The answer for the log; without tokens if the engine did not tell each token's log-probability."""
        told = len(self.token_ids) == len(self.logprobs)
        return Answer(
            index=self.index,
            text="".join(self.text),
            token_ids=tuple(self.token_ids) if told else (),
            logprobs=tuple(self.logprobs) if told else (),
            spans=self.spans if self.spans_exact and told else (),
            finish_reason=self.finish_reason or "abort",
            reasoning="".join(self.reasoning),
            tool_calls=tuple(
                ToolCall(id=call["id"], name=call["function"]["name"], arguments=call["function"]["arguments"])
                for call in self.tool_calls.values()
            ),
        )


@dataclass(slots=True, eq=False)
class Generation:
    """A request that the engine works on: its response, the answers so far, times.

    `waiting` is true exactly while everything that arrived has been taken in and the engine's next bytes are awaited.
    `model` is the engine's name of the version that is asked. `first` and `latest` are the answers that the first token
    and the latest token so far are of; `longest_gap_s` is the longest time between two; `span` is that of the
    engine's work.
    Where it is `streamed`, `unread` are the chunks that arrived and were not read yet. `ended` is true once the engine
    has sent its last; `error` is what it sent instead.
    """

    request: GenerationRequest
    visit: Visit
    choices: list[Choice]
    started_ms: int
    started_s: float
    restarts: int
    conversation_id: str = ""
    completion_id: str = ""
    model: str = ""
    prompt_token_ids: list[int] | None = None
    usage: dict[str, Any] | None = None
    reply: Reply | None = None
    events: sse.EventParser = field(default_factory=sse.EventParser)
    streamed: bool = False
    unread: list[dict[str, Any]] = field(default_factory=list)
    unread_bytes: int = 0
    ended: bool = False
    error: bytes = b""
    waiting: bool = False
    settled: bool = False
    logged: bool = False
    first: Choice | None = None
    latest: Choice | None = None
    span: tracing.Span = tracing.NOTHING
    first_token_s: float = 0.0
    last_token_s: float = 0.0
    longest_gap_s: float = 0.0

    @property
    def version(self) -> str:
        """The version that wrote the end of the first answer."""
        return self.choices[0].spans[-1].policy_version

    @property
    def first_version(self) -> str:
        """The version that wrote the first token of all answers."""
        return (self.first or self.choices[0]).spans[0].policy_version

    @property
    def last_version(self) -> str:
        """The version that wrote the latest token of all answers."""
        return (self.latest or self.choices[0]).spans[-1].policy_version

    def elapsed_s(self) -> float:
        """Since the request arrived."""
        return asyncio.get_running_loop().time() - self.started_s

    def token_came(self) -> None:
        """Note the time, and how long the answers stood still before."""
        now = time.monotonic()
        if self.first_token_s:
            self.longest_gap_s = max(self.longest_gap_s, now - self.last_token_s)
        else:
            self.first_token_s = now
        self.last_token_s = now

    def token_s(self) -> float | None:
        """Mean seconds between the tokens of the longest answer; None if it has not two of them."""
        steps = max(len(choice.token_ids) for choice in self.choices) - 1
        return (self.last_token_s - self.first_token_s) / steps if steps > 0 else None

    @property
    def tokens(self) -> int:
        return sum(len(choice.token_ids) for choice in self.choices)

    @property
    def finished(self) -> bool:
        return all(choice.finish_reason for choice in self.choices)


class InFlight:
    """The generations in progress. `epoch` grows whenever the version that writes may have changed under a request.

    With `adapters` each request names its own, and keeps it, unless its version fails and another takes its place.
    """

    def __init__(self, engine: Engine, *, adapters: bool = False) -> None:
        self.engine = engine
        self._adapters = adapters
        self.generations: set[Generation] = set()
        self.epoch = 0
        self.activity = 0
        self._coming: tuple[str, str, int] | None = None

    def attach(self) -> None:
        """Follow the engine's swaps."""
        self.engine.on_pause.append(self.boundary)
        self.engine.on_restore.append(self.undo)

    def version(self) -> str:
        """The version that will write the first token of a request sent now."""
        if self._coming is not None:
            old, new, restarts = self._coming
            if self.engine.serving == old and self.engine.restarts == restarts:
                return new
            self._coming = None
        return self.engine.serving

    def begin(self, request: GenerationRequest, visit: Visit, *, streamed: bool) -> Generation:
        """A new generation, to be closed with `end`."""
        conversation_id = request.conversation_id or f"conv-{secrets.token_hex(16)}"
        asked = request.model
        if request.profile:
            asked = self.engine.audiences.get(request.profile, "")  # its adapter may have gone since it was admitted
        if request.profile or asked in UNNAMED:
            asked = self._canary(request.profile, conversation_id) or asked
        model = self.engine.models.get(asked, self.engine.model_name)
        version = self.version() if model == self.engine.model_name else asked
        span = VersionSpan(policy_version=version, first_token=0)
        generation = Generation(
            request=request,
            visit=visit,
            choices=[Choice(index=i, spans=(span,)) for i in range(request.n)],
            started_ms=now_ms(),
            started_s=asyncio.get_running_loop().time(),
            restarts=self.engine.restarts,
            streamed=streamed,
            completion_id=f"{PREFIXES[request.route]}-{secrets.token_hex(16)}",
            model=model,
            conversation_id=conversation_id,
        )
        self.generations.add(generation)
        return generation

    def _canary(self, profile: str, conversation_id: str) -> str:
        """The audience's canary, or everybody's, if the conversation is one of those that get it; "" if not."""
        canary = self.engine.audience_canaries.get(profile) if profile else self.engine.canary
        return canary.version if canary is not None and canary.answers(conversation_id) else ""

    def end(self, generation: Generation) -> None:
        self.generations.discard(generation)

    async def boundary(self, old: str, new: str) -> None:
        """The engine is paused; `new` writes every token from here on that `old` would have written."""
        drained = await self._drain()
        self.epoch += 1
        self._coming = (old, new, self.engine.restarts)
        for generation, choice in self._unfinished(old):
            choice.switch_version(new, exact=drained and generation.waiting)

    async def undo(self, old: str, new: str) -> None:
        """The swap from `old` to `new` failed: `old` goes on."""
        self.epoch += 1
        self._coming = None
        for _, choice in self._unfinished(old):
            choice.undo_switch(old)

    def _unfinished(self, version: str) -> Iterator[tuple[Generation, Choice]]:
        """The choices that `version` writes: an engine without adapters has no other."""
        for generation in self.generations:
            if self._adapters and generation.model != version:
                continue
            for choice in generation.choices:
                if not choice.finish_reason:
                    yield generation, choice

    async def _drain(self) -> bool:
        """Read all that the paused engine has sent; False if its connections do not fall silent."""
        if not self.generations:
            return True
        for _ in range(ROUND_TRIPS):
            if not await self.engine.client.health():
                return False
            if not await self._silent():
                return False
        return True

    async def _silent(self) -> bool:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + QUIET_LIMIT_S
        while loop.time() < deadline:
            before = self.activity
            await asyncio.sleep(QUIET_S)
            for _ in range(3):  # readers that these bytes woke run before the count is compared
                await asyncio.sleep(0)
            if self.activity == before:
                return True
        return False
