"""Writing and reading a local log in tests, and a disk that fails on demand."""

import os
import subprocess
import sys
import threading
from pathlib import Path

from rlhf_online.eventlog import folder as files
from rlhf_online.eventlog.local import LocalLog
from rlhf_online.eventlog.segment_writer import datasync
from rlhf_online.eventlog.segments import segment_name
from rlhf_online.eventlog.tail import LocalReader

ROOT = Path(__file__).parents[2]


def append_all(folder: Path, payloads: list[bytes], *, segment_bytes: int = 64 << 20) -> None:
    """Append one by one, so that each record is a group of its own."""
    with LocalLog(folder, segment_bytes=segment_bytes) as log:
        for each in payloads:
            log.append(each).result(30)


def read_all(folder: Path) -> list[bytes]:
    with LocalReader(folder) as reader:
        payloads: list[bytes] = []
        position: dict[str, int] = {}
        while True:
            records, position = reader.read(position, 1000)
            if not records:
                return payloads
            assert [record.offset for record in records] == list(range(len(payloads), len(payloads) + len(records)))
            payloads += [record.payload for record in records]


def segment_files(folder: Path) -> list[Path]:
    return [folder / segment_name(first) for first in files.segments(folder)]


def start_writer(folder: Path, *, threads: int = 8, round_: str = "0", **environment: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.support.log_writer", str(folder), str(threads), round_],
        cwd=ROOT,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
    )


class Disk:
    """Stands in for fdatasync: can be held, and can fail."""

    def __init__(self) -> None:
        self.syncs = 0
        self.failures: list[int] = []
        self.free = threading.Event()
        self.free.set()
        self.entered = threading.Event()

    def __call__(self, descriptor: int) -> None:
        self.syncs += 1
        self.entered.set()
        assert self.free.wait(60)
        if self.failures:
            raise OSError(self.failures.pop(0), "the disk failed")
        datasync(descriptor)
