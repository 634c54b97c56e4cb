"""The log with Kafka behind it: what it says of its forwarder, and what retention may take. With a real forwarder:
`test_kafka`."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

pytest.importorskip("kafka")
from rlhf_online import logs
from rlhf_online.config import KafkaSettings
from rlhf_online.errors import LogUnavailable
from rlhf_online.eventlog import folder as files
from rlhf_online.eventlog.base import Shipping
from rlhf_online.eventlog.kafka import sink as sinks
from rlhf_online.eventlog.kafka.cluster import Cluster
from rlhf_online.eventlog.kafka.forwarder import Progress
from rlhf_online.eventlog.kafka.sink import ForwarderProcess, KafkaSink
from rlhf_online.eventlog.local import LocalLog
from rlhf_online.eventlog.retention import KEEP_ALL, Retention
from rlhf_online.eventlog.spool import Spool
from tests.support.local_log import ROOT, append_all, read_all
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
    assert sink.shipping() == Shipping(backlog=2, oldest_ms=1234, failures=4, refused=1, confirmed=2)
    assert (sink.shipped, sink.forwarder_pid) == (3, 17)
    forwarder.progress = Progress(shipped=5, saved=2, oldest_ms=1234, failures=4, refused=1)
    assert sink.shipping() == Shipping(failures=4, refused=1, confirmed=4), "nothing waits, so nothing is the oldest"


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


def test_nothing_is_removed_before_it_is_known_what_has_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    append_all(tmp_path, [b"x" * 100] * 4, segment_bytes=110)
    looked: list[list[int]] = []
    expire = LocalLog.expire

    def forwarder(folder: Path, cluster: Cluster) -> Forwarder:
        until(lambda: looked, 30, "retention to look")
        return Forwarder(folder, cluster)

    monkeypatch.setattr(LocalLog, "expire", lambda log: looked.append(expire(log)) or looked[-1])
    monkeypatch.setattr(sinks, "ForwarderProcess", forwarder)
    KafkaSink(tmp_path, cast(Cluster, None), retention=Retention(max_bytes=0, check_s=0.0)).close()
    assert files.segments(tmp_path) == [0, 1, 2, 3]


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


class Child:
    """In the place of a process: it says what a test lets it say, and ends with its standard input or by itself."""

    def __init__(self, *_: object, **options: Any) -> None:
        self.given = ""
        self.returncode: int | None = None
        self.stdin = SimpleNamespace(write=self._take, flush=lambda: None, close=self.end)
        reader, self._writer = os.pipe()
        self.stdout = os.fdopen(reader)
        self.pid = self._writer

    def _take(self, text: str) -> None:
        self.given += text

    def say(self, progress: Progress) -> None:
        os.write(self._writer, (json.dumps(progress) + "\n").encode())

    def end(self) -> None:
        if self.returncode is None:
            self.returncode = 0
            os.close(self._writer)

    kill = end

    def poll(self) -> int | None:
        return self.returncode

    def wait(self) -> int | None:
        return self.returncode


class Pauses:
    """In the place of the pauses between two starts: none is made, and each is noted."""

    def __init__(self, first_s: float, longest_s: float) -> None:
        assert first_s < longest_s
        self.noted: list[str] = []

    def advance(self) -> float:
        self.noted.append("longer")
        return 0.0

    def reset(self) -> None:
        self.noted.append("short again")


@pytest.fixture
def children(monkeypatch: pytest.MonkeyPatch) -> list[Child]:
    started: list[Child] = []

    def start(*command: object, **options: Any) -> Child:
        started.append(Child(*command, **options))
        return started[-1]

    monkeypatch.setattr(sinks.subprocess, "Popen", start)
    return started


def test_what_forwarders_say_adds_up_over_those_that_ended(
    tmp_path: Path, children: list[Child], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A forwarder counts the failures of its own; its end is one more. Those that say nothing come ever later."""
    pauses = Pauses(0, 1)
    monkeypatch.setattr(sinks, "Backoff", lambda first_s, longest_s: pauses)
    append_all(tmp_path, [b"x"] * 5)
    spool = Spool(tmp_path)
    spool.shipped = 2
    spool.save()
    spool.refuse(spool.waiting(1)[0], "vote", "why")
    spool.close()
    cluster = Cluster(["a:1", "b:2"], "votes", KafkaSettings(min_insync=1))
    forwarder = ForwarderProcess(tmp_path, cluster)
    assert forwarder.progress == Progress(shipped=2, saved=2, oldest_ms=0, failures=0, refused=1)
    assert children[0].given.endswith("\n") and json.loads(children[0].given) == {
        "folder": str(tmp_path), "servers": ["a:1", "b:2"], "prefix": "votes", "settings": {"min_insync": 1},
        "logs": logs.configured(), "tracing": None,
    }  # fmt: skip
    assert forwarder.pid == children[0].pid

    def said(progress: Progress) -> None:
        until(lambda: forwarder.progress == progress, 30, lambda: f"{progress}, not {forwarder.progress}")

    children[0].say(Progress(3, 2, 1000, 4, 1))
    said(Progress(3, 2, 1000, 4, 1))
    children[0].end()
    until(lambda: len(children) == 2, 30, "another one")
    said(Progress(3, 2, 1000, 5, 1))
    children[1].say(Progress(4, 4, 1000, 1, 1))
    said(Progress(4, 4, 1000, 6, 1))
    children[1].end()
    until(lambda: len(children) == 3, 30, "a third one")
    children[2].end()
    until(lambda: len(children) == 4, 30, "a fourth one")
    said(Progress(4, 4, 1000, 8, 1))
    assert pauses.noted == ["short again", "longer", "short again", "longer", "longer"]
    assert all(child.stdout.closed for child in children[:3])
    forwarder.close()
    assert children[3].returncode == 0 and forwarder.pid is None and len(children) == 4
    assert forwarder.progress == Progress(4, 4, 1000, 8, 1), "an end that was wanted is no failure"


