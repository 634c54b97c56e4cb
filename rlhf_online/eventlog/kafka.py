"""The event log through Kafka: the local log as spool, a forwarder that ships it, and a source for the trainer.

    append ──▶ LocalLog (fsync = acknowledged) ──▶ Forwarder thread ──▶ {prefix}.completions · .feedback · .versions

Invariants:
- An append waits for the local disk alone; Kafka may be away for as long as the disk has room.
- The shipped position moves only over a contiguous prefix of records that Kafka confirmed (acks=all) or refused for
  good; the latter are named in the spool's dead letters.
- After a failed or late delivery the producer is dropped and a new one built, since kafka-python's idempotent producer
  may never complete a future again. What is sent again has the same event id, by which readers drop the second.
- The source never commits offsets and never resets them: where to read is the caller's position, and an offset or a
  topic that Kafka no longer has is a PositionLost.

The only importer of kafka-python.
"""

import hashlib
import json
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import structlog
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer
from kafka.errors import (
    KafkaError,
    LogTruncationError,  # pyright: ignore[reportAttributeAccessIssue]  # pyright's own stubs are of kafka-python 2
    MessageSizeTooLargeError,
    OffsetOutOfRangeError,
    TopicAlreadyExistsError,
)
from kafka.net.compat import KafkaNetClient  # pyright: ignore[reportMissingImports]
from kafka.net.selector import NetworkSelector  # pyright: ignore[reportMissingImports]
from kafka.structs import TopicPartition

from rlhf_online import events as ev
from rlhf_online.errors import LogError, LogUnavailable, PositionLost, UndecodableEvent
from rlhf_online.eventlog.base import AppendFuture, Position, Record, covers
from rlhf_online.eventlog.local import LocalLog
from rlhf_online.eventlog.segments import MAX_RECORD
from rlhf_online.eventlog.spool import Spool
from rlhf_online.wire import decode

_TOPIC_OF = {ev.Completion: "completions", ev.Feedback: "feedback", ev.VersionChange: "versions"}

_MAX_REQUEST = MAX_RECORD + (1 << 20)
_GROUP = 1000
_CLIENT: dict[str, Any] = {"reconnect_backoff_max_ms": 500, "bootstrap_timeout_ms": 2_000, "request_timeout_ms": 10_000}


def ensure_topics(servers: Sequence[str], prefix: str) -> dict[str, tuple[str, int]]:
    """Create those of the topics that are missing (one partition); returns each topic's id and partition count.

    Raises KafkaError, LogUnavailable.
    """
    names = [f"{prefix}.{topic}" for topic in _TOPIC_OF.values()]
    admin = _open(KafkaAdminClient, servers)
    try:
        missing = [topic["name"] for topic in admin.describe_topics(names) if topic["error_code"]]
        if missing:
            wanted = {name: {"num_partitions": 1, "configs": {"max.message.bytes": _MAX_REQUEST}} for name in missing}
            try:
                admin.create_topics(wanted, wait_for_metadata=True)
            except TopicAlreadyExistsError:
                admin.wait_for_topics(names)
        topics = admin.describe_topics(names)
        if any(topic["error_code"] for topic in topics):
            raise LogUnavailable(f"Kafka does not show all of {', '.join(names)} yet: try again")
        return {topic["name"]: (str(topic["topic_id"]), len(topic["partitions"])) for topic in topics}
    finally:
        admin.close()


def _open(kind: Any, servers: Sequence[str], **options: Any) -> Any:
    """A client of that class, connected. Raises KafkaError.

    When no broker answers, the constructors raise and leave their network thread and its descriptors behind; in a long
    outage these would add up, so they are ended here.
    """
    selectors: list[NetworkSelector] = []

    def new_client(**configs: Any) -> KafkaNetClient:
        selectors.append(NetworkSelector(**configs))
        return KafkaNetClient(net=selectors[-1], **configs)

    try:
        return kind(bootstrap_servers=list(servers), kafka_client=new_client, **{**_CLIENT, **options})
    except KafkaError:
        for selector in selectors:
            selector.close()
        raise


