"""The process that ships a spool: what it says, when it ends and as what. It needs no broker for that; with one:
`test_kafka`."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import pytest

pytest.importorskip("kafka")
from rlhf_online import locks
from rlhf_online.eventlog.kafka import forwarder_process
from rlhf_online.eventlog.kafka.cluster import Cluster
from rlhf_online.eventlog.kafka.forwarder import Progress
from rlhf_online.eventlog.spool import Spool
from rlhf_online.wire import encode
from tests.support.local_log import append_all
from tests.support.logged import thumb

ROOT = Path(__file__).parents[2]


def _given(folder: Path) -> str:
    """A Kafka that is not even asked, since its password is missing."""
    settings = {"mechanism": "PLAIN", "username": "ada", "password_file": str(folder / "password")}
    given = {"folder": str(folder), "servers": ["127.0.0.1:1"], "prefix": "t", "settings": settings}
    return json.dumps({**given, "logs": {"level": "info"}, "tracing": None}) + "\n"


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[], "subprocess.Popen[str]"]]:
    started: list[subprocess.Popen[str]] = []

    def start() -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            [sys.executable, "-m", "rlhf_online.eventlog.kafka.forwarder_process"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        assert process.stdin is not None
        process.stdin.write(_given(tmp_path))
        process.stdin.flush()
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def _heard(output: IO[str] | None) -> Progress:
    assert output is not None
    return Progress(*json.loads(output.readline()))


def test_it_says_how_far_it_is_and_ends_with_its_standard_input_alone(
    tmp_path: Path, start: Callable[[], "subprocess.Popen[str]"]
) -> None:
    """Not with an interrupt at the terminal, which reaches it as well."""
    append_all(tmp_path, [encode(thumb("c", event_id="vote", at_ms=1234))])
    process = start()
    said = [_heard(process.stdout)]
    process.send_signal(signal.SIGINT)
    while not said[-1].failures:
        said.append(_heard(process.stdout))
    assert os.getpriority(os.PRIO_PROCESS, process.pid) >= 10, "it leaves the cores to those who answer people"
    output, errors = process.communicate(timeout=60)
    said += [Progress(*json.loads(line)) for line in output.splitlines()]
    assert process.returncode == 0
    assert [progress.shipped for progress in said] == [0] * len(said)
    assert said[-1].oldest_ms == 1234 and said[-1].failures >= 1
    assert "level='warning' service='forwarder' event='delivery failed'" in errors


def test_one_that_waits_for_an_earlier_one_ends_with_its_standard_input_as_well(
    tmp_path: Path, start: Callable[[], "subprocess.Popen[str]"]
) -> None:
    append_all(tmp_path, [b"x"])
    with locks.acquire(tmp_path / "forwarder.lock"):
        process = start()
        assert process.communicate(timeout=60) == ("", ""), "it has said nothing, and shipped nothing"
        assert process.returncode == 0


def test_it_ends_where_nobody_hears_it_any_more(tmp_path: Path, start: Callable[[], "subprocess.Popen[str]"]) -> None:
    append_all(tmp_path, [b"x"])
    process = start()
    _heard(process.stdout)
    assert process.stdout is not None
    process.stdout.close()
    process.wait(60)
    assert locks.try_acquire(tmp_path / "forwarder.lock") is not None


def test_a_spool_that_it_cannot_read_is_named(tmp_path: Path, start: Callable[[], "subprocess.Popen[str]"]) -> None:
    append_all(tmp_path, [b"x"])
    (tmp_path / "shipped.json").write_text("{")
    process = start()
    output, errors = process.communicate(timeout=60)
    assert process.returncode not in (0, None) and output == ""
    assert errors.startswith(f"error: {tmp_path}/shipped.json cannot be read")


class Forwarder:
    """Says what a test lets it say; `close` ships the rest."""

    def __init__(self, spool: Spool, cluster: Cluster) -> None:
        self.given = (spool, cluster)
        self.now = Progress(0, 0, 1000, 0, 0)
        self.asked = 0
        self.closed = False

    def progress(self) -> Progress:
        self.asked += 1
        return self.now

    def close(self) -> None:
        self.closed, self.now = True, Progress(3, 3, 0, 0, 0)
        self.given[0].close()


class Said(list[Progress]):
    """In the place of standard output: its reader has what was flushed."""

    def __init__(self) -> None:
        self.text = ""

    def write(self, text: str) -> None:
        self.text += text

    def flush(self) -> None:
        self.extend(Progress(*json.loads(line)) for line in self.text.splitlines())
        self.text = ""


def test_each_progress_is_said_once_at_once_and_the_last_one_after_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    append_all(tmp_path, [b"x"] * 3)
    made: list[Forwarder] = []
    said, lowered = Said(), list[bool]()
    reader, writer = os.pipe()
    os.write(writer, _given(tmp_path).encode())

    def forwarder(spool: Spool, cluster: Cluster) -> Forwarder:
        assert locks.try_acquire(tmp_path / "forwarder.lock") is None, "nobody else ships meanwhile"
        made.append(Forwarder(spool, cluster))
        return made[-1]

    def looked(timeout_s: float) -> bool:
        """In the place of the wait: three looks in all."""
        [forwarder] = made
        assert not forwarder.asked or said[-1] == forwarder.now, "whoever listens has it by now"
        if forwarder.asked == 2:
            forwarder.now = Progress(2, 0, 2000, 0, 0)
        return forwarder.asked == 4

    handler: Any = signal.getsignal(signal.SIGINT)
    with os.fdopen(reader) as stdin, monkeypatch.context() as patched:
        patched.setattr(sys, "stdin", stdin)
        patched.setattr(sys, "stdout", said)
        patched.setattr(forwarder_process.logs, "configure", lambda service, **levels: None)
        patched.setattr(forwarder_process.process, "lower_priority", lambda: lowered.append(True))
        patched.setattr(forwarder_process, "Forwarder", forwarder)
        patched.setattr(forwarder_process, "_hung_up", looked)
        try:
            assert forwarder_process.main() == 0
        finally:
            signal.signal(signal.SIGINT, handler)
            os.close(writer)
    [shipping], [_] = made, lowered
    assert said == [Progress(0, 0, 1000, 0, 0), Progress(2, 0, 2000, 0, 0), Progress(3, 3, 0, 0, 0)]
    assert shipping.closed and (shipping.given[1].servers, shipping.given[1].prefix) == (["127.0.0.1:1"], "t")
    lock = locks.try_acquire(tmp_path / "forwarder.lock")
    assert lock is not None, "the next one may ship"
    lock.release()