def test_a_forwarder_that_does_not_end_by_itself_is_ended(
    tmp_path: Path, children: list[Child], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sinks, "ENDS_WITHIN_S", 0.01)
    before = threading.active_count()
    append_all(tmp_path, [b"x"])
    forwarder = ForwarderProcess(tmp_path, Cluster(["a:1"], "votes", KafkaSettings()))
    [child] = children
    child.stdin.close = lambda: None
    child.wait = lambda: threading.Event().wait(0.1)  # the system takes its time to end it
    forwarder.close()
    assert child.returncode == 0 and threading.active_count() == before


def test_a_forwarder_is_given_time_to_end_by_itself(tmp_path: Path, children: list[Child]) -> None:
    append_all(tmp_path, [b"x"])
    forwarder = ForwarderProcess(tmp_path, Cluster(["a:1"], "votes", KafkaSettings()))
    [child] = children
    found: list[int | None] = []
    soon = threading.Timer(0.05, child.end)
    child.stdin.close = lambda: soon.ident or soon.start()
    child.kill = lambda: found.append(child.returncode)
    forwarder.close()
    soon.join()
    assert found == [0], "it had ended when it was to be killed"


def test_nobody_is_started_any_more_while_it_closes(
    tmp_path: Path, children: list[Child], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ends while it waits to start another, an hour from now."""
    paused = threading.Event()
    hour = SimpleNamespace(advance=lambda: paused.set() or 3600.0, reset=lambda: None)
    monkeypatch.setattr(sinks, "Backoff", lambda first_s, longest_s: hour)
    append_all(tmp_path, [b"x"])
    forwarder = ForwarderProcess(tmp_path, Cluster(["a:1"], "votes", KafkaSettings()))
    children[0].end()
    assert paused.wait(30)
    forwarder.close()
    assert len(children) == 1


def test_a_real_forwarder_that_is_killed_is_started_again_and_ends_with_its_log(tmp_path: Path) -> None:
    """With a Kafka that is not even asked, since its password is missing."""
    before, files_before = threading.active_count(), _open_files()
    settings = KafkaSettings(mechanism="PLAIN", username="ada", password_file=tmp_path / "password")
    sink = KafkaSink(tmp_path / "log", Cluster(["127.0.0.1:1"], "t", settings))
    sink.append(b"x").result(30)
    until(lambda: sink.shipping().failures, 60, "a delivery that is not tried")
    first = sink.forwarder_pid
    assert first is not None and sink.shipping().backlog == 1
    os.kill(first, signal.SIGKILL)
    until(lambda: sink.forwarder_pid not in (None, first), 60, "another one")
    second = sink.forwarder_pid
    assert second is not None
    sink.close()
    assert sink.forwarder_pid is None and (threading.active_count(), _open_files()) == (before, files_before)
    with pytest.raises(ProcessLookupError):
        os.kill(second, 0)


def test_a_process_that_does_not_close_its_log_ends_all_the_same(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from rlhf_online.config import KafkaSettings;"
        "from rlhf_online.eventlog.kafka import Cluster, KafkaSink;"
        "sink = KafkaSink(Path(sys.argv[1]), Cluster(['127.0.0.1:1'], 't', KafkaSettings()));"
        "sink.append(b'one').result()"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, timeout=60)
    assert done.returncode == 0 and read_all(tmp_path) == [b"one"]


def _open_files() -> int:
    """Where the system tells."""
    return len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").is_dir() else 0
