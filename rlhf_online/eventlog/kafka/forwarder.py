"""Ships the spool to Kafka: the local log's records, in order, each confirmed by all in-sync replicas.

Invariants:
- An append waits only for the local disk; Kafka may be away for as long as the disk has room.
- The shipped position moves only over a contiguous prefix of records that Kafka confirmed (acks=all) or refused for
  good; the latter are named in the spool's dead letters.
- Records are sent on while earlier ones wait to be confirmed, at most 2 MiB of them.
- The position is made durable twice a second; a kill in between makes the next start send the last records again.
- After a failed or late delivery the producer is dropped and a new one built, since kafka-python's idempotent producer
  may never complete a future again. All that was not confirmed is sent again, in order, with the same spool and
  sequence numbers, by which readers drop the second.
"""

import threading
import time
from collections import deque
from typing import Any, NamedTuple

import structlog
from kafka import KafkaProducer
from kafka.errors import KafkaError, MessageSizeTooLargeError

from rlhf_online import events as ev
from rlhf_online import tracing
from rlhf_online.errors import LogError, UndecodableEvent
from rlhf_online.eventlog.base import Record
from rlhf_online.eventlog.kafka import topics
from rlhf_online.eventlog.kafka.cluster import Cluster, force_close
from rlhf_online.eventlog.spool import Spool
from rlhf_online.retry import Backoff
from rlhf_online.wire import peek

_TOPIC_OF = {
    ev.Completion: "completions",
    ev.Feedback: "feedback",
    ev.Erasure: "feedback",
    ev.VersionChange: "versions",
}

_READ = 10_000  # records read at once; the window runs empty only after these
_WINDOW = 2 << 20  # bytes sent and not confirmed
_SAVE_EVERY_S = 0.5


class Progress(NamedTuple):
    """How far a forwarder is: records before `shipped` have left, by the position on disk those before `saved`.

    `oldest_ms`: when the first that has not left happened, 0 if none waits; `failures`: times that deliveries failed
    and a new producer took over; `refused`: records that will never be shipped, ever since the spool began.
    """

    shipped: int
    saved: int
    oldest_ms: int
    failures: int
    refused: int