class KafkaSink:
    """A LocalLog whose records a thread ships to Kafka (a `Sink`). `append` resolves to the spool's sequence number.

    Raises what LocalLog raises; Kafka itself may be down.
    """

    def __init__(self, folder: Path, *, servers: Sequence[str], prefix: str, segment_bytes: int = 64 << 20) -> None:
        self._log = LocalLog(folder, segment_bytes=segment_bytes)
        try:
            self._forwarder = Forwarder(Spool(folder), servers=servers, prefix=prefix)
        except LogError:
            self._log.close()
            raise

    @property
    def shipped(self) -> int:
        """Records before this one are in Kafka, or were refused for good."""
        return self._forwarder.shipped

    def append(self, payload: bytes) -> AppendFuture:
        return self._log.append(payload)

    def close(self) -> None:
        """Make durable what is queued and stop; what is not shipped yet stays in the spool for the next start."""
        self._log.close()
        self._forwarder.close()


class Forwarder:
    """Ships a spool to Kafka in its own thread, beginning where the last one stopped. Owns `spool`.

    `delivery_s` is how long Kafka may take to confirm a record before it is sent anew through another producer.
    """

    def __init__(self, spool: Spool, *, servers: Sequence[str], prefix: str, delivery_s: float = 20.0) -> None:
        self._spool = spool
        self._servers = list(servers)
        self._prefix = prefix
        self._delivery_s = delivery_s
        self._producer: KafkaProducer | None = None
        self._suspect = -1
        self.failures = 0
        """Times that deliveries failed and a new producer took over."""
        self._stopping = threading.Event()
        self._give_up_at = float("inf")
        self._log = structlog.get_logger().bind(component="forwarder")
        self._thread = threading.Thread(target=self._run, name="eventlog-forwarder", daemon=True)
        self._thread.start()

    @property
    def shipped(self) -> int:
        return self._spool.shipped

    def close(self) -> None:
        """Stop after the deliveries at hand; those not confirmed within a second are made again at the next start."""
        self._give_up_at = time.monotonic() + 1
        self._stopping.set()
        self._thread.join()
        self._spool.close()

    def _run(self) -> None:
        pause = 0.1
        try:
            while not self._stopping.is_set():
                try:
                    idle_s = 0.0 if self._ship() else 0.02
                    pause = 0.1
                except (KafkaError, LogError) as error:
                    self._drop_producer()
                    self.failures += 1
                    self._log.warning("delivery failed", error=type(error).__name__, shipped=self.shipped)
                    idle_s, pause = pause, min(2 * pause, 2.0)
                self._stopping.wait(idle_s)
        finally:
            self._drop_producer()

    def _ship(self) -> bool:
        """Send what comes next and wait until it is confirmed; False if nothing waits. Raises KafkaError, LogError."""
        records = self._spool.waiting(1 if self.shipped == self._suspect else _GROUP)
        if not records:
            return False
        if self._producer is None:
            ensure_topics(self._servers, self._prefix)
            self._producer = self._new_producer()
        start = self.shipped
        try:
            deliveries = [(record, self._send(self._producer, record)) for record in records]
            give_up_at = time.monotonic() + self._delivery_s + 5
            for record, delivery in deliveries:
                if isinstance(delivery, str):
                    self._refuse(record, delivery)
                else:
                    self._confirm(record, delivery, give_up_at, alone=len(records) == 1)
                self._spool.shipped = record.offset + 1
        finally:
            if self.shipped > start:
                self._save()
        return True

    def _new_producer(self) -> KafkaProducer:
        return _open(
            KafkaProducer,
            self._servers,
            acks="all",
            linger_ms=5,
            batch_size=256 << 10,
            max_request_size=_MAX_REQUEST,
            max_block_ms=2_000,
            delivery_timeout_ms=int(1000 * self._delivery_s),
            request_timeout_ms=int(500 * self._delivery_s),
            allow_auto_create_topics=False,
        )

    def _send(self, producer: KafkaProducer, record: Record) -> Any:
        """The delivery's future, or the reason for which the record can never be sent. Raises KafkaError."""
        try:
            envelope = decode(record.payload)
            return producer.send(
                f"{self._prefix}.{_TOPIC_OF[type(envelope.event)]}",
                key=envelope.key.encode(),
                value=record.payload,
                headers=[
                    ("schema_version", str(envelope.schema_version).encode()),
                    ("event_id", envelope.event_id.encode()),
                    ("spool", self._spool.identity.encode()),
                    ("sequence", str(record.offset).encode()),
                ],
            )
        except (UndecodableEvent, MessageSizeTooLargeError) as error:
            return type(error).__name__

    def _confirm(self, record: Record, delivery: Any, give_up_at: float, *, alone: bool) -> None:
        """Wait until Kafka has the record, or has refused it for good. Raises KafkaError.

        After a record that is too large, kafka-python fails all that were sent with it by the same error: a refusal is
        believed of a record that was sent alone, so the first that fails is sent again, alone.
        """
        while not delivery.is_done and time.monotonic() < min(give_up_at, self._give_up_at):
            try:
                delivery.get(timeout=0.2)
            except KafkaError:
                pass  # a wait that ran out, or a delivery that failed: what is done is looked at below
        try:
            delivery.get(timeout=0)
        except MessageSizeTooLargeError as error:
            if not alone:
                self._suspect = record.offset
                raise
            self._refuse(record, type(error).__name__)
            self._drop_producer()

    def _refuse(self, record: Record, reason: str) -> None:
        self._spool.refuse(record, reason)
        self._log.error("record refused for good", sequence=record.offset, reason=reason)

    def _save(self) -> None:
        try:
            self._spool.save()
        except OSError as error:  # after a restart more than need be is sent again
            self._log.warning("shipped position not saved", error=error.strerror)

    def _drop_producer(self) -> None:
        if self._producer is not None:
            producer, self._producer = self._producer, None
            # `close` alone would wait for deliveries that may never end, raise, and leave the sender's thread running.
            producer._sender.force_close()  # pyright: ignore[reportAttributeAccessIssue]
            producer.close(timeout=5)


