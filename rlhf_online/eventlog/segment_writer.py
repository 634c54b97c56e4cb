"""The segment of a local log that is written to.

After a failed write or fsync it is cut back to what was acknowledged and never appended to again; the next group
begins another. Should even the cut fail, the next segment's name still says how many records of this one count.
"""

import contextlib
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from rlhf_online.durable import fsync_folder
from rlhf_online.eventlog.segments import encode_group, group_size, segment_name

Sync = Callable[[int], object]


def datasync(descriptor: int) -> None:
    """Make the data of a descriptor durable. Raises OSError."""
    if hasattr(os, "fdatasync"):
        os.fdatasync(descriptor)
    else:  # macOS has none
        os.fsync(descriptor)


class SegmentWriter:
    """At most one segment of `folder` is open. It ends before it is larger than `max_bytes` or older than `max_age_s`.

    `sync` makes the data of a descriptor durable.
    """

    def __init__(self, folder: Path, max_bytes: int, max_age_s: float, sync: Sync) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._max_age_s = max_age_s
        self._sync = sync
        self._descriptor: int | None = None
        self._first = 0
        self._size = 0
        """Bytes of acknowledged records."""
        self._began = time.time()

    def begin(self, number: int) -> int:
        """Close what is open, and begin the segment whose first record is the `number`-th; its descriptor.

        Raises OSError.
        """
        self.close()
        path = self._folder / segment_name(number)
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
        self._first, self._size, self._began = number, 0, time.time()
        fsync_folder(self._folder)
        return self._descriptor

    def reopen(self, first: int) -> bytes:
        """Open the segment of that name; what it holds. `restore` is to follow. Raises OSError."""
        self._first = first
        self._descriptor = os.open(self._folder / segment_name(first), os.O_RDWR)
        return _read_all(self._descriptor)

    def restore(self, held: bytes, size: int, *, rewrite: bool) -> None:
        """Cut the reopened segment, which held that much, to `size` bytes and make them durable. Raises OSError.

        `rewrite` where they may never have been synced: only a page that is made dirty again is sure to be.
        """
        assert self._descriptor is not None
        if size < len(held):
            os.ftruncate(self._descriptor, size)
        if rewrite:
            _write_all(self._descriptor, held[:size], 0)
        os.fsync(self._descriptor)
        self._size = size

    def write(self, payloads: Sequence[bytes], number: int) -> int:
        """Write records, the first of them the `number`-th, durably; the size to `accept` once they are acknowledged.

        Raises OSError: then `abandon` is to follow.
        """
        full = self._size + group_size(payloads) > self._max_bytes or time.time() - self._began > self._max_age_s
        descriptor = self._descriptor
        if descriptor is None or (self._size and full):
            descriptor = self.begin(number)
        data = encode_group(payloads, number - self._first)
        _write_all(descriptor, data, self._size)
        self._sync(descriptor)
        return self._size + len(data)

    def accept(self, size: int) -> None:
        self._size = size

    def last_change(self) -> os.stat_result | None:
        """The open segment's, None if it holds no record. Raises OSError."""
        return os.fstat(self._descriptor) if self._descriptor is not None and self._size else None

    def abandon(self) -> None:
        """After a failure: cut the segment back to what was acknowledged, and never append to it again.

        One without any acknowledged record is removed, since the next segment takes its name.
        """
        if self._descriptor is None:
            return
        with contextlib.suppress(OSError):
            if self._size == 0:
                (self._folder / segment_name(self._first)).unlink()
            else:
                os.ftruncate(self._descriptor, self._size)
        self.close()

    def close(self) -> None:
        if self._descriptor is not None:
            descriptor, self._descriptor = self._descriptor, None
            with contextlib.suppress(OSError):  # what counts of it was fsynced before
                os.close(descriptor)


def _write_all(descriptor: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(descriptor, view, offset)
        view, offset = view[written:], offset + written


def _read_all(descriptor: int) -> bytes:
    parts: list[bytes] = []
    offset = 0
    while part := os.pread(descriptor, 8 << 20, offset):
        parts.append(part)
        offset += len(part)
    return b"".join(parts)