class Forwarder:
    """Ships a spool to Kafka in its own thread, beginning where the last one stopped. Owns `spool`.

    `delivery_s` is how long Kafka may take to confirm a record before it is sent anew through another producer.
    """

    def __init__(self, spool: Spool, cluster: Cluster, *, delivery_s: float = 20.0) -> None:
        self._spool = spool
        self._cluster = cluster
        self._delivery_s = delivery_s
        self._producer: KafkaProducer | None = None
        self._one_by_one_until = 0
        self._save_at = 0.0
        self._read: list[Record] = []
        self.failures = self.oldest_ms = 0
        self._stopping = threading.Event()
        self._close_by = float("inf")
        self._thread = threading.Thread(target=self._run, name="eventlog-forwarder", daemon=True)
        self._thread.start()

    @property
    def shipped(self) -> int:
        return self._spool.shipped

    def progress(self) -> "Progress":
        spool = self._spool
        return Progress(spool.shipped, spool.saved, self.oldest_ms, self.failures, spool.refused)

    def close(self) -> None:
        """Stop after the deliveries at hand; those not confirmed within a second are made again at the next start."""
        self._close_by = time.monotonic() + 1
        self._stopping.set()
        self._thread.join()
        self._spool.close()

    def _run(self) -> None:
        backoff = Backoff(0.1, 2.0)
        try:
            while not self._stopping.is_set():
                try:
                    idle_s = 0.0 if self._ship() else 0.02
                    backoff.reset()
                except (KafkaError, LogError, OSError) as error:
                    self._drop_producer()
                    self.failures += 1
                    why = str(error) if isinstance(error, LogError) else type(error).__name__
                    _logger().warning("delivery failed", error=why, shipped=self.shipped)
                    idle_s = backoff.advance()
                self._save()
                self._stopping.wait(idle_s)
        finally:
            self._drop_producer()
            self._save(now=True)

    def _ship(self) -> bool:
        """Send what comes next until it is confirmed; False if nothing waits. Raises KafkaError, LogError."""
        one_by_one = self.shipped < self._one_by_one_until
        records = self._next()[:1] if one_by_one else self._next()
        self.oldest_ms = _happened_ms(records[0]) if records else 0
        if not records:
            return False
        if self._producer is None:
            topics.ensure(self._cluster)
            self._producer = new_producer(self._cluster, self._delivery_s)
        sent: deque[tuple[Record, Any, tracing.Span]] = deque()
        size = 0
        try:
            for record in records:
                if self._stopping.is_set():
                    break
                size += len(record.payload)
                while sent and size > _WINDOW:
                    size -= len(sent[0][0].payload)
                    self._await_first(sent, one_by_one=one_by_one)
                sent.append((record, *self._send(self._producer, record)))
            while sent:
                self._await_first(sent, one_by_one=one_by_one)
        except MessageSizeTooLargeError:
            self._one_by_one_until = sent[-1][0].offset + 1
            raise
        return True

    def _next(self) -> list[Record]:
        """What is to be sent; none if nothing waits. Read once, however often it is sent. Raises LogError."""
        self._read = [record for record in self._read if record.offset >= self.shipped]
        if not self._read:
            self._read = self._spool.waiting(_READ)
        return self._read

    def _await_first(self, sent: deque[tuple[Record, Any, tracing.Span]], *, one_by_one: bool) -> None:
        """Wait for the first of `sent`, take it out, and move on behind it. Raises KafkaError, LogError."""
        record, delivery, span = sent[0]
        if isinstance(delivery, str):
            self._refuse(record, delivery)
        elif not delivery.succeeded():
            self._confirm(record, delivery, one_by_one=one_by_one)
        sent.popleft()
        span.end()
        self._spool.shipped = record.offset + 1
        if sent and self._save():
            self.oldest_ms = _happened_ms(sent[0][0])

    def _send(self, producer: KafkaProducer, record: Record) -> tuple[Any, tracing.Span]:
        """The delivery's future, or the reason for which the record can never be sent; and its span, if its event has
        a trace. Raises KafkaError."""
        if record.damage:
            return record.damage, tracing.NOTHING
        try:
            header = peek(record.payload)
            trace = [("traceparent", header.traceparent.encode())] if header.traceparent else []
            topic = f"{self._cluster.prefix}.{_TOPIC_OF[header.kind]}"
            delivery = producer.send(
                topic,
                key=header.key.encode(),
                value=record.payload,
                headers=[
                    ("schema_version", str(header.schema_version).encode()),
                    ("event_id", header.event_id.encode()),
                    ("spool", self._spool.identity.encode()),
                    ("sequence", str(record.offset).encode()),
                    *trace,
                ],
            )
            if not trace:
                return delivery, tracing.NOTHING
            told = {"messaging.system": "kafka", "messaging.destination.name": topic}
            return delivery, tracing.start("send", told, kind="producer", parent=header.traceparent)
        except (UndecodableEvent, MessageSizeTooLargeError) as error:
            return type(error).__name__, tracing.NOTHING

    def _confirm(self, record: Record, delivery: Any, *, one_by_one: bool) -> None:
        """Wait until Kafka has the record, or has refused it for good. Raises KafkaError.

        After a record that is too large, kafka-python fails all that were sent with it by the same error: a refusal is
        believed of a record that was sent alone, so all that were sent by then are sent again, one by one, until the
        one that is too large is found.
        """
        late_at = time.monotonic() + self._delivery_s + 5
        while not delivery.is_done and time.monotonic() < min(late_at, self._close_by):
            try:
                delivery.get(timeout=0.2)
            except KafkaError:
                pass  # a wait that ran out, or a delivery that failed: what is done is looked at below
        try:
            delivery.get(timeout=0)
        except MessageSizeTooLargeError as error:
            if not one_by_one:
                raise
            self._one_by_one_until = 0
            self._refuse(record, type(error).__name__)
            self._drop_producer()

    def _refuse(self, record: Record, reason: str) -> None:
        try:
            event_id = peek(record.payload).event_id
        except UndecodableEvent:
            event_id = ""
        self._spool.refuse(record, event_id, reason)
        _logger().error("record refused for good", sequence=record.offset, reason=reason)

    def _save(self, *, now: bool = False) -> bool:
        """Make the position durable if that is due; False if it is not."""
        if time.monotonic() < self._save_at and not now:
            return False
        self._save_at = time.monotonic() + _SAVE_EVERY_S
        if self.shipped != self._spool.saved:
            try:
                self._spool.save()
            except OSError as error:  # after a restart more than need be is sent again
                _logger().warning("shipped position not saved", error=error.strerror)
        return True

    def _drop_producer(self) -> None:
        if self._producer is not None:
            producer, self._producer = self._producer, None
            force_close(producer)


def _logger() -> structlog.stdlib.BoundLogger:
    return structlog.get_logger().bind(component="forwarder")


def new_producer(cluster: Cluster, delivery_s: float) -> KafkaProducer:
    """An idempotent producer that fails what is not confirmed by then. Raises KafkaError."""
    return cluster.open(
        KafkaProducer,
        acks="all",
        linger_ms=5,
        batch_size=512 << 10,
        max_request_size=topics.MAX_REQUEST,
        max_block_ms=10_000,
        delivery_timeout_ms=int(1000 * delivery_s),
        request_timeout_ms=int(500 * delivery_s),
        allow_auto_create_topics=False,
    )


def _happened_ms(record: Record) -> int:
    """When the record's event happened; 0 for one that cannot be read."""
    try:
        return peek(record.payload).at_ms
    except UndecodableEvent:
        return 0
