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
        BEFORE, BEFORE, {"t.feedback/0": 7, "t.feedback/1": 9, "t.versions/0": 1, "t.old/0": 4}, LOW, HIGH
    )
    assert found == {"t.feedback/0": 10, "t.feedback/1": 5, "t.versions/0": 1}
    assert missing == [
        "t.old/0, read up to offset 4, is gone",
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
        self._at: dict[str, int] = {}

    def __str__(self) -> str:
        return "the broker"

    def unavailable(self, error: KafkaError) -> LogUnavailable:
        return LogUnavailable(f"{self} does not answer ({type(error).__name__})")

    def consumer(self, cluster: object) -> "Broker":
        self.opened, self.open_now = self.opened + 1, self.open_now + 1
        return self

    def assign(self, partitions: Sequence[TopicPartition]) -> None:
        self._at = dict.fromkeys(map(_name, partitions), 0)

    def seek(self, partition: TopicPartition, offset: int) -> None:
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
        found: dict[TopicPartition, list[SimpleNamespace]] = {}
        for name in reversed(self.records):  # in no order of its own
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
    records, _ = reader.read({"t.feedback/0": 2, "t.feedback/1": 1}, 100)
    assert [record.payload for record in records] == [b"c", b"y"], "back, where somebody asks for it"
    assert reader.read({"t.feedback/0": 1}, 0) == ([], {"t.feedback/0": 1, "t.feedback/1": 0})


def test_the_brokers_are_asked_for_bounds_only_where_they_may_have_moved(broker_of_values: Broker) -> None:
    broker = broker_of_values
    broker.records["t.feedback/0"] = [b"%d" % number for number in range(6)]
    reader = _source(broker)
    _, position = reader.read({}, 2)
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


def test_how_often_the_topics_are_compared_is_a_setting(broker_of_values: Broker) -> None:
    broker, reader = broker_of_values, _source(broker_of_values, check_s=3600.0)
    reader.end()
    broker.topic = replace(broker.topic, topic_id="two")
    reader.end()
    assert broker.opened == 1, "not for an hour"
