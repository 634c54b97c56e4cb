"""What a forwarder sends, when, and what it takes for shipped: a real spool, and a producer whose deliveries a test
confirms. Against a real broker: `test_kafka`."""

import itertools
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

pytest.importorskip("kafka")
from kafka.errors import KafkaError, KafkaTimeoutError, MessageSizeTooLargeError
from structlog.testing import capture_logs

from rlhf_online import events as ev
from rlhf_online.config import KafkaSettings
from rlhf_online.eventlog.kafka import forwarder as forwarding
from rlhf_online.eventlog.kafka.cluster import Cluster
from rlhf_online.eventlog.kafka.forwarder import Forwarder
from rlhf_online.eventlog.local import LocalLog
from rlhf_online.eventlog.spool import Spool
from rlhf_online.wire import encode
from tests.support.logged import completion, feedback, ref, thumb
from tests.support.waiting import until


class Delivery:
    """The future of kafka-python's `send`."""

    def __init__(self, record: dict[str, Any]) -> None:
        self.record = record
        self._done = threading.Event()
        self._error: Exception | None = None

    def settle(self, error: Exception | None = None) -> None:
        self._error = error
        self._done.set()

    @property
    def is_done(self) -> bool:
        return self._done.is_set()

    def succeeded(self) -> bool:
        return self.is_done and self._error is None

    def get(self, timeout: float) -> None:
        if not self._done.wait(timeout):
            raise KafkaTimeoutError
        if self._error is not None:
            raise self._error


class Kafka:
    """A cluster whose producers keep what they are given; `on_send` settles it, or raises."""

    def __init__(self) -> None:
        self.prefix, self.settings = "t", KafkaSettings()
        self.sent: list[Delivery] = []
        self.producers = self.closed = 0
        self.on_send: Callable[[Delivery], None] = Delivery.settle

    def open(self, kind: object, **options: Any) -> "Kafka":
        self.producers += 1
        return self

    def send(self, topic: str, **record: Any) -> Delivery:
        delivery = Delivery({"topic": topic, **record})
        self.on_send(delivery)
        self.sent.append(delivery)
        return delivery

    def values(self) -> list[bytes]:
        return [delivery.record["value"] for delivery in self.sent]


@pytest.fixture
def kafka(monkeypatch: pytest.MonkeyPatch) -> Kafka:
    kafka = Kafka()
    monkeypatch.setattr(forwarding.topics, "ensure", lambda cluster: {})
    monkeypatch.setattr(forwarding, "force_close", lambda producer: setattr(producer, "closed", producer.closed + 1))
    return kafka


@pytest.fixture
def log(tmp_path: Path) -> Iterator[LocalLog]:
    with LocalLog(tmp_path) as log:
        yield log


@pytest.fixture
def start(tmp_path: Path, kafka: Kafka) -> Iterator[Callable[..., Forwarder]]:
    running: list[Forwarder] = []

    def start(**options: float) -> Forwarder:
        running.append(Forwarder(Spool(tmp_path), cast(Cluster, kafka), **options))
        return running[-1]

    yield start
    for forwarder in running:
        forwarder.close()


def _votes(log: LocalLog, *numbers: int) -> list[bytes]:
    votes = [encode(thumb("c", event_id=f"vote-{number}", at_ms=1000 + number)) for number in numbers]
    for future in [log.append(vote) for vote in votes]:
        future.result(30)
    return votes


def _refused(folder: Path) -> list[tuple[int, str, str]]:
    letters = map(json.loads, (folder / "refused.jsonl").read_text().splitlines())
    return [(letter["offset"], letter["event_id"], letter["reason"]) for letter in letters]


def test_a_record_goes_to_the_topic_of_its_kind_with_its_key_and_where_it_came_from(
    log: LocalLog, kafka: Kafka, start: Callable[..., Forwarder]
) -> None:
    traced = completion("c", conversation="talk c")
    log.append(encode(traced)).result(30)
    [vote] = _votes(log, 1)
    forwarder = start()
    until(lambda: forwarder.shipped == 2, 30, "both to be shipped")
    assert [delivery.record["topic"] for delivery in kafka.sent] == ["t.completions", "t.feedback"]
    assert [delivery.record["key"] for delivery in kafka.sent] == [b"talk c", b"talk"]
    assert kafka.sent[1].record["value"] == vote
    assert dict(kafka.sent[1].record["headers"]) == {
        "schema_version": b"1", "event_id": b"vote-1", "spool": log.identity.encode(), "sequence": b"1"
    }  # fmt: skip


def test_what_waits_is_told_and_nothing_counts_before_kafka_has_it(
    log: LocalLog, kafka: Kafka, start: Callable[..., Forwarder]
) -> None:
    kafka.on_send = lambda delivery: None
    _votes(log, 0, 1, 2)
    forwarder = start()
    until(lambda: len(kafka.sent) == 3, 30, "all to be sent")
    assert forwarder.progress() == (0, 0, 1000, 0, 0), "the first of them waits since then"
    kafka.sent[1].settle()
    kafka.sent[2].settle()
    assert forwarder.shipped == 0, "the first is missing"
    kafka.sent[0].settle()
    until(lambda: forwarder.progress().saved == 3, 30, "the position to be saved")
    until(lambda: forwarder.progress() == (3, 3, 0, 0, 0), 30, "nothing to wait")
    assert (kafka.producers, kafka.closed) == (1, 0)


