"""The chat service's side of the event log: awaits the fsync, counts failures, knows whether the log takes events.

With people's keys (`keystore.url`) what somebody said is sealed before it is queued. Their key is in memory but for the
first time, and once a minute; then it is fetched, or made, in a thread. Where the key store is away, somebody whose key
nobody has cannot be logged, and is told so as for a full disk; all others are.
"""

import asyncio
import concurrent.futures
import time
import uuid
from collections import OrderedDict
from dataclasses import replace
from typing import TYPE_CHECKING, cast

from rlhf_online import tracing
from rlhf_online.errors import LogError, LogUnavailable
from rlhf_online.eventlog.acknowledgements import Acknowledgements
from rlhf_online.eventlog.base import Position, Sink
from rlhf_online.events import Completion, Envelope, Feedback, VersionChange, now_ms
from rlhf_online.metrics import ChatMetrics
from rlhf_online.versions.manifest import Change
from rlhf_online.wire import encode

if TYPE_CHECKING:
    from rlhf_online.keystore.keyring import Keyring

ACKNOWLEDGE_S = 10.0
UNHEALTHY_S = 10.0
REMEMBERED = 10_000


class EventWriter:
    """Appends envelopes to the log. One a process: it owns the sink."""

    def __init__(self, sink: Sink, metrics: ChatMetrics, keys: "Keyring | None" = None) -> None:
        self.sink = sink
        self.keys = keys
        self.metrics = metrics
        self._failed_s: float | None = None
        self._acknowledgements: Acknowledgements | None = None
        self._erased: OrderedDict[str, int] = OrderedDict()
        """Who erased everything lately, and when."""

    @property
    def healthy(self) -> bool:
        """False for some seconds after an append failed, so that readiness comes back without traffic."""
        return self._failed_s is None or time.monotonic() - self._failed_s > UNHEALTHY_S

    async def append(self, envelope: Envelope) -> Position:
        """The log's position after the event, which is then on disk. Raises LogUnavailable."""
        started = time.monotonic()
        try:
            offset = await self._acknowledged(envelope)
        except (LogError, TimeoutError) as error:
            self.failed()
            if isinstance(error, LogUnavailable):
                raise
            reason = str(error) or f"no acknowledgement within {ACKNOWLEDGE_S:.0f} s"
            raise LogUnavailable(f"the event log did not take the event: {reason}") from error
        self.metrics.log.append.observe(time.monotonic() - started)
        return {"local": offset + 1}

    def append_nowait(self, envelope: Envelope) -> None:
        """Append without waiting: for what nobody waits for. A failure is counted."""
        traceparent = tracing.current()
        if self._at_hand(envelope):
            self._append_uncertainly(envelope, traceparent)
        else:
            asyncio.get_running_loop().run_in_executor(None, self._append_uncertainly, envelope, traceparent)

    def _append_uncertainly(self, envelope: Envelope, traceparent: str) -> None:
        try:
            future = self._appended(envelope, traceparent)
        except LogError:
            self.failed()
            return
        future.add_done_callback(lambda done: self.failed() if done.cancelled() or done.exception() else None)

    async def changed(self, change: Change) -> None:
        """Log that a version entered a state in the engine (the host calls this)."""
        event = VersionChange(
            version=change.version,
            state=change.state,
            previous=change.previous,
            reason=change.reason,
            by=change.by,
            changed_ms=now_ms(),
        )
        self.append_nowait(Envelope(event_id=str(uuid.uuid4()), event=event))

    def erase(self, person: str, at_ms: int) -> None:
        """The person erases all that they said until then: an answer that is being written is not logged any more."""
        self._erased[person] = at_ms
        if len(self._erased) > REMEMBERED:
            self._erased.popitem(last=False)

    def takes(self, envelope: Envelope) -> bool:
        """Whether it is not of what its person has erased."""
        match envelope.event:
            case Completion(person=person, started_ms=asked_ms):
                return asked_ms > self._erased.get(person, -1)
        return True

    def failed(self) -> None:
        self._failed_s = time.monotonic()
        self.metrics.log.failures.inc()

    def close(self) -> None:
        """Write what is queued."""
        self.sink.close()

    async def _acknowledged(self, envelope: Envelope) -> int:
        """Whoever reads the event goes on below the span of its append."""
        span = tracing.start("append", {"rlhf.event": type(envelope.event).__name__}, kind="producer")
        try:
            if self.keys is not None and not self._at_hand(envelope):
                await asyncio.wait_for(asyncio.to_thread(self.keys.current, _whose(envelope)), ACKNOWLEDGE_S)
            future = self._appended(envelope, span.traceparent)
            if self._acknowledgements is None:
                self._acknowledgements = Acknowledgements()
            return await self._acknowledgements.of(future, ACKNOWLEDGE_S)
        except Exception as error:
            span.fail(type(error).__name__)
            raise
        finally:
            span.end()

    def _at_hand(self, envelope: Envelope) -> bool:
        """Whether it can be sealed without asking the key store."""
        return self.keys is None or not (person := _whose(envelope)) or self.keys.at_hand(person)

    def _appended(self, envelope: Envelope, traceparent: str) -> "concurrent.futures.Future[int]":
        traced = replace(envelope, traceparent=traceparent) if traceparent else envelope
        return cast("concurrent.futures.Future[int]", self.sink.append(encode(traced, self.keys)))


def _whose(envelope: Envelope) -> str:
    return envelope.event.person if isinstance(envelope.event, Completion | Feedback) else ""
