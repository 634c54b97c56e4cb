"""The conversation between clients, the engine and the log.

    client ──▶ start ──▶ engine (streamed) ──▶ read: counted, marked at swaps ──▶ client
                                                      │
                                                 settle: logged, fsynced ──▶ last byte to the client

Nobody is refused because of a swap: the engine queues. If the engine dies, a request of which the client has seen
nothing yet waits for it to come back and is sent once more; a stream that has begun ends with an error.
If the log is away, people are answered all the same, with `"logged": false`.
"""

import asyncio
from collections.abc import AsyncIterator

from rlhf_online import tracing
from rlhf_online.errors import EngineUnavailable, LogUnavailable
from rlhf_online.events import Completion, Envelope, now_ms
from rlhf_online.metrics import ChatMetrics
from rlhf_online.metrics.exemplars import exemplar
from rlhf_online.state import PersonHash
from services.chat.access.caller import Caller
from services.chat.access.limits import Limits, Visit
from services.chat.bodies.api_error import ApiError, unavailable
from services.chat.completions import upstream
from services.chat.completions.engine import Engine
from services.chat.completions.engine_connections import EngineConnections
from services.chat.completions.generation_span import begin_span, end_span
from services.chat.completions.in_flight import Generation, InFlight
from services.chat.completions.sampling_request import PUBLIC_MODEL, GenerationRequest
from services.chat.event_writer import EventWriter
from services.chat.feedback.checks import FeedbackChecks

RETURN_S = 120.0
NOTICE_S = 5.0
POLL_S = 0.05

STATE_MESSAGES = {
    "starting": "the engine is starting: loading takes a minute or two",
    "waiting": "the engine runs and waits for the first policy version",
    "restarting": "the engine ended and is being restarted on the last good version",
}


