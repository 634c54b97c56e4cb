"""The spool and its forwarder against a real broker: down, killed, refused records; and positions that Kafka lost."""

import base64
import dataclasses
import fcntl
import gc
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rlhf_online import events as ev
from rlhf_online import tracing
from rlhf_online.config import LogSettings
from rlhf_online.errors import LogLocked, LogUnavailable, PositionLost
from rlhf_online.eventlog import kafka_cluster
from rlhf_online.eventlog.base import DeadLetter, Record, has_reached
from rlhf_online.eventlog.local import LocalLog
from rlhf_online.eventlog.segments import segment_name
from rlhf_online.eventlog.spool import Spool
from rlhf_online.wire import encode
from tests.support.kafka_broker import Broker, missing_tools
from tests.support.logged import completion, feedback, ref, thumb
from tests.support.otlp import receiver
from tests.support.proxy import Proxy
from tests.support.waiting import until

ROOT = Path(__file__).resolve().parents[2]
SINK = """
import sys, time
from pathlib import Path
from tests.eventlog.test_kafka import _append, _sink, _votes
sink = _sink(Path(sys.argv[1]), *sys.argv[2:])
_append(sink, _votes(0, 1))
while not sink.shipped:
    time.sleep(0.01)
print(sink.forwarder_pid, flush=True)
time.sleep(600)
"""
"""A chat service's log whose first record Kafka has; says who ships it."""

# kafka-python reads its schemas by functions of the standard library that Python 3.11 and 3.12 call deprecated.
pytestmark = [
    pytest.mark.filterwarnings("ignore:(read|open)_text is deprecated:DeprecationWarning"),
    # It leaves the socket of a refused connection to the garbage collector, which `collect` runs within each test.
    pytest.mark.filterwarnings("ignore:Exception ignored in. <socket.socket:pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.skipif(bool(missing_tools()), reason=missing_tools() or "-"),
]


@pytest.fixture(autouse=True)
def collect() -> Iterator[None]:
    yield
    gc.collect()


@pytest.fixture
def prefix() -> str:
    return f"t{uuid.uuid4().hex[:8]}"


@pytest.fixture
def opened() -> Iterator[Callable[[Any], Any]]:
    """Registers what is to be closed at the end of a test."""
    things: list[Any] = []

    def register(thing: Any) -> Any:
        things.append(thing)
        return thing

    yield register
    for thing in reversed(things):
        thing.close()


def _cluster(address: str, prefix: str) -> Any:
    cluster = kafka_cluster(LogSettings(url=f"kafka://{address}", topic_prefix=prefix))
    assert cluster is not None
    return cluster


def _refused(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "refused.jsonl").read_text().splitlines()]


def _sink(folder: Path, address: str, prefix: str) -> Any:
    from rlhf_online.eventlog.kafka import KafkaSink

    return KafkaSink(folder, _cluster(address, prefix))


def _source(address: str, prefix: str, **options: float) -> Any:
    from rlhf_online.eventlog.kafka import KafkaSource

    return KafkaSource(_cluster(address, prefix), **options)


def _votes(start: int, stop: int) -> list[bytes]:
    return [encode(thumb("c", event_id=f"vote-{number}")) for number in range(start, stop)]


def _append(sink: Any, payloads: list[bytes]) -> None:
    for future in [sink.append(payload) for payload in payloads]:
        future.result(30)


def _shipped(sink: Any, count: int) -> None:
    until(lambda: sink.shipped >= count, 90, f"{count} records to be shipped")


def _read_all(source: Any) -> list[Record]:
    records: list[Record] = []
    position: dict[str, int] = {}
    while True:
        more, position = source.read(position, 1000)
        if not more:
            return records
        records += more


def _admin(address: str) -> Any:
    from kafka import KafkaAdminClient

    return KafkaAdminClient(bootstrap_servers=[address])


