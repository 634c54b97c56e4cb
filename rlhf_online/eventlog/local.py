"""The durable log on local disk: its one writer. `tail` reads it.

    append ──▶ queue ──▶ writer thread: take all that waits → write → fsync → publish `committed` → resolve futures

While one fsync runs, the next group gathers; an idle append waits for nothing but its own fsync, and no append waits
for more to come.

Invariants:
- A future resolves only after the fsync that covers its record; sequence numbers count acknowledged records from 0.
- After a failed write or fsync the segment is cut back to what was acknowledged and never appended to again; the
  next group begins a new segment. Should even the cut fail, the new segment's name still says how many records of
  the old one count, and what stands behind them is never read.
- Records that a killed writer left written but not acknowledged are kept on the next open if they are whole: their
  sender doesn't know, sends them again, and readers drop the second by its event id.
- A record that was acknowledged and is damaged keeps its number, and so does one that is gone and was read or shipped,
  whatever the disk forgot: readers know records by their numbers. Nothing is appended behind a damaged end.
- Retention removes whole segments, oldest first, and none with a record that a reader, or Kafka, has not had yet.
"""

import contextlib
import math
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import structlog

from rlhf_online.errors import InvalidInput, LogUnavailable
from rlhf_online.eventlog import folder as files
from rlhf_online.eventlog.base import Shipping
from rlhf_online.eventlog.segments import (
    HEADER,
    MAX_GROUP,
    MAX_RECORD,
    Scan,
    encode_group,
    group_size,
    scan,
    segment_name,
)
from rlhf_online.state import fsync_dir

_datasync = getattr(os, "fdatasync", os.fsync)  # macOS has none
_EXPIRE_EVERY_S = 60.0


@dataclass(frozen=True, slots=True)
class Retention:
    """What is removed once everybody has had it: segments beyond `max_bytes` in all, or older than `max_age_s`.

    A segment's age is that of its last record, and it begins at most `max_age_s` before that. Infinity: no limit.
    """

    max_bytes: float = math.inf
    max_age_s: float = math.inf

    @property
    def limited(self) -> bool:
        return min(self.max_bytes, self.max_age_s) < math.inf


KEEP_ALL = Retention()


