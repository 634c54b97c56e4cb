"""How fast the local log acknowledges: `python -m tests.benches.log [--seconds 3] [--rounds 5] [--json]`.

64 writers append records of 1 KiB, each waiting for its acknowledgement before the next. Beside it, in the same run
and in turns, a bare loop writes and fsyncs groups of the size that the log formed: the bound that the disk sets; and
the same writers append to the same queue, from which the same thread takes all that waits, but commits it to SQLite as
one transaction (WAL, synchronous=FULL). Writers are tasks of one event loop, as in the chat service
(`--writers threads` for threads).
"""

import argparse
import asyncio
import os
import sqlite3
import statistics
import tempfile
import threading
import time
from pathlib import Path

from rlhf_online.eventlog.acknowledgements import Acknowledgements
from rlhf_online.eventlog.append_queue import Group
from rlhf_online.eventlog.local import LocalLog
from rlhf_online.eventlog.segments import encode_group
from tests.benches.support.figures import p99, show

RECORD = os.urandom(1024)
WRITERS = 64


class SqliteLog(LocalLog):
    """LocalLog's queue, batching and thread; only where a group goes differs."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        self._base = sqlite3.connect(folder / "log.sqlite", isolation_level=None, check_same_thread=False)
        self._base.execute("PRAGMA journal_mode=WAL")
        self._base.execute("PRAGMA synchronous=FULL")
        self._base.execute("CREATE TABLE record (number INTEGER PRIMARY KEY, payload BLOB NOT NULL)")
        super().__init__(folder)

    def close(self) -> None:
        super().close()
        self._base.close()

    def _commit(self, group: Group) -> None:
        self._base.execute("BEGIN")
        rows = ((number, payload) for number, ([payload], _) in enumerate(group, self._next))
        self._base.executemany("INSERT INTO record VALUES (?, ?)", rows)
        self._base.execute("COMMIT")
        for number, (_, future) in enumerate(group, self._next):
            future.set_result(number)
        self._next += len(group)
        self.groups += 1


def appends(log: LocalLog, seconds: float, writers: str) -> tuple[float, list[float], float]:
    """Acknowledged appends a second, each one's latency in seconds, and the mean group."""
    latencies: list[float] = []
    with log:
        begin = time.perf_counter()
        stop = begin + seconds

        async def task(acknowledgements: Acknowledgements) -> None:
            while (sent := time.perf_counter()) < stop:
                await acknowledgements.of(log.append(RECORD), 60.0)
                latencies.append(time.perf_counter() - sent)

        async def tasks() -> None:
            acknowledgements = Acknowledgements()
            await asyncio.gather(*(task(acknowledgements) for _ in range(WRITERS)))

        def thread() -> None:
            while (sent := time.perf_counter()) < stop:
                log.append(RECORD).result()
                latencies.append(time.perf_counter() - sent)

        if writers == "tasks":
            asyncio.run(tasks())
        else:
            threads = [threading.Thread(target=thread) for _ in range(WRITERS)]
            for each in threads:
                each.start()
            for each in threads:
                each.join()
        took = time.perf_counter() - begin
        return len(latencies) / took, latencies, len(latencies) / log.groups


def bare(folder: Path, seconds: float, group: int) -> tuple[float, list[float]]:
    """Records a second of a loop that writes and fsyncs groups of that size, and each fsync's time in seconds."""
    data = encode_group([RECORD] * group, 0)
    datasync = getattr(os, "fdatasync", os.fsync)
    syncs: list[float] = []
    folder.mkdir(parents=True)
    descriptor = os.open(folder / "bare", os.O_WRONLY | os.O_CREAT)
    try:
        begin = time.perf_counter()
        while time.perf_counter() - begin < seconds:
            os.write(descriptor, data)
            before = time.perf_counter()
            datasync(descriptor)
            syncs.append(time.perf_counter() - before)
        return len(syncs) * group / (time.perf_counter() - begin), syncs
    finally:
        os.close(descriptor)


def measure(folder: Path, seconds: float, rounds: int, writers: str) -> dict[str, float | int | str]:
    """Medians over the rounds; latencies over all of them. A first round warms up and is dropped."""
    rates: dict[str, list[float]] = {"log": [], "bare": [], "sqlite": []}
    latencies: dict[str, list[float]] = {"log": [], "sqlite": []}
    groups: dict[str, list[float]] = {"log": [], "sqlite": []}
    syncs: list[float] = []
    for number in range(rounds + 1):
        length = seconds if number else 0.5
        ours = appends(LocalLog(folder / f"log-{number}"), length, writers)
        bound, sync = bare(folder / f"bare-{number}", length, max(1, round(ours[2])))
        theirs = appends(SqliteLog(folder / f"sqlite-{number}"), length, writers)
        if not number:
            continue
        rates["bare"].append(bound)
        syncs += sync
        for name, (rate, each, group) in (("log", ours), ("sqlite", theirs)):
            rates[name].append(rate)
            latencies[name] += each
            groups[name].append(group)

    def ratio(other: str) -> float:
        return round(statistics.median(a / b for a, b in zip(rates["log"], rates[other], strict=True)), 3)

    return {
        "writers": f"{WRITERS} {writers}",
        "record_bytes": len(RECORD),
        "appends_per_s": round(statistics.median(rates["log"])),
        "p50_ms": round(1000 * statistics.median(latencies["log"]), 3),
        "p99_ms": round(1000 * p99(latencies["log"]), 3),
        "group": round(statistics.median(groups["log"]), 1),
        "fsync_ms": round(1000 * statistics.median(syncs), 3),
        "bare_per_s": round(statistics.median(rates["bare"])),
        "ratio_to_bare": ratio("bare"),
        "sqlite_per_s": round(statistics.median(rates["sqlite"])),
        "sqlite_p50_ms": round(1000 * statistics.median(latencies["sqlite"]), 3),
        "sqlite_p99_ms": round(1000 * p99(latencies["sqlite"]), 3),
        "sqlite_group": round(statistics.median(groups["sqlite"]), 1),
        "ratio_to_sqlite": ratio("sqlite"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3.0, help="length of one round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--writers", choices=["tasks", "threads"], default="tasks")
    parser.add_argument("--folder", type=Path, help="where to write; default: a new folder in the current one")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of the table")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder or Path.cwd(), prefix=".bench-log-") as folder:
        result = measure(Path(folder), options.seconds, options.rounds, options.writers)
    show(result, as_json=options.json)


if __name__ == "__main__":
    main()