def test_each_kind_of_event_goes_to_its_topic_with_key_and_headers(tmp_path: Path, broker: Broker, prefix: str, opened):
    from kafka import KafkaConsumer
    from kafka.structs import TopicPartition

    change = ev.VersionChange(version="policy-000001", state="live", previous="", reason="", changed_ms=1)
    events = [
        completion("c", conversation="talk-1"),
        dataclasses.replace(thumb("c", event_id="vote"), traceparent="00-4bf9-00f0-01"),
        ev.Envelope(event_id="change", event=change),
    ]
    sink = opened(_sink(tmp_path, broker.address, prefix))
    _append(sink, [encode(event) for event in events])
    _shipped(sink, 3)
    consumer = opened(KafkaConsumer(bootstrap_servers=[broker.address], enable_auto_commit=False))
    for sequence, (topic, event) in enumerate(zip(["completions", "feedback", "versions"], events, strict=True)):
        partition = TopicPartition(f"{prefix}.{topic}", 0)
        consumer.assign([partition])
        consumer.seek(partition, 0)
        [message] = consumer.poll(timeout_ms=20_000)[partition]
        assert message.key == event.key.encode()
        assert message.value == encode(event)
        headers = dict(message.headers)
        assert headers["schema_version"] == b"1"
        assert headers["event_id"] == event.event_id.encode()
        assert headers["spool"].decode() == (tmp_path / "identity").read_text()
        assert headers["sequence"] == str(sequence).encode()
        assert headers.get("traceparent", b"").decode() == event.traceparent


def test_the_way_to_kafka_is_a_span_of_the_events_trace(tmp_path: Path, broker: Broker, prefix: str):
    """Of the forwarder's process, which is told where its parent sends spans; a name that is none is no trace."""
    sampled = f"00-{'b' * 32}-{'a' * 16}-01"
    with receiver() as collector:
        tracing.configure("chat", collector.url)
        try:
            sink = _sink(tmp_path, broker.address, prefix)
            traces = (sampled, "", sampled[:-1] + "0", "rubbish-01")
            _append(
                sink,
                [
                    encode(dataclasses.replace(thumb("c", event_id=f"vote-{number}"), traceparent=trace))
                    for number, trace in enumerate(traces)
                ],
            )
            _shipped(sink, 4)
            sink.close()
        finally:
            tracing.close()
        [sent] = collector.wait("send")
        assert [span.name for span in collector.spans] == ["send"]
    assert (sent.service, sent.kind, sent.trace, sent.parent) == (
        "rlhf-online-forwarder", "producer", "b" * 32, "a" * 16
    )  # fmt: skip
    assert sent.attributes == {"messaging.system": "kafka", "messaging.destination.name": f"{prefix}.feedback"}


def test_a_restart_ships_what_was_left_and_nothing_twice(tmp_path: Path, broker: Broker, prefix: str, opened):
    sink = _sink(tmp_path, broker.address, prefix)
    with pytest.raises(LogLocked):
        _sink(tmp_path, broker.address, prefix)
    _append(sink, _votes(0, 10))
    _shipped(sink, 10)
    sink.close()
    assert json.loads((tmp_path / "shipped.json").read_text())["shipped"] == 10
    sink = opened(_sink(tmp_path, broker.address, prefix))
    assert sink.shipped == 10
    _append(sink, _votes(10, 20))
    _shipped(sink, 20)
    records = _read_all(opened(_source(broker.address, prefix)))
    assert [record.payload for record in records] == _votes(0, 20)
    spool = (tmp_path / "identity").read_text()
    assert [record.origin for record in records] == [(spool, number) for number in range(20)]


def test_a_position_file_of_another_spool_is_not_believed(tmp_path: Path, broker: Broker, prefix: str, opened):
    (tmp_path / "shipped.json").write_text(json.dumps({"spool": "another", "shipped": 5}))
    sink = opened(_sink(tmp_path, broker.address, prefix))
    _append(sink, _votes(0, 3))
    _shipped(sink, 3)
    assert len(_read_all(opened(_source(broker.address, prefix)))) == 3
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "shipped.json").write_text("{")
    with pytest.raises(LogUnavailable, match=r"shipped.json cannot be read"):
        _sink(tmp_path / "broken", broker.address, prefix)


def test_a_record_that_can_not_be_shipped_is_named_and_the_others_go_on(tmp_path: Path, broker: Broker, prefix, opened):
    sink = opened(_sink(tmp_path, broker.address, prefix))
    votes = _votes(0, 4)
    _append(sink, [*votes[:2], b"\xff no envelope", *votes[2:]])
    _shipped(sink, 5)
    assert [record.payload for record in _read_all(opened(_source(broker.address, prefix)))] == votes
    assert sink.shipping().refused == 1
    [dead_letter] = _refused(tmp_path)
    assert (dead_letter["offset"], dead_letter["reason"]) == (2, "UndecodableEvent")
    assert base64.b64decode(dead_letter["payload"]) == b"\xff no envelope", "retention may remove its segment"


def test_a_record_that_the_topic_refuses_is_named_and_the_others_go_on(tmp_path: Path, broker: Broker, prefix, opened):
    admin = opened(_admin(broker.address))
    small = {"num_partitions": 1, "configs": {"max.message.bytes": 2000}}
    admin.create_topics({f"{prefix}.completions": small}, wait_for_metadata=True)
    sink = opened(_sink(tmp_path, broker.address, prefix))
    good = [encode(completion(f"c{number}")) for number in range(20)]
    _append(sink, [*good[:10], encode(completion("large", prompt=range(5000))), *good[10:]])
    _shipped(sink, 21)
    records = _read_all(opened(_source(broker.address, prefix)))
    assert set(good) == {record.payload for record in records}
    refused = [(record["offset"], record["event_id"], record["reason"]) for record in _refused(tmp_path)]
    assert refused == [(10, "large", "MessageSizeTooLargeError")]


def test_a_damaged_record_of_the_spool_is_put_away_and_the_others_go_on(
    tmp_path: Path, broker: Broker, prefix: str, opened
):
    votes = _votes(0, 5)
    with LocalLog(tmp_path) as log:
        for payload in votes:
            log.append(payload).result(30)
    path = tmp_path / segment_name(0)
    data = bytearray(path.read_bytes())
    data[data.index(votes[2])] ^= 1
    path.write_bytes(data)
    sink = opened(_sink(tmp_path, broker.address, prefix))
    _shipped(sink, 5)
    assert [record.payload for record in _read_all(opened(_source(broker.address, prefix)))] == votes[:2] + votes[3:]
    assert sink.shipping().refused == 1
    assert [(dead_letter["offset"], dead_letter["reason"][:8]) for dead_letter in _refused(tmp_path)] == [
        (2, "damaged:")
    ]


def test_a_topic_made_anew_is_not_the_same_log(tmp_path: Path, broker: Broker, prefix: str, opened):
    sink = _sink(tmp_path, broker.address, prefix)
    _append(sink, _votes(0, 5))
    _shipped(sink, 5)
    sink.close()
    source = opened(_source(broker.address, prefix, check_s=0.0))
    records, position = source.read({}, 10)
    assert len(records) == 5
    name = source.identity()
    opened(_admin(broker.address)).delete_topics([f"{prefix}.feedback"])
    with pytest.raises(PositionLost, match="made anew"):
        source.read(position, 10)
    fresh = opened(_source(broker.address, prefix))
    assert fresh.identity() != name
    with pytest.raises(PositionLost, match="gap accept"):
        fresh.read(position, 10)
    found, missing = fresh.resume_position(name, position)
    assert [sentence for sentence in missing if "offset 5 of the old one is missing" in sentence] == missing != []
    assert fresh.read(found, 10) == ([], found)
    assert fresh.resume_position(fresh.identity(), found) == (found, [])


