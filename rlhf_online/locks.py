"""Exclusive locks on files (flock), by which processes of one machine keep out of each other's way.

A lock ends with its `FileLock`, or with the process that holds it, however that one ends. The file itself stays.
"""

import fcntl
import os
from pathlib import Path
from types import TracebackType


class FileLock:
    """A lock that is held; as a context manager it is released at the end of the block."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def release(self) -> None:
        """A second call does nothing."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def __enter__(self) -> "FileLock":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def acquire(path: Path) -> FileLock:
    """The lock on the file, which is made if there is none, once nobody else holds it. Raises OSError."""
    return FileLock(_locked(path, fcntl.LOCK_EX))


def try_acquire(path: Path, *, signed: bool = False) -> FileLock | None:
    """The lock if nobody holds it, else None. `signed` writes the process id into the file, for `holder`.

    Raises OSError.
    """
    try:
        lock = FileLock(descriptor := _locked(path, fcntl.LOCK_EX | fcntl.LOCK_NB))
    except BlockingIOError:
        return None
    try:
        if signed:
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, str(os.getpid()).encode(), 0)
    except OSError:
        lock.release()
        raise
    return lock


def holder(path: Path) -> str:
    """The process id that whoever holds the lock signed with; "unknown" if none. Raises OSError."""
    return path.read_text(errors="replace").strip() or "unknown"


def _locked(path: Path, operation: int) -> int:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(descriptor, operation)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor
