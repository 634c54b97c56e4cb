"""What a reader of Kafka's topics makes of what the brokers say: on values. With real ones: `test_contract` and
`test_kafka`."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import cast

import pytest

pytest.importorskip("kafka")
from kafka.errors import KafkaConnectionError, KafkaError, OffsetOutOfRangeError
from kafka.structs import TopicPartition

from rlhf_online.errors import LogUnavailable, PositionLost
from rlhf_online.eventlog.base import DeadLetter
from rlhf_online.eventlog.kafka import source
from rlhf_online.eventlog.kafka.cluster import Cluster
from rlhf_online.eventlog.kafka.source import KafkaSource, _ids, _name, _origin, _partition, _resume
from rlhf_online.eventlog.kafka.topics import Topic

BEFORE = {"t.feedback": "one", "t.versions": "two"}
LOW, HIGH = {"t.feedback/0": 10, "t.feedback/1": 0, "t.versions/0": 0}, {
    "t.feedback/0": 20, "t.feedback/1": 5, "t.versions/0": 3
}  # fmt: skip


def test_where_nothing_is_missing_a_reader_goes_on_where_it_was() -> None:
    at = {"t.feedback/0": 10, "t.feedback/1": 5, "t.versions/0": 1}
    assert _resume(BEFORE, BEFORE, at, LOW, HIGH) == (at, [])
    assert _resume(BEFORE, BEFORE, {}, LOW, HIGH) == (LOW, []), "a partition that it never read it reads from its first"
    assert _resume({}, BEFORE, {}, LOW, HIGH) == (LOW, [])


def test_what_is_missing_is_told_partition_by_partition() -> None:
    found, missing = _resume(
        BEFORE,
        BEFORE,
        {"t.feedback/0": 7, "t.feedback/1": 9, "t.versions/0": 1} | {f"t.old/{number}": 4 for number in (3, 0, 2, 1)},
        dict(reversed(LOW.items())),
        HIGH,
    )
    assert found == {"t.feedback/0": 10, "t.feedback/1": 5, "t.versions/0": 1}
    assert missing == [
        *(f"t.old/{number}, read up to offset 4, is gone" for number in range(4)),
        "t.feedback/0: offsets 7 to 9 were removed: 3 are missing",
        "t.feedback/1 ends at offset 5: 4 that were read before are missing",
    ]


def test_a_topic_that_was_made_anew_is_read_from_its_beginning_and_the_others_go_on() -> None:
    now = BEFORE | {"t.feedback": "another"}
    found, [sentence] = _resume(BEFORE, now, {"t.feedback/0": 15, "t.versions/0": 2}, LOW, HIGH)
    assert found == {"t.feedback/0": 10, "t.feedback/1": 0, "t.versions/0": 2}
    assert sentence.startswith("t.feedback/0 was deleted and made anew: what followed offset 15 of the old one")
    assert sentence.endswith("the new one is read from offset 10 on")


@pytest.mark.parametrize("identity", ["", "9b2d6c1e-0000-4000-8000-000000000000", "[1]", "null"])
def test_a_log_that_was_no_kafka_has_no_topics(identity: str) -> None:
    assert _ids(identity) == {} and _ids(json.dumps(BEFORE)) == BEFORE


@pytest.mark.parametrize(
    ("headers", "origin"),
    [
        ([("event_id", b"x"), ("spool", b"a log"), ("sequence", b"17")], ("a log", 17)),
        ([("sequence", b"0"), ("spool", b"a log")], ("a log", 0)),
        ([("spool", b"\xff"), ("sequence", b"1")], ("\ufffd", 1)),
        ([("spool", b"a log")], None),
        ([("spool", b"a log"), ("sequence", b"-1")], None),
        ([("spool", b""), ("sequence", b"1")], None),
        ([], None),
    ],
)
def test_a_record_that_was_shipped_says_from_where(
    headers: Sequence[tuple[str, bytes]], origin: tuple[str, int] | None
) -> None:
    assert _origin(headers) == origin


class Broker:
    """A cluster of one topic with two partitions, and the one consumer that is open; `error` is what it raises next."""

    prefix = "t"

    def __init__(self) -> None:
        self.records: dict[str, list[bytes]] = {"t.feedback/0": [], "t.feedback/1": []}
        self.first = dict.fromkeys(self.records, 0)
        self.topic = Topic("t.feedback", 2, 1, topic_id="one")
        self.error: Exception | None = None
        self.asked: list[str] = []
        self.opened = self.open_now = 0
        self.silent = False
        self.on_poll: Callable[[], object] = lambda: None
        self._at: dict[str, int] = {}

        self.open: Callable[..., object] | None = None

    def __str__(self) -> str:
        return "the broker"

    def unavailable(self, error: KafkaError) -> LogUnavailable:
        return LogUnavailable(f"{self} does not answer ({type(error).__name__})")

    def consumer(self, cluster: object) -> "Broker":
        self.opened, self.open_now, self._at = self.opened + 1, self.open_now + 1, {}
        return self

    def assign(self, partitions: Sequence[TopicPartition]) -> None:
        self._at = dict.fromkeys(map(_name, partitions), 0)

    def seek(self, partition: TopicPartition, offset: int) -> None:
        assert _name(partition) in self._at, "it is not assigned"
        self._at[_name(partition)] = offset

    def _ask(self, what: str) -> None:
        self.asked.append(what)
        if self.error is not None:
            error, self.error = self.error, None
            raise error

    def beginning_offsets(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        self._ask("begin")
        return {partition: self.first[_name(partition)] for partition in partitions}

    def end_offsets(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        self._ask("end")
        return {p: self.first[_name(p)] + len(self.records[_name(p)]) for p in partitions}

    def poll(self, timeout_ms: int, max_records: int) -> dict[TopicPartition, list[SimpleNamespace]]:
        self._ask("poll")
        self.on_poll()
        found: dict[TopicPartition, list[SimpleNamespace]] = {}
        for name in reversed(self._at):  # in no order of its own
            skipped = self._at[name] - self.first[name]
            taken = [] if self.silent else self.records[name][skipped : skipped + max_records]
            if taken:
                found[_partition(name)] = [
                    SimpleNamespace(offset=self._at[name] + n, value=value, headers=[]) for n, value in enumerate(taken)
                ]
                self._at[name] += len(taken)
                max_records -= len(taken)
        return found

    def close(self, autocommit: bool, timeout_ms: int) -> None:
        assert not autocommit, "positions are the caller's"
        self.open_now -= 1


@pytest.fixture
def broker_of_values(monkeypatch: pytest.MonkeyPatch) -> Broker:
    broker = Broker()
    monkeypatch.setattr(source.topics, "ensure", lambda cluster: {"t.feedback": broker.topic})
    monkeypatch.setattr(source, "new_consumer", broker.consumer)
    return broker


def _source(broker: Broker, **options: float) -> KafkaSource:
    return KafkaSource(cast(Cluster, broker), **options)


def test_records_come_partition_by_partition_each_once_wherever_one_begins(broker_of_values: Broker) -> None:
    broker = broker_of_values
    broker.records = {"t.feedback/0": [b"a", b"b", b"c"], "t.feedback/1": [b"x", b"y"]}
    reader = _source(broker)
    records, position = reader.read({}, 100)
    assert [(record.partition, record.offset, record.payload) for record in records] == [
        ("t.feedback/0", 0, b"a"), ("t.feedback/0", 1, b"b"), ("t.feedback/0", 2, b"c"),
        ("t.feedback/1", 0, b"x"), ("t.feedback/1", 1, b"y"),
    ]  # fmt: skip
    assert position == reader.end() == {"t.feedback/0": 3, "t.feedback/1": 2}
    assert reader.read(position, 100) == ([], position)
    broker.records["t.feedback/1"].append(b"z")
    assert reader.end() == {"t.feedback/0": 3, "t.feedback/1": 3}
    records, _ = reader.read({"t.feedback/0": 2, "t.feedback/1": 1}, 100)
    assert [record.payload for record in records] == [b"c", b"y", b"z"], "back, where somebody asks for it"
    assert [record.payload for record in reader.read({"t.feedback/0": 1}, 1)[0]] in ([b"b"], [b"x"])
    assert reader.read({"t.feedback/0": 1}, 0) == ([], {"t.feedback/0": 1, "t.feedback/1": 0})


def test_the_brokers_are_asked_for_bounds_only_where_they_may_have_moved(broker_of_values: Broker) -> None:
    broker = broker_of_values
    broker.records["t.feedback/0"] = [b"%d" % number for number in range(6)]
    reader = _source(broker)
    _, position = reader.read({}, 2)
    assert position == {"t.feedback/0": 2, "t.feedback/1": 0}, "also what nothing has come of"
    assert broker.asked == ["begin", "end", "poll"]
    broker.asked.clear()
    for _ in range(2):
        _, position = reader.read(position, 2)
    assert broker.asked == ["poll", "poll"] and position["t.feedback/0"] == 6
    broker.asked.clear()
    broker.records["t.feedback/0"].append(b"6")
    records, _ = reader.read(position, 2)
    assert [record.payload for record in records] == [b"6"] and broker.asked == ["begin", "end", "poll"]


@pytest.mark.parametrize("call", ["read", "end", "identity", "resume_position"])
def test_while_kafka_is_away_everything_is_unavailable_and_the_next_call_has_a_client_of_its_own(
    broker_of_values: Broker, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    broker, reader = broker_of_values, _source(broker_of_values, check_s=-1.0)
    broker.records["t.feedback/0"] = [b"a"]
    ask: dict[str, Callable[[], object]] = {
        "read": lambda: reader.read({}, 10),
        "end": reader.end,
        "identity": reader.identity,
        "resume_position": lambda: reader.resume_position(reader.identity(), {}),
    }
    ask[call]()
    with monkeypatch.context() as away:
        if call == "identity":
            away.setattr(source.topics, "ensure", lambda cluster: broker._ask("topics"))  # noqa: SLF001
        broker.error = KafkaConnectionError("refused")
        with pytest.raises(LogUnavailable, match=r"the broker does not answer \(KafkaConnectionError\)"):
            ask[call]()
    assert broker.open_now == 0, "what may be broken is left behind"
    ask[call]()
    assert (broker.opened, broker.open_now) == (2, 1)
    reader.close()
    reader.close()
    assert broker.open_now == 0


def test_what_kafka_no_longer_has_is_lost_however_it_says_so(broker_of_values: Broker) -> None:
    broker = broker_of_values
    broker.records["t.feedback/0"], broker.first["t.feedback/0"] = [b"c", b"d"], 2
    reader = _source(broker)
    with pytest.raises(PositionLost, match="holds offsets 2 to 4, but 1 was asked for: 1 records are missing"):
        reader.read({"t.feedback/0": 1}, 10)
    with pytest.raises(PositionLost, match="but 5 was asked for: its newest records were lost"):
        reader.read({"t.feedback/0": 5}, 10)
    with pytest.raises(PositionLost, match=r"no partition t\.old/0"):
        reader.read({"t.old/0": 0}, 10)
    with pytest.raises(PositionLost, match=r"no partition t\.a/0, t\.b/0, t\.c/0, t\.d/0: "):
        reader.read({f"t.{name}/0": 0 for name in "cadb"}, 10)
    for at in (2, 4):
        reader.read({"t.feedback/0": at, "t.feedback/1": 0}, 10)
    broker.error = OffsetOutOfRangeError("it says")
    with pytest.raises(PositionLost, match=r"no longer has what follows .*it says"):
        reader.read({"t.feedback/0": 2}, 10)
    assert broker.open_now == 0


def test_a_kafka_that_delivers_nothing_of_what_it_holds_is_away(broker_of_values: Broker) -> None:
    broker = broker_of_values
    broker.records["t.feedback/0"], broker.silent = [b"a"], True
    with pytest.raises(LogUnavailable, match="the broker delivers nothing: is it overloaded"):
        _source(broker, timeout_s=0.0).read({}, 10)


def test_what_is_removed_while_one_waits_for_it_is_lost_and_not_late(broker_of_values: Broker) -> None:
    broker = broker_of_values
    broker.records["t.feedback/0"], broker.silent = [b"a", b"b"], True
    broker.on_poll = lambda: broker.first.update({"t.feedback/0": 2})
    with pytest.raises(PositionLost, match="but 0 was asked for: 2 records are missing"):
        _source(broker, timeout_s=0.0).read({}, 10)


def test_an_end_that_is_passed_in_one_partition_is_asked_for_again(broker_of_values: Broker) -> None:
    """By a position that another reader came to."""
    broker = broker_of_values
    broker.records["t.feedback/0"] = [b"a", b"b", b"c"]
    reader = _source(broker)
    assert reader.end() == {"t.feedback/0": 3, "t.feedback/1": 0}
    broker.records["t.feedback/1"] = [b"x", b"y"]
    records, _ = reader.read({"t.feedback/0": 1, "t.feedback/1": 2}, 10)
    assert [record.payload for record in records] == [b"b", b"c"]


def test_a_kafka_that_delivers_again_is_read_from_where_it_was_asked(broker_of_values: Broker) -> None:
    broker = broker_of_values
    broker.records["t.feedback/0"] = [b"a", b"b", b"c"]
    reader = _source(broker, timeout_s=0.0)
    _, position = reader.read({}, 1)
    broker.silent = True
    with pytest.raises(LogUnavailable, match="delivers nothing"):
        reader.read({}, 1)
    broker.silent = False
    broker.asked.clear()
    assert [record.payload for record in reader.read(position, 10)[0]] == [b"b", b"c"]
    assert broker.asked == ["begin", "end", "poll"], "what it held may be gone by now"


class Producer:
    """Takes what it is sent; `error` is what becomes of each delivery."""

    def __init__(self) -> None:
        self.sent: list[dict[str, object]] = []
        self.options: dict[str, object] = {}
        self.error: Exception | None = None
        self.waited: list[float] = []
        self.ensured = self.opened = self.closed = 0

    def send(self, topic: str, **record: object) -> "Producer":
        self.sent.append({"topic": topic, **record})
        return self

    def get(self, timeout: float) -> None:
        self.waited.append(timeout)
        if self.error is not None:
            raise self.error

    def open(self, kind: object, **options: object) -> "Producer":
        self.opened, self.options = self.opened + 1, options
        return self


@pytest.fixture
def producer(broker_of_values: Broker, monkeypatch: pytest.MonkeyPatch) -> Producer:
    producer = Producer()
    broker_of_values.open = producer.open

    def ensure(cluster: object) -> None:
        producer.ensured += 1

    monkeypatch.setattr(source.topics, "ensure", ensure)
    monkeypatch.setattr(source, "force_close", lambda opened: setattr(opened, "closed", opened.closed + 1))
    return producer


def test_what_cannot_be_used_is_sent_with_its_place_and_why_once_its_topics_are_there(
    broker_of_values: Broker, producer: Producer
) -> None:
    reader = _source(broker_of_values)
    reader.write_dead_letters([])
    assert (producer.ensured, producer.opened) == (0, 0), "nobody is asked for nothing"
    dead = DeadLetter(partition="t.feedback/0", offset=7, event_id="a", reason="no envelope", payload=b"\xff")
    reader.write_dead_letters([dead, replace(dead, orphan=True)])
    headers = [("place", b"t.feedback/0:7"), ("event_id", b"a"), ("reason", b"no envelope")]
    record = {"key": b"t.feedback/0:7", "value": b"\xff", "headers": headers}
    assert producer.sent == [{"topic": "t.dead-letters", **record}, {"topic": "t.orphans", **record}]
    assert (producer.ensured, producer.opened, producer.closed) == (1, 1, 1)
    assert producer.options["acks"] == "all" and producer.options["max_request_size"] == 17 << 20
    delivery_s = cast(int, producer.options["delivery_timeout_ms"]) / 1000
    assert all(delivery_s < waited < 2 * delivery_s for waited in producer.waited), "the delivery's own end comes first"
    assert len(producer.waited) == 2


def test_dead_letters_that_kafka_does_not_take_are_not_written(broker_of_values: Broker, producer: Producer) -> None:
    producer.error = KafkaConnectionError("refused")
    letter = DeadLetter(partition="", offset=-1, event_id="a", reason="why", payload=b"")
    with pytest.raises(LogUnavailable, match=r"the broker does not answer \(KafkaConnectionError\)"):
        _source(broker_of_values).write_dead_letters([letter])
    assert producer.closed == 1


def test_a_consumer_keeps_no_position_and_takes_no_other_than_it_is_given() -> None:
    producer = Producer()
    assert source.new_consumer(cast(Cluster, producer)) is producer
    assert producer.options == {
        "group_id": None,
        "enable_auto_commit": False,
        "auto_offset_reset": "none",
        "allow_auto_create_topics": False,
        "max_partition_fetch_bytes": 17 << 20,
        "fetch_max_wait_ms": 1,
    }


def test_more_partitions_are_read_and_fewer_or_another_topic_are_a_loss(broker_of_values: Broker) -> None:
    broker, reader = broker_of_values, _source(broker_of_values, check_s=-1.0)
    before = reader.identity()
    broker.topic = replace(broker.topic, partitions=3)
    broker.records["t.feedback/2"], broker.first["t.feedback/2"] = [b"z"], 0
    assert [record.payload for record in reader.read({}, 10)[0]] == [b"z"]
    assert reader.identity() == before == json.dumps({"t.feedback": "one"}), "it is the same log"
    assert reader.resume_position(before, {"t.feedback/2": 5})[0]["t.feedback/2"] == 1
    broker.topic = replace(broker.topic, partitions=1)
    with pytest.raises(PositionLost, match="had 3 partitions and has 1"):
        reader.end()
    broker.topic = replace(broker.topic, partitions=3, topic_id="two")
    with pytest.raises(PositionLost, match=r"t\.feedback was deleted and made anew"):
        reader.end()


def test_a_log_has_one_name_in_whatever_order_its_topics_are_told(
    broker_of_values: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is kept beside the events is no part of it."""
    names = ["t.versions", "t.dead-letters", "t.feedback", "t.completions"]
    told = {name: Topic(name, 1, 1, topic_id=f"id of {name}") for name in names}
    monkeypatch.setattr(source.topics, "ensure", lambda cluster: told)
    name = _source(broker_of_values).identity()
    events = ("t.completions", "t.feedback", "t.versions")
    assert name == json.dumps({name: f"id of {name}" for name in events})


def test_how_often_the_topics_are_compared_is_a_setting(broker_of_values: Broker) -> None:
    broker, reader = broker_of_values, _source(broker_of_values, check_s=3600.0)
    reader.end()
    broker.topic = replace(broker.topic, topic_id="two")
    reader.end()
    assert broker.opened == 1, "not for an hour"