def test_more_partitions_are_read_as_well_and_keep_their_conversations(tmp_path: Path, broker: Broker, prefix, opened):
    sink = _sink(tmp_path, broker.address, prefix)
    _append(sink, _votes(0, 5))
    _shipped(sink, 5)
    source = opened(_source(broker.address, prefix, check_s=0.0))
    name = source.identity()
    _, position = source.read({}, 10)
    opened(_admin(broker.address)).create_partitions({f"{prefix}.feedback": 4})
    vote = ev.Thumb(answer=ref("c"), up=True)
    talks = [encode(feedback(vote, conversation=f"talk-{n % 8}", event_id=f"later-{n}")) for n in range(64)]

    sink.close()
    sink = opened(_sink(tmp_path, broker.address, prefix))  # a producer looks for new partitions every five minutes
    _append(sink, talks)
    _shipped(sink, 5 + len(talks))
    assert sum(offset > 0 for part, offset in source.end().items() if "feedback" in part) > 1
    records: list[Record] = []
    while not has_reached(position, source.end()):
        more, position = source.read(position, 1000)
        records += more
    assert set(talks) <= {record.payload for record in records}
    assert source.identity() == name


def test_a_position_that_retention_passed_is_lost(tmp_path: Path, broker: Broker, prefix: str, opened):
    from kafka.structs import TopicPartition

    sink = opened(_sink(tmp_path, broker.address, prefix))
    _append(sink, _votes(0, 10))
    _shipped(sink, 10)
    before = opened(_source(broker.address, prefix))
    records, position = before.read({}, 3)
    opened(_admin(broker.address)).delete_records({TopicPartition(f"{prefix}.feedback", 0): 7})
    # What was fetched before it was removed is not lost.
    assert [record.offset for record in records + before.read(position, 10)[0]] == list(range(10))
    source = opened(_source(broker.address, prefix))
    with pytest.raises(PositionLost, match="4 records are missing"):
        source.read(position, 10)
    found, missing = source.resume_position(source.identity(), position)
    assert missing == [f"{prefix}.feedback/0: offsets 3 to 6 were removed: 4 are missing"]
    assert [record.offset for record in source.read(found, 10)[0]] == [7, 8, 9]
    # Who names no position asks for what there is.
    assert [record.offset for record in source.read({}, 10)[0]] == [7, 8, 9]


def test_what_cannot_be_used_goes_to_its_topic_with_place_and_reason(tmp_path: Path, broker: Broker, prefix, opened):
    from kafka import KafkaConsumer
    from kafka.structs import TopicPartition

    source = opened(_source(broker.address, prefix))
    source.write_dead_letters([])
    dead = DeadLetter(partition="p/0", offset=7, event_id="bad", reason="no envelope", payload=b"\xff")
    orphan = DeadLetter(partition="", offset=-1, event_id="vote", reason="no answer", payload=b"vote", orphan=True)
    source.write_dead_letters([dead, orphan])
    consumer = opened(KafkaConsumer(bootstrap_servers=[broker.address], enable_auto_commit=False))
    for topic, dead_letter in (("dead-letters", dead), ("orphans", orphan)):
        partition = TopicPartition(f"{prefix}.{topic}", 0)
        consumer.assign([partition])
        consumer.seek(partition, 0)
        [message] = consumer.poll(timeout_ms=20_000)[partition]
        assert message.value == dead_letter.payload
        place = f"{dead_letter.partition}:{dead_letter.offset}".encode()
        assert dict(message.headers) == {
            "place": place,
            "event_id": dead_letter.event_id.encode(),
            "reason": dead_letter.reason.encode(),
        }
    assert source.read({}, 10)[0] == [], "they are no events"


def test_a_position_of_another_log_is_refused(tmp_path: Path, broker: Broker, prefix: str, opened):
    with pytest.raises(PositionLost, match="no partition local"):
        opened(_source(broker.address, prefix)).read({"local": 3}, 10)


