"""The chat service's side of the event log: awaits the fsync, counts failures, knows whether the log takes events."""

import concurrent.futures
import time
import uuid
from dataclasses import replace
from typing import cast

from rlhf_online import tracing
from rlhf_online.errors import LogError, LogUnavailable
from rlhf_online.eventlog.acknowledgements import Acknowledgements
from rlhf_online.eventlog.base import Position, Sink
from rlhf_online.events import Envelope, VersionChange, now_ms
from rlhf_online.metrics import ChatMetrics
from rlhf_online.versions.manifest import Change
from rlhf_online.wire import encode

ACKNOWLEDGE_S = 10.0
UNHEALTHY_S = 10.0


class EventWriter:
    """Appends envelopes to the log. One a process: it owns the sink."""

    def __init__(self, sink: Sink, metrics: ChatMetrics) -> None:
        self.sink = sink
        self.metrics = metrics
        self._failed_s: float | None = None
        self._acknowledgements: Acknowledgements | None = None

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
        try:
            future = self._appended(envelope, tracing.current())
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
            future = self._appended(envelope, span.traceparent)
            if self._acknowledgements is None:
                self._acknowledgements = Acknowledgements()
            return await self._acknowledgements.of(future, ACKNOWLEDGE_S)
        except Exception as error:
            span.fail(type(error).__name__)
            raise
        finally:
            span.end()

    def _appended(self, envelope: Envelope, traceparent: str) -> "concurrent.futures.Future[int]":
        traced = replace(envelope, traceparent=traceparent) if traceparent else envelope
        return cast("concurrent.futures.Future[int]", self.sink.append(encode(traced)))