def test_the_oldest_that_waits_is_told_anew_as_others_leave(
    log: LocalLog, kafka: Kafka, start: Callable[..., Forwarder], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forwarding, "_SAVE_EVERY_S", 0.0)
    kafka.on_send = lambda delivery: None
    _votes(log, 0, 1, 2)
    forwarder = start()
    until(lambda: len(kafka.sent) == 3, 30, "all to be sent")
    for settled in (1, 2):
        kafka.sent[settled - 1].settle()
        until(lambda settled=settled: forwarder.progress()[:3] == (settled, settled, 1000 + settled), 30, "the next")
    kafka.sent[2].settle()


def test_it_pauses_only_once_nothing_waits(
    log: LocalLog, kafka: Kafka, start: Callable[..., Forwarder], monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float | None] = []

    class Noted(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            pauses.append(timeout)
            return super().wait(0.001)

    monkeypatch.setattr(forwarding, "threading", SimpleNamespace(Event=Noted, Thread=threading.Thread))
    monkeypatch.setattr(forwarding, "_READ", 1)
    _votes(log, 0, 1, 2)
    start()
    until(lambda: len(pauses) > 3, 30, "all to be shipped")
    assert pauses[:3] == [0.0] * 3 and pauses[3] != 0.0


def test_after_a_failed_delivery_all_that_was_not_confirmed_is_sent_again_in_order(
    log: LocalLog, kafka: Kafka, start: Callable[..., Forwarder]
) -> None:
    failed: list[Delivery] = []

    def fail_the_second_once(delivery: Delivery) -> None:
        if len(kafka.sent) == 1:
            failed.append(delivery)
            delivery.settle(KafkaError("lost"))
        else:
            delivery.settle()

    kafka.on_send = fail_the_second_once
    votes = _votes(log, 0, 1, 2)
    forwarder = start()
    until(lambda: forwarder.shipped == 3, 30, "all to be shipped")
    assert kafka.values() == [*votes, *votes[1:]] and len(failed) == 1
    assert forwarder.failures == 1 and (kafka.producers, kafka.closed) == (2, 1)


def test_a_delivery_that_is_never_confirmed_is_late_and_made_again(
    log: LocalLog, kafka: Kafka, start: Callable[..., Forwarder], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = itertools.count(0.0)  # a second a look
    monkeypatch.setattr(forwarding, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    kafka.on_send = lambda delivery: delivery.settle() if kafka.sent else None
    votes = _votes(log, 0)
    forwarder = start(delivery_s=3.0)
    until(lambda: forwarder.shipped == 1, 30, "it to be shipped")
    assert kafka.values() == votes * 2 and forwarder.failures == 1


@pytest.mark.parametrize("large", [2, 3])
def test_the_one_that_is_too_large_is_found_and_refused_and_its_neighbours_go_on(
    tmp_path: Path, log: LocalLog, kafka: Kafka, start: Callable[..., Forwarder], large: int
) -> None:
    """kafka-python fails all that were sent with it by the same error; sent alone, only the culprit fails."""
    votes = _votes(log, 0, 1, 2, 3)
    together: list[Delivery] = []

    def as_kafka_python_does(delivery: Delivery) -> None:
        if len(kafka.sent) < 4:
            together.append(delivery)
            if len(together) == 4:
                for each in together[1:]:
                    each.settle(MessageSizeTooLargeError())
                together[0].settle()
        elif delivery.record["value"] == votes[large]:
            for each in (*(sent for sent in kafka.sent if not sent.is_done), delivery):
                each.settle(MessageSizeTooLargeError())
        else:
            threading.Timer(0.02, lambda: delivery.is_done or delivery.settle()).start()

    kafka.on_send = as_kafka_python_does
    forwarder = start()
    until(lambda: forwarder.shipped == 4, 30, "all to be shipped or refused")
    assert kafka.values() == [*votes, votes[1], votes[2], votes[3]]
    assert _refused(tmp_path) == [(large, f"vote-{large}", "MessageSizeTooLargeError")]
    until(lambda: forwarder.progress() == (4, 4, 0, 1, 1), 30, "the refusal to be counted, and the position saved")


def test_what_is_no_event_and_what_the_producer_does_not_take_is_refused_and_the_others_go_on(
    tmp_path: Path, log: LocalLog, kafka: Kafka, start: Callable[..., Forwarder]
) -> None:
    log.append(b"no event").result(30)
    votes = _votes(log, 1, 2)

    def too_large(delivery: Delivery) -> None:
        if delivery.record["value"] == votes[0]:
            raise MessageSizeTooLargeError
        delivery.settle()

    kafka.on_send = too_large
    with capture_logs() as lines:
        forwarder = start()
        until(lambda: forwarder.shipped == 3, 30, "all to be shipped or refused")
    assert kafka.values() == votes[1:]
    assert [(line["sequence"], line["reason"]) for line in lines if line["event"] == "record refused for good"] == [
        (0, "UndecodableEvent"),
        (1, "MessageSizeTooLargeError"),
    ]
    assert _refused(tmp_path) == [(0, "", "UndecodableEvent"), (1, "vote-1", "MessageSizeTooLargeError")]


@pytest.mark.parametrize(("window", "most"), [(0, 1), (2, 2), (1000, 5)])
def test_at_most_a_windowful_waits_to_be_confirmed(
    log: LocalLog,
    kafka: Kafka,
    start: Callable[..., Forwarder],
    monkeypatch: pytest.MonkeyPatch,
    window: int,
    most: int,
) -> None:
    """What fits to the byte, and one record at least. The window is counted in records of one size here."""
    unconfirmed: list[Delivery] = []
    seen: list[int] = []

    def confirm_late(delivery: Delivery) -> None:
        unconfirmed.append(delivery)
        seen.append(len(unconfirmed))
        threading.Timer(0.02, lambda: (unconfirmed.remove(delivery), delivery.settle())).start()

    kafka.on_send = confirm_late
    votes = _votes(log, 0, 1, 2, 3, 4)
    monkeypatch.setattr(forwarding, "_WINDOW", window * len(votes[0]))
    forwarder = start()
    until(lambda: forwarder.shipped == 5, 30, "all to be shipped")
    assert kafka.values() == votes and max(seen) == most


def test_two_records_of_a_mebibyte_fit_into_the_window(
    log: LocalLog, kafka: Kafka, start: Callable[..., Forwarder]
) -> None:
    kafka.on_send = lambda delivery: None
    for _ in range(3):
        correction = ev.Correction(answer=ref("c"), text="x" * ((1 << 20) - 500))
        log.append(encode(feedback(correction))).result(30)
    start()
    until(lambda: len(kafka.sent) == 2, 30, "two to be sent")
    kafka.sent[0].settle()
    until(lambda: len(kafka.sent) == 3, 30, "the third to take the first one's place")
    for delivery in kafka.sent:
        delivery.settle()


def test_a_forwarder_that_is_closed_saves_how_far_it_came(
    tmp_path: Path, log: LocalLog, kafka: Kafka, start: Callable[..., Forwarder], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forwarding, "_SAVE_EVERY_S", 3600.0)
    _votes(log, 0)
    forwarder = start()
    until(lambda: forwarder.shipped == 1, 30, "it to be shipped")
    _votes(log, 1)
    until(lambda: forwarder.shipped == 2, 30, "the other one, too")
    assert forwarder.progress().saved < 2
    forwarder.close()
    assert json.loads((tmp_path / "shipped.json").read_text()) == {"spool": log.identity, "shipped": 2}
    assert kafka.closed == 1


def test_what_is_not_confirmed_within_a_second_of_closing_is_left_for_the_next_start(
    tmp_path: Path, log: LocalLog, kafka: Kafka, start: Callable[..., Forwarder]
) -> None:
    kafka.on_send = lambda delivery: None
    votes = _votes(log, 0, 1)
    forwarder = start()
    until(lambda: len(kafka.sent) == 2, 30, "both to be sent")
    kafka.sent[0].settle()
    forwarder.close()
    kafka.on_send = Delivery.settle
    again = start()
    until(lambda: again.shipped == 2, 30, "the other one to be shipped")
    assert kafka.values() == [*votes, votes[1]]


def test_a_position_that_cannot_be_saved_costs_a_second_delivery_and_no_more(
    tmp_path: Path, log: LocalLog, kafka: Kafka, start: Callable[..., Forwarder]
) -> None:
    (tmp_path / "shipped.json").mkdir()
    with pytest.raises(Exception, match="cannot be read"):
        Spool(tmp_path)
    (tmp_path / "shipped.json").rmdir()
    forwarder = start()
    (tmp_path / "shipped.json").mkdir()
    _votes(log, 0, 1)
    with capture_logs() as lines:
        until(lambda: forwarder.shipped == 2, 30, "both to be shipped")
        until(lambda: any(line["event"] == "shipped position not saved" for line in lines), 30, "that to be said")
    (tmp_path / "shipped.json").rmdir()
    until(lambda: forwarder.progress().saved == 2, 30, "the position to be saved, once it can be")
    assert forwarder.failures == 0


def test_a_producer_waits_for_all_replicas_as_long_as_a_delivery_may_take() -> None:
    """And asks again at half of that, for a broker that has gone; it sends the largest record, and makes no topic."""
    asked = SimpleNamespace(open=lambda kind, **options: options)
    options = cast(dict[str, Any], forwarding.new_producer(cast(Cluster, asked), 20.0))
    assert (
        options.items()
        >= {
            "acks": "all",
            "max_request_size": 17 << 20,
            "delivery_timeout_ms": 20_000,
            "request_timeout_ms": 10_000,
            "allow_auto_create_topics": False,
        }.items()
    )
    assert options["batch_size"] < options["max_request_size"]