def test_nothing_is_lost_while_the_broker_is_down_or_killed(tmp_path: Path, prefix: str, opened):
    broker = opened(_Closing(Broker(tmp_path / "kafka"))).broker
    before = threading.active_count()
    sink = _sink(tmp_path / "log", broker.address, prefix)
    _append(sink, _votes(0, 100))  # acknowledged without a broker
    assert sink.shipped == 0
    until(lambda: sink.shipping().oldest_ms == 2_000, 30, "the forwarder to see what waits")  # when `_votes` happened
    assert sink.shipping().backlog == 100
    with pytest.raises(LogUnavailable, match="does not answer"):
        _source(broker.address, prefix).end()
    with pytest.raises(LogUnavailable, match="does not answer"):
        dead_letter = DeadLetter(partition="p", offset=0, event_id="e", reason="r", payload=b"x")
        _source(broker.address, prefix).write_dead_letters([dead_letter])
    broker.start()
    _shipped(sink, 100)
    until(lambda: sink.shipping().oldest_ms == 0, 30, "the forwarder to see that nothing waits")
    assert (sink.shipping().backlog, sink.shipping().refused) == (0, 0)
    assert sink.shipping().failures > 0
    for start in (100, 3100):
        _append(sink, _votes(start, start + 1000))
        until(lambda start=start: sink.shipped > start, 60, "deliveries to begin")
        broker.kill()
        _append(sink, _votes(start + 1000, start + 3000))
        assert sink.shipped < start + 3000
        broker.start()
        _shipped(sink, start + 3000)
    sink.close()
    assert threading.active_count() == before
    records = _read_all(opened(_source(broker.address, prefix)))
    # The order of first arrivals is that of the spool; what came twice has the same bytes, event id and all.
    assert list(dict.fromkeys(record.payload for record in records)) == _votes(0, 6100)


def test_deliveries_to_a_broker_that_hangs_are_made_again(tmp_path: Path, prefix: str, opened):
    """Longer than a delivery may take: by then kafka-python's producer is stuck for good, and another takes over."""
    from rlhf_online.eventlog.kafka.forwarder import Forwarder

    broker = opened(_Closing(Broker(tmp_path / "kafka"))).broker
    broker.start()
    before = threading.active_count()
    log = opened(LocalLog(tmp_path / "log"))
    forwarder = Forwarder(Spool(tmp_path / "log"), _cluster(broker.address, prefix), delivery_s=1.0)
    try:
        _append(log, _votes(0, 10))
        until(lambda: forwarder.shipped == 10, 30, "the first deliveries")
        os.kill(broker.pid, signal.SIGSTOP)
        try:
            _append(log, _votes(10, 3000))
            until(lambda: forwarder.failures >= 2, 60, "deliveries to fail twice")
        finally:
            os.kill(broker.pid, signal.SIGCONT)
        until(lambda: forwarder.shipped == 3000, 60, "the backlog to drain")
    finally:
        forwarder.close()
    assert threading.active_count() == before + 1  # the log's writer
    records = _read_all(opened(_source(broker.address, prefix)))
    assert list(dict.fromkeys(record.payload for record in records)) == _votes(0, 3000)