class Gateway:
    """Answers checked requests. `max_concurrent` bounds those in progress, `limits` each key's and person's."""

    def __init__(
        self,
        engine: Engine,
        flight: InFlight,
        writer: EventWriter,
        checks: FeedbackChecks,
        person_hash: PersonHash,
        metrics: ChatMetrics,
        max_concurrent: int,
        limits: Limits,
    ) -> None:
        self.engine = engine
        self.flight = flight
        self.writer = writer
        self.checks = checks
        self.person_hash = person_hash
        self.metrics = metrics
        self.max_concurrent = max_concurrent
        self.limits = limits
        self.connections = EngineConnections(engine.client.url)
        self.active = 0
        metrics.active.set_function(lambda: self.active)

    def models(self) -> list[str]:
        """The names that a request may give as its model: the live version's, then the others that are loaded."""
        engine = self.engine
        names = (PUBLIC_MODEL, engine.serving, engine.model_name, *reversed([*engine.models]))
        return list(dict.fromkeys(name for name in names if name))

    def check_model(self, name: str) -> None:
        """Raises ApiError for a name that is none of `models`."""
        if name not in self.models():
            message = f"The model {name!r} does not exist; there are: {', '.join(self.models())}"
            raise ApiError(message, status=404, param="model", code="model_not_found")

    def check_profile(self, name: str) -> None:
        """Raises ApiError for an audience that nobody defined, or that has no place here."""
        if name not in (known := self.engine.audiences):
            message = (
                f"profile: {name!r} is no audience that is answered here; there are {', '.join(known) or 'none'} "
                "(`rlhf-online audiences` defines them, chat.engine.audiences gives them places)"
            )
            raise ApiError(message, status=404, param="profile", code="profile_not_found")

    async def complete(self, request: GenerationRequest, caller: Caller) -> Generation:
        """All answers, logged. Raises ApiError or EngineUnavailable."""
        visit, restarts = self.admit(request, caller), self.engine.restarts
        try:
            return await self._complete(await self.start(request, visit, streamed=False))
        except EngineUnavailable:
            await self._engine_back(restarts, visit)
            return await self._complete(await self.start(request, visit, streamed=False))

    async def open(self, request: GenerationRequest, caller: Caller) -> Generation:
        """A started generation, for `read`, `settle` and `end`. Raises ApiError or EngineUnavailable."""
        visit, restarts = self.admit(request, caller), self.engine.restarts
        try:
            return await self.start(request, visit, streamed=True)
        except EngineUnavailable:
            await self._engine_back(restarts, visit)
            return await self.start(request, visit, streamed=True)

    async def start(self, request: GenerationRequest, visit: Visit, *, streamed: bool) -> Generation:
        """Send the request to the engine, once, and wait for its first token.

        What the engine refuses before that the client gets as an HTTP status.
        """
        generation = self.flight.begin(request, visit, streamed=streamed)
        self.active += 1
        generation.span = begin_span(generation)
        try:
            with tracing.current_is(generation.span):
                await upstream.send(self.connections, self.engine, generation, self.flight)
            if generation.tokens:
                self.metrics.first_token.observe(generation.elapsed_s(), exemplar())
                generation.span.note({"rlhf.first_token_s": generation.elapsed_s()})
        except BaseException:
            self.end(generation)
            raise
        return generation

    async def read(self, generation: Generation) -> AsyncIterator[list[upstream.Chunk]]:
        """The engine's chunks from the first on, as they arrive together. Raises ApiError or EngineUnavailable."""
        while arrived := await upstream.chunks(self.engine, generation):
            yield arrived

    async def settle(self, generation: Generation) -> None:
        """Log request and answers and wait for the fsync; `generation.logged` says whether it came.

        One that the client asked not to store is not logged.
        """
        self.flight.end(generation)
        envelope = self._settled(generation)
        kept = generation.request.store and self.writer.takes(envelope)
        try:
            if kept:
                await self.writer.append(envelope)
            generation.logged = kept
        except LogUnavailable:
            generation.logged = False
        self.metrics.latency.observe(generation.elapsed_s(), exemplar())

    def end(self, generation: Generation) -> None:
        """Let go of the request, however it went. What a client received of an unfinished one is logged as aborted.

        Closing the reply makes the engine stop writing.
        """
        if generation.reply is not None:
            generation.reply.close(ended=generation.ended)
        end_span(generation)
        self.flight.end(generation)
        self.active -= 1
        generation.visit.leave(len(generation.prompt_token_ids or ()) + generation.tokens)
        if generation.request.stream and not generation.settled and generation.tokens:
            envelope = self._settled(generation)
            if generation.request.store and self.writer.takes(envelope):
                self.writer.append_nowait(envelope)

    def admit(self, request: GenerationRequest, caller: Caller) -> Visit:
        """Raises ApiError: engine not ready, unknown model, too many requests of all, of the key or of the person."""
        if self.engine.state != "ready":
            raise self.not_ready()
        if request.model:
            self.check_model(request.model)
        if request.profile:
            self.check_profile(request.profile)
        if self.active >= self.max_concurrent:
            raise ApiError(
                f"{self.active} requests are in progress, as many as are allowed; try again",
                status=429,
                type="rate_limit_error",
                code="too_many_requests",
                retry_after_s=1,
            )
        return self.limits.chat(caller.named(request.user, self.person_hash))

    def not_ready(self) -> ApiError:
        """503, saying what the engine is doing."""
        if self.engine.state == "failed":
            return unavailable(f"the engine failed: {self.engine.failure}", code="engine_failed")
        if self.engine.state == "waiting" and self.engine.failure:
            return unavailable(f"no version serves: {self.engine.failure}", code="no_version_serves")
        return unavailable(
            f"{STATE_MESSAGES.get(self.engine.state, 'the engine is not ready')}; try again", "engine_not_ready"
        )

    async def _complete(self, generation: Generation) -> Generation:
        try:
            await upstream.end(self.engine, generation)
            await self.settle(generation)
        finally:
            self.end(generation)
        return generation

    async def _engine_back(self, restarts: int, visit: Visit) -> None:
        """Wait until the engine serves again. Raises ApiError if it does not within RETURN_S, or in the visit's time.

        `restarts` had been counted when the request was sent. It may take some seconds until it is noticed that the
        engine has ended.
        """
        loop = asyncio.get_running_loop()
        start, went = loop.time(), False
        while loop.time() < start + RETURN_S and self.engine.state != "failed":
            went = went or self.engine.state != "ready" or self.engine.restarts != restarts
            if self.engine.state == "ready" and (went or loop.time() > start + NOTICE_S):
                self.metrics.resent.inc()
                return
            await asyncio.sleep(min(POLL_S, visit.left_s()))
        raise self.not_ready()

    def _settled(self, generation: Generation) -> Envelope:
        """Nothing more comes of the request: counted, known to votes, and made an event."""
        generation.settled = True
        self.metrics.tokens.inc(generation.tokens)
        self.metrics.prompt_tokens.inc(len(generation.prompt_token_ids or ()))
        if (token_s := generation.token_s()) is not None:
            self.metrics.token_time.observe(token_s, traced := exemplar())
            self.metrics.longest_gap.observe(generation.longest_gap_s, traced)
        if uncertain := sum(not choice.spans_exact for choice in generation.choices):
            self.metrics.uncertain.inc(uncertain)
        request = generation.request
        event = Completion(
            completion_id=generation.completion_id,
            conversation_id=generation.conversation_id,
            person=generation.visit.caller.person,
            messages=request.messages,
            prompt_token_ids=tuple(generation.prompt_token_ids or ()),
            answers=tuple(choice.answer() for choice in generation.choices),
            sampling=request.sampling,
            started_ms=generation.started_ms,
            finished_ms=now_ms(),
            asked=request.asked,
            comparison_id=request.comparison_id,
            slot=request.slot,
        )
        self.checks.add_completion(event, stored=request.store)
        return Envelope(event_id=generation.completion_id, event=event)
