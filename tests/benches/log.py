"""How fast the local log acknowledges: `python -m tests.benches.log [--seconds 3] [--rounds 5] [--json]`.

64 writers append records of 1 KiB, each waiting for its acknowledgement before the next. Beside it, in the same run
and in turns, a bare loop writes and fsyncs groups of the size that the log formed: the bound that the disk sets.
Writers are tasks of one event loop, as in the chat service (`--writers threads` for threads).
"""

import argparse
import asyncio
import json
import os
import statistics
import tempfile
import threading
import time
from pathlib import Path

from rlhf_online.eventlog.local import LocalLog
from rlhf_online.eventlog.segments import encode_group

RECORD = os.urandom(1024)
WRITERS = 64


def appends(folder: Path, seconds: float, writers: str) -> tuple[float, list[float], float]:
    """Acknowledged appends a second, each one's latency in seconds, and the mean group."""
    latencies: list[float] = []
    with LocalLog(folder) as log:
        begin = time.perf_counter()
        stop = begin + seconds

        async def task() -> None:
            while (sent := time.perf_counter()) < stop:
                await asyncio.wrap_future(log.append(RECORD))
                latencies.append(time.perf_counter() - sent)

        async def tasks() -> None:
            await asyncio.gather(*(task() for _ in range(WRITERS)))

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
    rates: list[float] = []
    bounds: list[float] = []
    groups: list[float] = []
    latencies: list[float] = []
    syncs: list[float] = []
    for number in range(rounds + 1):
        rate, each, group = appends(folder / f"log-{number}", seconds if number else 0.5, writers)
        bound, sync = bare(folder / f"bare-{number}", seconds if number else 0.5, max(1, round(group)))
        if number:
            rates.append(rate)
            bounds.append(bound)
            groups.append(group)
            latencies += each
            syncs += sync
    cuts = statistics.quantiles(latencies, n=100)
    return {
        "writers": f"{WRITERS} {writers}",
        "record_bytes": len(RECORD),
        "appends_per_s": round(statistics.median(rates)),
        "p50_ms": round(1000 * cuts[49], 3),
        "p99_ms": round(1000 * cuts[98], 3),
        "group": round(statistics.median(groups), 1),
        "fsync_ms": round(1000 * statistics.median(syncs), 3),
        "bare_per_s": round(statistics.median(bounds)),
        "ratio_to_bare": round(statistics.median(a / b for a, b in zip(rates, bounds, strict=True)), 3),
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
    if options.json:
        print(json.dumps(result))
        return
    width = max(len(name) for name in result)
    for name, value in result.items():
        print(f"{name:<{width}}  {value:>12,}" if not isinstance(value, str) else f"{name:<{width}}  {value:>12}")


if __name__ == "__main__":
    main()