def test_a_forwarder_that_is_killed_is_started_again_and_goes_on(tmp_path: Path, broker: Broker, prefix: str, opened):
    sink = opened(_sink(tmp_path, broker.address, prefix))
    for start in (0, 500, 1000):
        _append(sink, _votes(start, start + 500))
        until(lambda: sink.forwarder_pid is not None and sink.shipped > 0, 60, "a forwarder at work")
        os.kill(sink.forwarder_pid, signal.SIGKILL)
        until(lambda start=start: sink.shipping().failures > start // 500, 60, "its end to be seen")
    _shipped(sink, 1500)
    records = _read_all(opened(_source(broker.address, prefix)))
    assert list(dict.fromkeys(record.payload for record in records)) == _votes(0, 1500)


def test_a_forwarder_ends_with_its_sink_and_the_next_one_waits_for_it(tmp_path: Path, broker: Broker, prefix: str):
    """Whoever had the spool last is let finish: two that ship at once would overwrite each other's position."""
    writer = subprocess.Popen(
        [sys.executable, "-c", SINK, str(tmp_path), broker.address, prefix],
        cwd=ROOT,
        text=True,
        stdout=subprocess.PIPE,
    )
    try:
        assert writer.stdout is not None
        orphan = int(writer.stdout.readline())
        os.kill(orphan, signal.SIGSTOP)
    finally:
        writer.kill()
        writer.communicate()
    sink = _sink(tmp_path, broker.address, prefix)
    try:
        _append(sink, _votes(1, 10))
        until(lambda: sink.forwarder_pid is not None, 60, "the next forwarder")
        with (tmp_path / "forwarder.lock").open() as file, pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        assert sink.shipped <= 1
        os.kill(orphan, signal.SIGCONT)
        _shipped(sink, 10)
    finally:
        sink.close()
    with (tmp_path / "forwarder.lock").open() as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # nobody is left


def test_an_address_that_closes_every_connection_is_not_hammered(tmp_path: Path, broker: Broker, prefix: str, opened):
    """A load balancer whose brokers went away: after each connection lost, the pause before the next one grows."""
    with Proxy() as proxy:
        proxy.target = broker.port
        near = opened(_Closing(Broker(tmp_path / "kafka", advertised=proxy.port))).broker
        near.start()
        proxy.target = near.port
        sink = opened(_sink(tmp_path / "log", proxy.address, prefix))
        _append(sink, _votes(0, 10))
        _shipped(sink, 10)
        proxy.cut = True
        before = proxy.connections
        _append(sink, _votes(10, 20))
        until(lambda: sink.shipping().failures > 0, 90, "a delivery to be given up")
        assert proxy.connections - before < 300, "at most one each 50 ms and then each half second, over 20 s"
        proxy.cut = False
        _shipped(sink, 20)


def test_closing_does_not_wait_for_a_broker_that_is_away(tmp_path: Path, prefix: str, opened):
    before = threading.active_count()
    with socket.socket() as silent:  # takes connections and never answers
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        sink = _sink(tmp_path, f"127.0.0.1:{silent.getsockname()[1]}", prefix)
        _append(sink, _votes(0, 5))
        sink.close()
        assert threading.active_count() == before
    broker = opened(_Closing(Broker(tmp_path / "kafka"))).broker
    broker.start()
    sink = opened(_sink(tmp_path, broker.address, prefix))
    _shipped(sink, 5)


class _Closing:
    def __init__(self, broker: Broker) -> None:
        self.broker = broker

    def close(self) -> None:
        self.broker.stop()


def test_a_forwarder_that_cannot_be_started_for_now_is_started_later(tmp_path: Path, monkeypatch) -> None:
    """No broker is needed for that, and no process can be had for a while."""
    from rlhf_online.eventlog import open_sink
    from rlhf_online.eventlog.kafka import sink as module

    sink = open_sink(LogSettings(url="kafka://127.0.0.1:1"), tmp_path / "log")
    assert isinstance(sink, module.KafkaSink)
    first, tries, popen = sink.forwarder_pid, 0, subprocess.Popen

    def start(*args: Any, **kwargs: Any) -> Any:
        nonlocal tries
        tries += 1
        if tries <= 2:
            raise BlockingIOError(11, "Resource temporarily unavailable")
        return popen(*args, **kwargs)

    try:
        monkeypatch.setattr(module.subprocess, "Popen", start)
        assert first is not None
        os.kill(first, signal.SIGKILL)
        until(lambda: sink.forwarder_pid not in (None, first), 30, "another forwarder")
        assert tries == 3
    finally:
        sink.close()