class LocalLog:
    """The log's one writer (a `Sink`). Opening recovers: a torn tail is cut, what is left is made durable.

    `segment_bytes` is the size at which a segment ends; `queue_bytes` bounds what waits for the disk; `shipped`, for a
    spool, tells how many records have left it. Raises LogLocked, LogUnavailable.
    """

    def __init__(
        self,
        folder: Path,
        *,
        segment_bytes: int = 64 << 20,
        queue_bytes: int = 64 << 20,
        retention: Retention = KEEP_ALL,
        shipped: Callable[[], int] | None = None,
    ) -> None:
        self._folder = folder
        self._retention = retention
        self._shipped = shipped
        self._expire_at = 0.0
        self._segment_bytes = segment_bytes
        self._queue_bytes = queue_bytes
        self._boot = files.boot_id()
        self.identity = files.identity(folder)
        self.groups = 0
        """Groups made durable since the log was opened: acknowledged records for each fsync tell how busy it is."""
        self._segment: int | None = None
        self._segment_first = 0
        self._offset = 0
        self._began = time.time()
        with contextlib.ExitStack() as undo:
            try:
                self._lock = files.take_lock(folder)
                undo.callback(self._lock.release)
                self._committed = os.open(folder / "committed", os.O_RDWR | os.O_CREAT, 0o644)
                undo.callback(os.close, self._committed)
                undo.callback(self._close_segment)
                self._next = self._recover()
            except OSError as error:
                raise files.unusable(folder, error) from error
            undo.pop_all()
        self._queue: deque[tuple[bytes, Future[int]]] = deque()
        self._queued_bytes = 0
        self._closed = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="eventlog-writer", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def append(self, payload: bytes) -> Future[int]:
        """Queue a record; the future resolves to its sequence number once it is durable, or raises LogUnavailable.

        Raises LogUnavailable at once if the log is closed or its queue full, InvalidInput for an empty record or one
        of more than 16 MiB. A future that is cancelled while it waits is not written.
        """
        if not 0 < len(payload) <= MAX_RECORD:
            raise InvalidInput(f"a record holds 1 to {MAX_RECORD} bytes, but this one has {len(payload)}")
        future: Future[int] = Future()
        with self._changed:
            if self._closed:
                raise LogUnavailable(f"the log in {self._folder} is closed: open it again")
            if self._queued_bytes and self._queued_bytes + len(payload) > self._queue_bytes:
                raise LogUnavailable(
                    f"{self._queued_bytes} bytes wait for the disk of {self._folder} already: it is too slow, or stuck;"
                    " send the event again later"
                )
            self._queue.append((payload, future))
            self._queued_bytes += len(payload)
            self._changed.notify()
        return future

    @property
    def end(self) -> int:
        """Acknowledged records, from any thread."""
        return self._next

    def shipping(self) -> Shipping:
        """Nothing waits: this log is read where it lies."""
        return Shipping()

    def close(self) -> None:
        """Write what is queued, stop, and give the lock back. A second call does nothing."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()
        if self._committed >= 0:
            self._close_segment()
            os.close(self._committed)
            self._committed = -1
            self._lock.release()

    def _run(self) -> None:
        try:
            while (group := self._take()) is not None:
                if group:
                    self._commit(group)
                if self._retention.limited and time.monotonic() >= self._expire_at:
                    self.expire()
                    self._expire_at = time.monotonic() + _EXPIRE_EVERY_S
        finally:
            with self._changed:
                self._closed = True
                rest, self._queue = self._queue, deque()
            for _, future in rest:
                if future.set_running_or_notify_cancel():
                    future.set_exception(LogUnavailable(f"the writer of the log in {self._folder} stopped"))

    def expire(self) -> list[int]:
        """Remove segments by the retention; returns their first sequence numbers. Only the writer's thread calls it.

        The last segment stays, since its name says how many records there were. A folder that cannot be read or
        changed is tried again later.
        """
        removed: list[int] = []
        try:
            needed = self._needed()
            if (
                self._segment is not None
                and self._offset
                and needed >= self._next
                and self._old(os.fstat(self._segment))
            ):
                self._close_segment()
                self._begin_segment()
            firsts = files.segments(self._folder)
            stats = [(self._folder / segment_name(first)).stat() for first in firsts]
            total = sum(stat.st_size for stat in stats)
            for first, end, stat in zip(firsts, firsts[1:], stats, strict=False):
                if end > needed or not (total > self._retention.max_bytes or self._old(stat)):
                    break
                (self._folder / segment_name(first)).unlink()
                fsync_dir(self._folder)  # one by one, so that a power failure leaves no gap
                removed.append(first)
                total -= stat.st_size
        except OSError as error:
            structlog.get_logger().warning("retention failed", folder=str(self._folder), error=error.strerror)
        return removed

    def _old(self, stat: os.stat_result) -> bool:
        return time.time() - stat.st_mtime > self._retention.max_age_s

    def _needed(self) -> int:
        """The first record that somebody has not had yet."""
        claims = [files.consumed(self._folder), self._shipped() if self._shipped else None]
        return min((claim for claim in claims if claim is not None), default=self._next)

    def _take(self) -> list[tuple[bytes, Future[int]]] | None:
        """All that waits, up to what one segment takes; None once closed and empty."""
        group: list[tuple[bytes, Future[int]]] = []
        size = 0
        limit = min(MAX_GROUP, self._segment_bytes)
        with self._changed:
            while not self._queue and not self._closed:
                if not self._changed.wait(_EXPIRE_EVERY_S if self._retention.limited else None):
                    return []
            if not self._queue:
                return None
            while self._queue:
                payload, future = self._queue[0]
                size += HEADER.size + len(payload)
                if group and size > limit:
                    break
                self._queue.popleft()
                self._queued_bytes -= len(payload)
                if future.set_running_or_notify_cancel():
                    group.append((payload, future))
        return group

    def _commit(self, group: list[tuple[bytes, Future[int]]]) -> None:
        """Make a group durable and resolve its futures."""
        payloads = [payload for payload, _ in group]
        first = self._next
        try:
            segment = self._segment_for(group_size(payloads))
            data = encode_group(payloads, first - self._segment_first)
            _write(segment, data, self._offset)
            _datasync(segment)
            files.write_committed(self._committed, first + len(group), self._boot)
        except OSError as error:
            self._abandon_segment()
            for _, future in group:
                future.set_exception(
                    LogUnavailable(
                        f"not written to {self._folder}: {error.strerror or error}; the event is not acknowledged,"
                        " send it again once the disk takes writes"
                    )
                )
            return
        self._offset += len(data)
        self._next = first + len(group)
        self.groups += 1
        for number, (_, future) in enumerate(group, first):
            future.set_result(number)

    def _segment_for(self, size: int) -> int:
        """The descriptor of a segment that `size` more bytes may go to. Raises OSError."""
        full = self._offset + size > self._segment_bytes or time.time() - self._began > self._retention.max_age_s
        if self._segment is not None and self._offset and full:
            self._close_segment()
        return self._begin_segment() if self._segment is None else self._segment

    def _begin_segment(self) -> int:
        """Raises OSError."""
        path = self._folder / segment_name(self._next)
        self._segment = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
        self._segment_first, self._offset, self._began = self._next, 0, time.time()
        fsync_dir(self._folder)
        return self._segment

    def _abandon_segment(self) -> None:
        """After a failure: cut the segment back to what was acknowledged, and never append to it again.

        One without any acknowledged record is removed, since the next segment takes its name.
        """
        if self._segment is None:
            return
        with contextlib.suppress(OSError):  # if this fails, the next segment's name says where this one ends
            if self._offset == 0:
                (self._folder / segment_name(self._segment_first)).unlink()
            else:
                os.ftruncate(self._segment, self._offset)
        self._close_segment()

    def _close_segment(self) -> None:
        if self._segment is not None:
            descriptor, self._segment = self._segment, None
            with contextlib.suppress(OSError):  # what counts of it was fsynced before
                os.close(descriptor)

    def _recover(self) -> int:
        """Open the last segment, cut its torn tail, make the rest durable; returns the next sequence number.

        Damage is reported and left in place, for readers to set aside.
        """
        committed = files.read_committed(self._committed, self._boot)
        firsts = files.segments(self._folder)
        end, lost = 0, False
        if firsts:
            self._segment_first = firsts[-1]
            path = self._folder / segment_name(self._segment_first)
            self._segment = os.open(path, os.O_RDWR)
            data = _read_all(self._segment)
            found = scan(data)
            end = self._segment_first + found.records
            lost = found.damaged or end < committed.records
            _report(path, found, lost)
            keep = len(data) if lost else found.good_bytes
            if keep < len(data):
                os.ftruncate(self._segment, keep)
            if end > committed.records or not committed.current:
                # What the last writer did not live to fsync is written again: only a dirty page is sure to be synced.
                _write(self._segment, data[:keep], 0)
            os.fsync(self._segment)
            self._offset = keep
        elif committed.records:
            lost = True
            structlog.get_logger().error(
                "every segment is missing", folder=str(self._folder), records=committed.records
            )
        if lost:
            end = max(end + 1, committed.records)
        if (claimed := files.claimed(self._folder, self.identity)) > end:
            structlog.get_logger().error("records are missing that were read", folder=str(self._folder), from_=end)
            lost, end = True, claimed
        if lost:
            self._next = end
            self._close_segment()
            self._begin_segment()
        files.write_committed(self._committed, end, self._boot)
        os.fsync(self._committed)
        fsync_dir(self._folder)
        return end


def _report(path: Path, found: Scan, lost: bool) -> None:
    """Tell people of records that were acknowledged and are not there any more."""
    log = structlog.get_logger()
    for hole in found.holes:
        log.error("damaged records", file=str(path), offset=hole.offset, bytes=hole.size, records=hole.records)
    if lost:
        log.error("the last records are damaged or missing", file=str(path), offset=found.good_bytes)


def _write(descriptor: int, data: bytes, offset: int) -> None:
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
