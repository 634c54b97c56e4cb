"""The log's writer with Kafka behind it: a local log, and a process that ships it.

    append ──▶ LocalLog (fsync = acknowledged)      stdin: settings, then nothing until it closes ──▶ forwarder_process
               shipping(), retention  ◀──────────── stdout: Progress, one JSON list a line ◀────────── Forwarder

The forwarder has a process of its own because kafka-python's threads would share the interpreter with those who answer
people: a burst of deliveries, or a broker that closes every connection, would hold up each reply that falls into it.
Where that process dies it is started again, and goes on where shipped.json says.
"""

import json
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import structlog

from rlhf_online import logs, tracing
from rlhf_online.errors import LogError
from rlhf_online.eventlog.base import AppendFuture, Shipping
from rlhf_online.eventlog.kafka.cluster import Cluster
from rlhf_online.eventlog.kafka.forwarder import Progress
from rlhf_online.eventlog.local import LocalLog
from rlhf_online.eventlog.retention import KEEP_ALL, Retention
from rlhf_online.eventlog.spool import Spool
from rlhf_online.retry import Backoff

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 5.0
ENDS_WITHIN_S = 15.0


class KafkaSink:
    """A LocalLog whose records a process ships to Kafka (a `Sink`). `append` resolves to the spool's sequence number.

    Raises what LocalLog raises; Kafka itself may be down.
    """

    def __init__(
        self, folder: Path, cluster: Cluster, *, segment_bytes: int = 64 << 20, retention: Retention = KEEP_ALL
    ) -> None:
        self._forwarder: ForwarderProcess | None = None
        self._log = LocalLog(folder, segment_bytes=segment_bytes, retention=retention, shipped=self._has_left)
        try:
            self._forwarder = ForwarderProcess(folder, cluster)
        except LogError:
            self._log.close()
            raise

    @property
    def shipped(self) -> int:
        """Records before this one are in Kafka, or were refused for good."""
        return self._progress.shipped

    @property
    def forwarder_pid(self) -> int | None:
        """The process that ships; None while there is none."""
        assert self._forwarder is not None
        return self._forwarder.pid

    @property
    def _progress(self) -> Progress:
        assert self._forwarder is not None
        return self._forwarder.progress

    def _has_left(self) -> int:
        """Records that left the spool by the position on disk, which a restart goes on from."""
        return 0 if self._forwarder is None else self._forwarder.progress.saved

    def append(self, payload: bytes) -> AppendFuture:
        return self._log.append(payload)

    def append_all(self, payloads: Sequence[bytes]) -> AppendFuture:
        return self._log.append_all(payloads)

    def shipping(self) -> Shipping:
        progress = self._progress
        backlog = max(0, self._log.end - progress.shipped)
        return Shipping(
            backlog=backlog,
            oldest_ms=progress.oldest_ms if backlog else 0,
            failures=progress.failures,
            refused=progress.refused,
            confirmed=progress.shipped - progress.refused,
        )

    def close(self) -> None:
        """Make durable what is queued and stop; what is not shipped yet stays in the spool for the next start."""
        self._log.close()
        assert self._forwarder is not None
        self._forwarder.close()


class ForwarderProcess:
    """Keeps the forwarder's process alive, in a thread that hears what it says. Raises LogUnavailable."""

    def __init__(self, folder: Path, cluster: Cluster) -> None:
        spool = Spool(folder)
        self.progress = Progress(spool.saved, spool.saved, 0, 0, spool.refused)
        spool.close()
        self._given = {
            "folder": str(folder.absolute()),
            "servers": list(cluster.servers),
            "prefix": cluster.prefix,
            "settings": cluster.settings.model_dump(mode="json", exclude_unset=True),
        }
        self._failed = 0
        self._stopping = threading.Event()
        self._process = self._start()
        self._thread = threading.Thread(target=self._run, name="forwarder", daemon=True)
        self._thread.start()

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process.poll() is None else None

    def close(self) -> None:
        """End the process after the deliveries at hand."""
        self._stopping.set()
        self._hang_up()
        self._thread.join(ENDS_WITHIN_S)
        self._process.kill()
        self._thread.join()

    def _start(self) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "rlhf_online.eventlog.kafka.forwarder_process"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdin is not None
        try:
            given = {**self._given, "logs": logs.configured(), "tracing": tracing.given()}
            process.stdin.write(json.dumps(given) + "\n")
            process.stdin.flush()
        except BrokenPipeError:  # it died: seen by whoever listens to it
            pass
        return process

    def _run(self) -> None:
        backoff = Backoff(FIRST_PAUSE_S, LONGEST_PAUSE_S)
        while True:
            if self._listen():
                backoff.reset()
            if self._stopping.is_set():
                return
            self._failed = self.progress.failures + 1
            self.progress = self.progress._replace(failures=self._failed)
            structlog.get_logger().error("forwarder ended, starting another", exit_code=self._process.returncode)
            started = False
            while not started:
                if self._stopping.wait(backoff.advance()):
                    return
                try:
                    self._process, started = self._start(), True
                except OSError as error:  # no process, or no descriptor, for now
                    structlog.get_logger().error("no forwarder can be started", why=str(error))
            if self._stopping.is_set():  # `close` may have hung up on the one before
                self._hang_up()

    def _listen(self) -> bool:
        """Take what the process says until it ends; False if it said nothing."""
        heard = False
        assert self._process.stdout is not None
        for line in self._process.stdout:
            said = Progress(*json.loads(line))
            self.progress, heard = said._replace(failures=self._failed + said.failures), True
        self._process.wait()
        self._process.stdout.close()
        self._hang_up()
        return heard

    def _hang_up(self) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.close()
        except BrokenPipeError:
            pass
