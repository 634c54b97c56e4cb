"""The lease that lets one trainer write: whoever takes it gets a higher epoch, and fences every lower one off.

This is the lease of one machine, and the fence of every lease; `kubernetes` has the lock of a cluster.

    checkpoints/
      lock         held (flock) by the trainer as long as it runs; holds its process id, for people
      epoch.json   {"epoch": 7, "holder": …}: the last epoch taken, and by whom
      epoch.lock   held (flock) for a moment: while an epoch is taken, and while a step is made durable under one

`lock` keeps a second trainer out where locks hold. Where one comes in all the same (somebody removed the lock file; a
pod was replaced on another node while the old one stood still), it takes a higher epoch, and the one before can commit
nothing more: each step that others can see (the rename of a checkpoint's manifest; a version's publishing, promotion or
rejection) is made in `guard`, which reads `epoch.json` again. No epoch is taken during such a step, so none comes
between look and rename. A trainer that stands still in that very moment keeps the next one out until it is ended.

What remains: on a file system where flock excludes nobody, a trainer that stops between look and rename may finish that
one step after it was replaced. Two that start there at the same time are told apart by `holder`: the last one stays.
"""

import errno
import json
import os
import socket
import time
import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol, Self

import structlog

from rlhf_online import locks
from rlhf_online.durable import make_folder, write_json
from rlhf_online.errors import CheckpointError, Fenced

EPOCH = "epoch.json"
STEP_WITHIN_S, POLL_S = 10.0, 0.01
REMEDIES = {
    errno.EROFS: "mount it for reading and writing; after an error of the disk Linux remounts it (see dmesg)",
    errno.ENOSPC: "make room, or a larger volume",
    errno.EDQUOT: "make room, or a larger quota",
}


class Lease(Protocol):
    """What a trainer that holds the lease asks of it; both methods raise OSError where it cannot be told now."""

    @property
    def epoch(self) -> int: ...

    def check(self) -> None:
        """Raises Fenced if another trainer has taken over."""
        ...

    def guard(self) -> AbstractContextManager[None]:
        """Let nobody take over while the block runs, which must be short; not to be nested.

        Raises Fenced before the block if somebody has, CheckpointError if a step of another does not end.
        """
        ...


@dataclass(frozen=True, slots=True)
class Term:
    """An epoch and who took it; `holder` is never the same twice."""

    epoch: int
    holder: str


def new_holder() -> str:
    """A name for this process that no other start has, and that tells people where it runs."""
    return f"{socket.gethostname()}, process {os.getpid()}, {uuid.uuid4().hex[:8]}"


@dataclass(frozen=True, slots=True)
class Fence:
    """An epoch taken in `folder`, where the checkpoints are: what keeps every lower one from committing there."""

    folder: Path
    term: Term

    @classmethod
    def begin(cls, folder: Path, holder: str) -> Self:
        """Take the next epoch. Raises CheckpointError where it cannot write, or a step of another does not end."""
        with _needed(folder):
            make_folder(folder)
            with _epoch_lock(folder):
                term = Term(_highest_epoch(folder) + 1, holder)
                write_json(folder / EPOCH, asdict(term))
        structlog.get_logger().info("lease taken", epoch=term.epoch)
        return cls(folder, term)

    @property
    def epoch(self) -> int:
        return self.term.epoch

    def check(self) -> None:
        """Raises Fenced unless `epoch.json` says what this lease wrote, and no checkpoint has a higher epoch."""
        recorded = _recorded_term(self.folder)
        if recorded == self.term and _highest_committed(self.folder) <= self.epoch:
            return
        other = (
            f"epoch {recorded.epoch} was taken ({recorded.holder})" if recorded else f"{EPOCH} is missing or damaged"
        )
        raise Fenced(
            f"this trainer holds epoch {self.epoch} of {self.folder} no more: {other}. It writes nothing from now on. "
            "See that one trainer runs on this state_dir: stop the other one and start this one again, or leave it off"
        )

    @contextmanager
    def guard(self) -> Iterator[None]:
        """See `Lease`."""
        with _epoch_lock(self.folder):
            self.check()
            yield


@dataclass(frozen=True, slots=True)
class FileLease(Fence):
    """A lease in files of `folder`: the fence, and a lock that lasts as long as the process."""

    @classmethod
    @contextmanager
    def take(cls, folder: Path) -> Iterator[Self]:
        """Hold the lease while the block runs. Raises CheckpointError if another trainer does, or it cannot write."""
        with _exclusive(folder):
            yield cls.begin(folder, new_holder())


@contextmanager
def _exclusive(folder: Path) -> Iterator[None]:
    path = folder / "lock"
    with _needed(folder):
        make_folder(folder)
        lock = locks.try_acquire(path, signed=True)
    if lock is None:
        raise CheckpointError(
            f"another trainer (process {locks.holder(path)}) works on {folder}: stop it first, or give this one "
            "another state_dir"
        )
    with lock:
        yield


@contextmanager
def _needed(folder: Path) -> Iterator[None]:
    """A trainer that cannot write there cannot begin: raises CheckpointError for an OSError of the block."""
    try:
        yield
    except OSError as error:
        remedy = REMEDIES.get(
            error.errno or 0, "the trainer's user must be able to read and write there (see id, ls -l)"
        )
        raise CheckpointError(
            f"{error.filename or folder}, where the trainer keeps its checkpoints: {error.strerror}: {remedy}"
        ) from error


@contextmanager
def _epoch_lock(folder: Path) -> Iterator[None]:
    path = folder / "epoch.lock"
    deadline = time.monotonic() + STEP_WITHIN_S
    while (lock := locks.try_acquire(path)) is None:
        if time.monotonic() > deadline:
            raise CheckpointError(
                f"another trainer stands still in the middle of a commit: find it (`fuser {path}`) and kill it"
            )
        time.sleep(POLL_S)
    with lock:
        yield


def _highest_epoch(folder: Path) -> int:
    """The highest epoch known: where the file was lost, what was committed still says which epochs there were."""
    recorded, committed = _recorded_term(folder), _highest_committed(folder)
    if recorded is None and committed:
        structlog.get_logger().warning("epoch file missing or damaged", file=str(folder / EPOCH), committed=committed)
    return max(recorded.epoch if recorded else 0, committed)


def _recorded_term(folder: Path) -> Term | None:
    """What `epoch.json` says, None if that is nothing."""
    try:
        values = json.loads((folder / EPOCH).read_text())
        return Term(int(values["epoch"]), str(values["holder"]))
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def _highest_committed(folder: Path) -> int:
    """The highest epoch in the checkpoints' manifests; one that cannot be read says nothing."""
    highest = 0
    for path in folder.glob("*/manifest.json"):
        try:
            highest = max(highest, int(json.loads(path.read_text())["epoch"]))
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return highest
