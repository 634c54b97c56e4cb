"""Reads the event topics from a position that the caller keeps.

The source never commits offsets and never resets them: an offset or a topic that Kafka no longer has is a PositionLost.
"""

import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

from kafka import KafkaConsumer, KafkaProducer
from kafka.errors import (
    KafkaError,
    LogTruncationError,  # pyright: ignore[reportAttributeAccessIssue]  # pyright's own stubs are of kafka-python 2
    OffsetOutOfRangeError,
)
from kafka.structs import TopicPartition

from rlhf_online.errors import LogUnavailable, PositionLost
from rlhf_online.eventlog import gap
from rlhf_online.eventlog.base import DeadLetter, Position, Record, has_reached
from rlhf_online.eventlog.kafka import topics
from rlhf_online.eventlog.kafka.cluster import Cluster, force_close
from rlhf_online.eventlog.kafka.topics import Topic

_DELIVERY_MS = 20_000


class KafkaSource:
    """Reads the three topics (a `Source`); partitions are named "topic/number". One thread at a time.

    All methods raise LogUnavailable while Kafka is away; `read` and `end` raise PositionLost for an offset or a topic
    that is gone. `check_s` is how often the topics' ids are compared.
    """

    def __init__(self, cluster: Cluster, *, timeout_s: float = 10.0, check_s: float = 30.0) -> None:
        self._cluster = cluster
        self._timeout_s = timeout_s
        self._check_s = check_s
        self._checked = 0.0
        self._topics: dict[str, Topic] = {}
        self._consumer: KafkaConsumer | None = None
        self._at: Position = {}
        self._end: Position = {}

    def read(self, position: Mapping[str, int], limit: int) -> tuple[list[Record], Position]:
        """Up to `limit` records; none only if there were none when it was called.

        A partition that `position` does not name is read from its first record.
        """
        try:
            consumer = self._connected()
            start = dict(position)
            # Where it goes on in what is known to be there, the brokers need not be asked before they deliver.
            if not start or start != self._at or has_reached(start, self._end):
                start, end = self._bounds(consumer, position)
                if has_reached(start, end):
                    return [], start
            if limit <= 0:
                return [], start
            for name, offset in start.items():
                if self._at.get(name) != offset:
                    consumer.seek(_partition(name), offset)
            self._at = {}
            deadline = time.monotonic() + self._timeout_s
            while not (batches := consumer.poll(timeout_ms=200, max_records=limit)):
                self._bounds(consumer, start)
                if time.monotonic() > deadline:
                    self._end = {}
                    raise LogUnavailable(f"{self._cluster} delivers nothing: is it overloaded?")
        except (OffsetOutOfRangeError, LogTruncationError) as error:
            self.close()
            raise PositionLost(f"Kafka no longer has what follows {dict(position)}: {error}") from error
        except KafkaError as error:
            self.close()
            raise self._cluster.unavailable(error) from error
        records: list[Record] = []
        self._at = start
        for partition, batch in sorted(batches.items()):
            name = _name(partition)
            records += [
                Record(name, message.offset, message.value or b"", origin=_origin(message.headers)) for message in batch
            ]
            self._at[name] = batch[-1].offset + 1
        return records, dict(self._at)

    def end(self) -> Position:
        """The position after the last record of every partition."""
        self._end = {}
        try:
            return self._bounds(self._connected(), {})[1]
        except KafkaError as error:
            self.close()
            raise self._cluster.unavailable(error) from error

    def mark_consumed(self, reader: str, position: Mapping[str, int]) -> None:
        """Does nothing: Kafka removes events by their age."""

    def write_dead_letters(self, dead_letters: Sequence[DeadLetter]) -> None:
        """Send to the topic dead-letters or orphans: the payload, and headers that say where it stood and why."""
        if not dead_letters:
            return
        try:
            topics.ensure(self._cluster)
            producer = self._cluster.open(
                KafkaProducer, acks="all", max_request_size=topics.MAX_REQUEST, delivery_timeout_ms=_DELIVERY_MS,
                request_timeout_ms=_DELIVERY_MS // 2, max_block_ms=_DELIVERY_MS, allow_auto_create_topics=False,
            )  # fmt: skip
            try:
                for delivery in [self._send(producer, dead_letter) for dead_letter in dead_letters]:
                    delivery.get(timeout=_DELIVERY_MS / 1000 + 5)
            finally:
                force_close(producer)
        except KafkaError as error:
            raise self._cluster.unavailable(error) from error

    def _send(self, producer: KafkaProducer, dead_letter: DeadLetter) -> Any:
        place = f"{dead_letter.partition}:{dead_letter.offset}"
        headers = {"place": place, "event_id": dead_letter.event_id, "reason": dead_letter.reason}
        return producer.send(
            f"{self._cluster.prefix}.{topics.ORPHANS if dead_letter.orphan else topics.DEAD_LETTERS}",
            key=place.encode(),
            value=dead_letter.payload,
            headers=[(name, value.encode()) for name, value in headers.items()],
        )

    def resume_position(self, identity: str, position: Mapping[str, int]) -> tuple[Position, list[str]]:
        """See `Source`. A topic that was made anew is read from its beginning, others from near `position`."""
        try:
            consumer = self._connected()
            low = {_name(p): offset for p, offset in consumer.beginning_offsets(self._partitions()).items()}
            high = {_name(p): offset for p, offset in consumer.end_offsets(self._partitions()).items()}
        except KafkaError as error:
            self.close()
            raise self._cluster.unavailable(error) from error
        return _resume(_ids(identity), _ids(self.identity()), position, low, high)

    def identity(self) -> str:
        """The topics' ids: a topic that is deleted and made anew changes it."""
        try:
            self._connected()
        except KafkaError as error:
            self.close()
            raise self._cluster.unavailable(error) from error
        return json.dumps({name: topic.topic_id for name, topic in sorted(self._topics.items())})

    def close(self) -> None:
        if self._consumer is not None:
            consumer, self._consumer = self._consumer, None
            consumer.close(autocommit=False, timeout_ms=1000)

    def _connected(self) -> KafkaConsumer:
        """The consumer, assigned to every partition. Raises KafkaError, LogUnavailable, PositionLost."""
        if self._consumer is None or time.monotonic() - self._checked > self._check_s:
            events = {f"{self._cluster.prefix}.{name}" for name in topics.EVENTS}
            found = {name: topic for name, topic in topics.ensure(self._cluster).items() if name in events}
            self._compare(found)
            if self._consumer is not None and found != self._topics:  # there are more partitions now
                self.close()
            self._topics, self._checked = found, time.monotonic()
        if self._consumer is None:
            self._at, self._end = {}, {}
            self._consumer = new_consumer(self._cluster)
            self._consumer.assign(self._partitions())
        return self._consumer

    def _compare(self, found: Mapping[str, Topic]) -> None:
        """Raises PositionLost if a topic is not the one that was read so far."""
        for name, known in self._topics.items():
            if found[name].topic_id != known.topic_id:
                raise PositionLost(
                    f"{name} was deleted and made anew: offsets of the old one mean nothing in it; {gap.HINT}"
                )
            if found[name].partitions < known.partitions:
                raise PositionLost(
                    f"{name} had {known.partitions} partitions and has {found[name].partitions}: events are missing; "
                    f"{gap.HINT}"
                )

    def _partitions(self) -> list[TopicPartition]:
        return [
            TopicPartition(name, n) for name, topic in sorted(self._topics.items()) for n in range(topic.partitions)
        ]

    def _bounds(self, consumer: KafkaConsumer, position: Mapping[str, int]) -> tuple[Position, Position]:
        """`position` with every partition named, and the end. Raises PositionLost, KafkaError.

        Compared here, since an offset that Kafka does not hold may show as silence instead of an error. An end that was
        not reached yet is not asked for again.
        """
        low = consumer.beginning_offsets(self._partitions())
        if unknown := sorted(set(position) - {_name(partition) for partition in low}):
            raise PositionLost(
                f"Kafka has no partition {', '.join(unknown)}: was the log's prefix or server changed? {gap.HINT}"
            )
        start = {_name(partition): position.get(_name(partition), offset) for partition, offset in low.items()}
        if has_reached(start, self._end) or not has_reached(self._end, start):
            self._end = {_name(partition): offset for partition, offset in consumer.end_offsets(list(low)).items()}
        for partition, lowest in low.items():
            offset, highest = start[_name(partition)], self._end[_name(partition)]
            if not lowest <= offset <= highest:
                lost = f"{lowest - offset} records are missing" if offset < lowest else "its newest records were lost"
                raise PositionLost(
                    f"{_name(partition)} holds offsets {lowest} to {highest}, but {offset} was asked for: {lost}; "
                    f"{gap.HINT}"
                )
        return start, dict(self._end)


