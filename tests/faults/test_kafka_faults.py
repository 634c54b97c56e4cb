"""Kafka far away, cut off, resetting, losing replies: nothing is lost, order holds, twice is once (FAULTS 11, 16–18).

A real broker behind a proxy that misbehaves; the auditor counts in the end.
"""

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from rlhf_online.config import LogSettings
from rlhf_online.eventlog import open_sink, open_source
from rlhf_online.eventlog.base import Sink
from rlhf_online.wire import encode
from tests.faults.auditor import audit
from tests.support.kafka_broker import Broker, missing_tools
from tests.support.logged import completion
from tests.support.proxy import Proxy
from tests.support.waiting import until

pytestmark = [
    # kafka-python reads its schemas by functions of the standard library that Python 3.11 and 3.12 call deprecated.
    pytest.mark.filterwarnings("ignore:(read|open)_text is deprecated:DeprecationWarning"),
    # It leaves the sockets of refused connections to the garbage collector.
    pytest.mark.filterwarnings("ignore:Exception ignored in. <(socket|ssl):pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.skipif(bool(missing_tools()), reason=missing_tools() or "-"),
]


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    """The line to the broker."""
    with Proxy() as proxy:
        broker = Broker(tmp_path_factory.mktemp("kafka"), advertised=proxy.port)
        proxy.target = broker.port
        broker.start()
        yield proxy
        broker.stop()


class Chat:
    """What a chat service does to its log: events go in, one after another, in one conversation."""

    def __init__(self, line: Proxy, state: Path) -> None:
        self.line, self.state = line, state
        self.prefix = f"t{uuid.uuid4().hex[:8]}"
        self.settings = LogSettings(url=f"kafka://{line.address}", topic_prefix=self.prefix)  # pyright: ignore[reportCallIssue]
        self.sink: Sink = open_sink(self.settings, state / "log")
        self.acknowledged: list[str] = []

    @property
    def shipped(self) -> int:
        return len(self.acknowledged) - self.sink.shipping().backlog

    def log(self, count: int) -> None:
        """`count` answers of about 1 KiB, each acknowledged."""
        names = [f"answer-{len(self.acknowledged) + number}" for number in range(count)]
        futures = [self.sink.append(encode(completion(name, prompt=range(300)))) for name in names]
        for name, future in zip(names, futures, strict=True):
            future.result(30)
            self.acknowledged.append(name)

    def arrived(self) -> None:
        until(lambda: self.shipped == len(self.acknowledged), 240, "everything to be shipped")

    def check(self) -> int:
        """The books are right, and first arrivals are in order; returns how many records came twice."""
        report = audit(self.state, self.acknowledged, kafka=self.line.address, prefix=self.prefix)
        assert report.problems == []
        assert (report.in_kafka, report.spooled) == (len(self.acknowledged), 0)
        source = open_source(self.settings, self.state / "log")
        payloads: list[bytes] = []
        position: dict[str, int] = {}
        while True:
            records, position = source.read(position, 1000)
            if not records:
                break
            payloads += [record.payload for record in records]
        source.close()
        expected = [encode(completion(name, prompt=range(300))) for name in self.acknowledged]
        assert list(dict.fromkeys(payloads)) == expected
        return len(payloads) - len(expected)


@pytest.fixture
def chat(line: Proxy, tmp_path: Path) -> Iterator[Chat]:
    chat = Chat(line, tmp_path)
    yield chat
    line.cut, line.delay_s, line.reset_after, line.lose_replies = False, 0.0, 0, 0
    chat.sink.close()


def test_a_line_that_is_cut_fills_the_spool_and_empties_it_later(chat: Chat, line: Proxy) -> None:
    chat.log(20)
    chat.arrived()
    line.cut = True
    chat.log(500)
    until(lambda: chat.sink.shipping().failures > 0, 60, "the forwarder to notice")
    assert chat.sink.shipping().backlog == 500
    report = audit(chat.state, chat.acknowledged)
    assert report.lost == set(), "the spool has what Kafka has not"
    line.cut = False
    chat.arrived()
    chat.check()


def test_a_line_of_two_seconds_delays_no_acknowledgement(chat: Chat, line: Proxy) -> None:
    line.delay_s = 2.0
    chat.log(200)
    assert chat.shipped == 0, "acknowledged by the disk, while Kafka has not even greeted"
    until(lambda: chat.shipped == 200, 240, "everything to be shipped")
    line.delay_s = 0.0
    assert chat.check() == 0


def test_a_line_that_is_reset_every_megabyte_completes(chat: Chat, line: Proxy) -> None:
    line.reset_after = 1 << 20
    chat.log(6000)
    chat.arrived()
    assert line.resets >= 2
    line.reset_after = 0
    chat.check()


def test_lost_replies_make_records_come_twice_and_count_once(chat: Chat, line: Proxy) -> None:
    chat.log(10)
    chat.arrived()
    line.lose_replies = 3
    chat.log(2000)
    chat.arrived()
    assert line.lose_replies == 0
    chat.check()
