"""What a long log costs to open: `python -m tests.benches.long_log [--gib 0.1 1 10] [--json]`.

For each size a log of records of 1 KiB is made of segments of 64 MiB, the last one full, in groups of 64. Then, each
in a process of its own and with the files dropped from the page cache: the writer opens it (`LocalLog`, which checks
the last segment), a reader reads its last records (`LocalReader`), and a forwarder finds the last records that have
not been shipped (`Spool`). Seconds, without the process's start, and the process's peak of resident memory beyond
what it had after its imports. Medians over the rounds. A log is removed before the next is made.
"""

import argparse
import json
import multiprocessing
import os
import shutil
import statistics
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path

from rlhf_online.eventlog import folder as files
from rlhf_online.eventlog.base import PARTITION
from rlhf_online.eventlog.committed import CommittedFile
from rlhf_online.eventlog.local import LocalLog
from rlhf_online.eventlog.segments import HEADER, encode_group, segment_name
from rlhf_online.eventlog.spool import Spool
from rlhf_online.eventlog.tail import LocalReader
from tests.benches.support.figures import show
from tests.support.processes import peak_kib

SEGMENT_BYTES = 64 << 20
RECORD = 1024
GROUP = 64
LAST = 100


def make(folder: Path, gib: float) -> int:
    """Write a log of about that size; returns its number of records. Only a segment's name tells it from the others."""
    files.identity(folder)
    full = SEGMENT_BYTES // (GROUP * (HEADER.size + RECORD))
    groups = [encode_group([os.urandom(RECORD) for _ in range(GROUP)], number * GROUP) for number in range(full)]
    segment, records = b"".join(groups), full * GROUP
    count = max(1, round(gib * 2**30 / len(segment)))
    for number in range(count):
        with (folder / segment_name(number * records)).open("wb") as file:
            file.write(segment)
            file.flush()
            os.fsync(file.fileno())
    committed = CommittedFile(folder, writable=True)
    committed.write(count * records)
    committed.close()
    (folder / "shipped.json").write_text(
        json.dumps({"spool": files.identity(folder), "shipped": count * records - LAST})
    )
    return count * records


def forget(folder: Path) -> None:
    """Drop the log's files from the page cache."""
    for path in folder.glob("*.log"):
        descriptor = os.open(path, os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def write(folder: Path, records: int) -> None:
    with LocalLog(folder) as log:
        assert log.end == records


def read(folder: Path, records: int) -> None:
    with LocalReader(folder) as reader:
        end = reader.end()[PARTITION]
        assert end == records
        assert len(reader.read({PARTITION: end - LAST}, LAST)[0]) == LAST


def spool(folder: Path, records: int) -> None:
    found = Spool(folder)
    assert len(found.waiting(1000)) == LAST
    found.close()


OPENERS = {"writer": write, "reader": read, "spool": spool}


def child(opener: str, folder: Path, records: int, pipe: Connection) -> None:
    before, begin = peak_kib(), time.perf_counter()
    OPENERS[opener](folder, records)
    pipe.send((time.perf_counter() - begin, peak_kib() - before))


def opened(opener: str, folder: Path, records: int) -> tuple[float, float]:
    """Seconds, and MiB of peak memory, of a fresh process."""
    forget(folder)
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=child, args=(opener, folder, records, theirs))
    process.start()
    theirs.close()
    seconds, kib = ours.recv()
    process.join()
    return seconds, kib / 1024


def measure(folder: Path, sizes: list[float], rounds: int) -> dict[str, float | int | str]:
    values: dict[str, float | int | str] = {}
    for gib in sizes:
        records = make(folder, gib)
        values[f"{gib:g} GiB: records"] = records
        runs = {opener: [opened(opener, folder, records) for _ in range(rounds)] for opener in OPENERS}
        for opener, found in runs.items():
            seconds, mib = zip(*found, strict=True)
            values[f"{gib:g} GiB: {opener}_s"] = round(statistics.median(seconds), 3)
            values[f"{gib:g} GiB: {opener}_mib"] = round(statistics.median(mib), 1)
        shutil.rmtree(folder)
    return values


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gib", type=float, nargs="+", default=[0.1, 1.0, 10.0], help="sizes of the log")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="where to write; default: a new folder in the current one")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of the table")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder or Path.cwd(), prefix=".bench-long-log-") as folder:
        show(measure(Path(folder) / "log", options.gib, options.rounds), as_json=options.json)


if __name__ == "__main__":
    main()