def _origin(headers: Sequence[tuple[str, bytes]]) -> tuple[str, int] | None:
    """The spool that the record was shipped from and its number there; None for a record of another's making."""
    spool = sequence = b""
    for name, value in headers:
        if name == "spool":
            spool = value
        elif name == "sequence":
            sequence = value
    return (spool.decode(errors="replace"), int(sequence)) if spool and sequence.isdigit() else None


def new_consumer(cluster: Cluster) -> KafkaConsumer:
    """A consumer that is assigned nothing yet. Raises KafkaError.

    It does not let a fetch wait for records: the brokers answer a connection's requests one after another, and what
    asks for the bounds would wait behind it, half a second by default.
    """
    return cluster.open(
        KafkaConsumer,
        group_id=None,
        enable_auto_commit=False,
        auto_offset_reset="none",
        allow_auto_create_topics=False,
        max_partition_fetch_bytes=topics.MAX_REQUEST,
        fetch_max_wait_ms=1,
    )


def _name(partition: TopicPartition) -> str:
    return f"{partition.topic}/{partition.partition}"


def _partition(name: str) -> TopicPartition:
    topic, _, number = name.rpartition("/")
    return TopicPartition(topic, int(number))


def _ids(identity: str) -> dict[str, str]:
    """Topic → id; none for the name of a log that was no Kafka."""
    try:
        return dict(json.loads(identity))
    except (ValueError, TypeError):
        return {}


def _resume(
    before: Mapping[str, str], now: Mapping[str, str], position: Mapping[str, int], low: Position, high: Position
) -> tuple[Position, list[str]]:
    """`Source.resume_position` on values: topics' ids before and now, and the bounds of each partition."""
    missing = [f"{name}, read up to offset {position[name]}, is gone" for name in sorted(set(position) - set(low))]
    found: Position = {}
    for name, lowest in sorted(low.items()):
        topic, highest = _partition(name).topic, high[name]
        offset = found[name] = position.get(name, lowest)
        if name in position and before.get(topic) != now[topic]:
            missing.append(
                f"{name} was deleted and made anew: what followed offset {offset} of the old one is missing; "
                f"the new one is read from offset {lowest} on"
            )
            found[name] = lowest
        elif offset < lowest:
            missing.append(f"{name}: offsets {offset} to {lowest - 1} were removed: {lowest - offset} are missing")
            found[name] = lowest
        elif offset > highest:
            missing.append(f"{name} ends at offset {highest}: {offset - highest} that were read before are missing")
            found[name] = highest
    return found, missing
