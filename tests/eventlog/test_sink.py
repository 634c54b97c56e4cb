"""The log with Kafka behind it: what it says of its forwarder, and what retention may take. With a real forwarder:
`test_kafka`."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

import pytest

pytest.importorskip("kafka")
from rlhf_online.errors import LogUnavailable
from rlhf_online.eventlog import folder as files
from rlhf_online.eventlog.base import Shipping
from rlhf_online.eventlog.kafka import sink as sinks
from rlhf_online.eventlog.kafka.cluster import Cluster
from rlhf_online.eventlog.kafka.forwarder import Progress
from rlhf_online.eventlog.kafka.sink import KafkaSink
from rlhf_online.eventlog.local import LocalLog
from rlhf_online.eventlog.retention import KEEP_ALL, Retention
from tests.support.waiting import until


class Forwarder:
    """In the place of its process: says what a test lets it say."""

    progress = Progress(0, 0, 0, 0, 0)
    pid = 17

    def __init__(self, folder: Path, cluster: Cluster) -> None:
        self.closed = False

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., tuple[KafkaSink, Forwarder]]]:
    made: list[KafkaSink] = []
    forwarders: list[Forwarder] = []

    def forwarder(folder: Path, cluster: Cluster) -> Forwarder:
        forwarders.append(Forwarder(folder, cluster))
        return forwarders[-1]

    monkeypatch.setattr(sinks, "ForwarderProcess", forwarder)

    def open_(segment_bytes: int = 1000, retention: Retention = KEEP_ALL) -> tuple[KafkaSink, Forwarder]:
        made.append(KafkaSink(tmp_path, cast(Cluster, None), segment_bytes=segment_bytes, retention=retention))
        return made[-1], forwarders[-1]

    yield open_
    for sink in made:
        sink.close()


def test_what_waits_is_what_the_forwarder_has_not_shipped(opened: Callable[..., tuple[KafkaSink, Forwarder]]) -> None:
    sink, forwarder = opened()
    assert sink.shipping() == Shipping()
    for number in range(5):
        assert sink.append(b"x").result(30) == number
    forwarder.progress = Progress(shipped=3, saved=2, oldest_ms=1234, failures=4, refused=1)
    assert sink.shipping() == Shipping(backlog=2, oldest_ms=1234, failures=4, refused=1)
    assert (sink.shipped, sink.forwarder_pid) == (3, 17)
    forwarder.progress = Progress(shipped=5, saved=2, oldest_ms=1234, failures=4, refused=1)
    assert sink.shipping() == Shipping(failures=4, refused=1), "nothing waits, so nothing is the oldest"


def test_nothing_is_removed_that_a_restart_would_ship_again(
    tmp_path: Path, opened: Callable[..., tuple[KafkaSink, Forwarder]]
) -> None:
    """That is, from the position on disk on, not from the one that is shipped."""
    sink, forwarder = opened(segment_bytes=250, retention=Retention(max_bytes=0, check_s=0.0))

    def first_after_an_append() -> int:
        sink.append(bytes([1]) * 100).result(30)
        return files.segments(tmp_path)[0]

    assert [first_after_an_append() for _ in range(9)] == [0] * 9, "nothing has left"
    forwarder.progress = Progress(shipped=9, saved=5, oldest_ms=0, failures=0, refused=0)
    assert until(first_after_an_append, 30, "something to be removed") == 4


def test_a_spool_whose_position_cannot_be_read_gives_the_log_back(tmp_path: Path) -> None:
    (tmp_path / "shipped.json").mkdir(parents=True)
    with pytest.raises(LogUnavailable, match=r"shipped\.json cannot be read"):
        KafkaSink(tmp_path, cast(Cluster, None))
    (tmp_path / "shipped.json").rmdir()
    LocalLog(tmp_path).close()


def test_closing_ends_the_forwarder_after_what_was_queued_is_durable(
    tmp_path: Path, opened: Callable[..., tuple[KafkaSink, Forwarder]]
) -> None:
    sink, forwarder = opened()
    queued = sink.append(b"x")
    sink.close()
    assert queued.result(0) == 0 and forwarder.closed
    LocalLog(tmp_path).close()