class KafkaSource:
    """Reads the three topics (a `Source`); partitions are named "topic/number". One thread at a time.

    All methods raise LogUnavailable while Kafka is away; `read` and `end` raise PositionLost for an offset or a topic
    that is gone. `check_s` is how often the topics' ids are compared.
    """

    def __init__(self, *, servers: Sequence[str], prefix: str, timeout_s: float = 10.0, check_s: float = 30.0) -> None:
        self._servers = list(servers)
        self._prefix = prefix
        self._timeout_s = timeout_s
        self._check_s = check_s
        self._checked = 0.0
        self._topics: dict[str, tuple[str, int]] = {}
        self._consumer: KafkaConsumer | None = None
        self._at: Position = {}

    def read(self, position: Mapping[str, int], limit: int) -> tuple[list[Record], Position]:
        """Up to `limit` records; none only if there were none when it was called.

        A partition that `position` does not name is read from its first record.
        """
        try:
            consumer = self._connected()
            start, end = self._bounds(consumer, position)
            if limit <= 0 or covers(start, end):
                return [], start
            for name, offset in start.items():
                if self._at.get(name) != offset:
                    consumer.seek(_partition(name), offset)
            self._at = {}
            deadline = time.monotonic() + self._timeout_s
            while not (batches := consumer.poll(timeout_ms=200, max_records=limit)):
                if time.monotonic() > deadline:
                    raise LogUnavailable(f"Kafka at {', '.join(self._servers)} delivers nothing: is it overloaded?")
        except (OffsetOutOfRangeError, LogTruncationError) as error:
            self.close()
            raise PositionLost(f"Kafka no longer has what follows {dict(position)}: {error}") from error
        except KafkaError as error:
            raise self._away(error) from error
        records = [
            Record(partition=_name(partition), offset=message.offset, payload=message.value or b"")
            for partition, batch in sorted(batches.items())
            for message in batch
        ]
        self._at = {**start, **{record.partition: record.offset + 1 for record in records}}
        return records, dict(self._at)

    def end(self) -> Position:
        """The position after the last record of every partition."""
        try:
            return self._bounds(self._connected(), {})[1]
        except KafkaError as error:
            raise self._away(error) from error

    def identity(self) -> str:
        """Digest of the topics' ids: a topic that is deleted and made anew changes it."""
        try:
            self._connected()
        except KafkaError as error:
            raise self._away(error) from error
        ids = sorted((name, topic_id) for name, (topic_id, _) in self._topics.items())
        return hashlib.sha256(json.dumps(ids).encode()).hexdigest()[:32]

    def close(self) -> None:
        if self._consumer is not None:
            consumer, self._consumer = self._consumer, None
            consumer.close(autocommit=False, timeout_ms=1000)

    def _connected(self) -> KafkaConsumer:
        """The consumer, assigned to every partition. Raises KafkaError, LogUnavailable, PositionLost."""
        if self._consumer is None or time.monotonic() - self._checked > self._check_s:
            topics = ensure_topics(self._servers, self._prefix)
            if self._topics and topics != self._topics:
                raise PositionLost(
                    f"topics of {self._prefix} were deleted and made anew, or their partitions changed: offsets of the "
                    "old ones mean nothing in them; start from a fresh checkpoint"
                )
            self._topics, self._checked = topics, time.monotonic()
        if self._consumer is None:
            self._at = {}
            self._consumer = _open(
                KafkaConsumer,
                self._servers,
                group_id=None,
                enable_auto_commit=False,
                auto_offset_reset="none",
                allow_auto_create_topics=False,
                max_partition_fetch_bytes=_MAX_REQUEST,
            )
            assert self._consumer is not None
            self._consumer.assign(self._partitions())
        return self._consumer

    def _partitions(self) -> list[TopicPartition]:
        return [TopicPartition(name, n) for name, (_, count) in sorted(self._topics.items()) for n in range(count)]

    def _bounds(self, consumer: KafkaConsumer, position: Mapping[str, int]) -> tuple[Position, Position]:
        """`position` with every partition named, and the end. Raises PositionLost, KafkaError.

        Compared here, since an offset that Kafka does not hold may otherwise show as silence.
        """
        low = consumer.beginning_offsets(self._partitions())
        high = consumer.end_offsets(self._partitions())
        if unknown := sorted(set(position) - {_name(partition) for partition in low}):
            raise PositionLost(f"Kafka has no partition {', '.join(unknown)}: was the log's prefix or server changed?")
        start = {_name(partition): position.get(_name(partition), offset) for partition, offset in low.items()}
        for partition, lowest in low.items():
            offset, highest = start[_name(partition)], high[partition]
            if not lowest <= offset <= highest:
                lost = f"{lowest - offset} records are missing" if offset < lowest else "its newest records were lost"
                raise PositionLost(
                    f"{_name(partition)} holds offsets {lowest} to {highest}, but {offset} was asked for: {lost}; "
                    "start from a fresh checkpoint to go on without them"
                )
        return start, {_name(partition): offset for partition, offset in high.items()}

    def _away(self, error: KafkaError) -> LogUnavailable:
        self.close()
        return LogUnavailable(f"Kafka at {', '.join(self._servers)} does not answer ({type(error).__name__}): start it")


def _name(partition: TopicPartition) -> str:
    return f"{partition.topic}/{partition.partition}"


def _partition(name: str) -> TopicPartition:
    topic, _, number = name.rpartition("/")
    return TopicPartition(topic, int(number))
