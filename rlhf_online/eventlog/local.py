"""The durable log on local disk: its one writer. `tail` reads it.

    append ──▶ queue ──▶ writer thread: take all that waits → write → fsync → publish `committed` → resolve futures
               (append_queue)                               (segment_writer)    (committed)

While one fsync runs, the next group gathers; an idle append waits for nothing but its own fsync, and no append waits
for more to come.

Invariants:
- A future resolves only after the fsync that covers its record; sequence numbers count acknowledged records from 0.
- Records that a killed writer left written but not acknowledged are kept on the next open if they are whole: their
  sender doesn't know, sends them again, and readers drop the second by its event id.
- A record that was acknowledged and is damaged keeps its number, and so does one that is gone and was read or shipped,
  whatever the disk forgot: readers know records by their numbers. Nothing is appended behind a damaged end.
- Retention removes whole segments, oldest first, and none with a record that a reader, or Kafka, has not had yet.
"""

import contextlib
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Self

import structlog

from rlhf_online.errors import InvalidInput, LogUnavailable
from rlhf_online.eventlog import folder as files
from rlhf_online.eventlog.append_queue import AppendQueue, Group
from rlhf_online.eventlog.base import Shipping
from rlhf_online.eventlog.committed import CommittedFile
from rlhf_online.eventlog.recovery import recover
from rlhf_online.eventlog.retention import KEEP_ALL, Retention, remove_expired
from rlhf_online.eventlog.segment_writer import SegmentWriter, Sync, datasync
from rlhf_online.eventlog.segments import MAX_GROUP, MAX_RECORD, group_size


class LocalLog:
    """The log's one writer (a `Sink`). Opening recovers: a torn tail is cut, what is left is made durable.

    `segment_bytes` is the size at which a segment ends; `queue_bytes` bounds what waits for the disk; `shipped`, for a
    spool, tells how many records have left it; `sync` makes a descriptor's data durable. Raises LogLocked,
    LogUnavailable.
    """

    def __init__(
        self,
        folder: Path,
        *,
        segment_bytes: int = 64 << 20,
        queue_bytes: int = 64 << 20,
        retention: Retention = KEEP_ALL,
        shipped: Callable[[], int] | None = None,
        sync: Sync = datasync,
    ) -> None:
        self._folder = folder
        self._retention = retention
        self._shipped = shipped
        self.identity = files.identity(folder)
        self.groups = 0
        """Groups made durable since the log was opened: acknowledged records for each fsync tell how busy it is."""
        self._queue = AppendQueue(folder, queue_bytes, group_bytes=min(MAX_GROUP, segment_bytes))
        self._segment = SegmentWriter(folder, segment_bytes, retention.max_age_s, sync)
        with contextlib.ExitStack() as undo:
            try:
                self._lock = undo.enter_context(files.take_lock(folder))
                self._committed = CommittedFile(folder, writable=True)
                undo.callback(self._committed.close)
                undo.callback(self._segment.close)
                self._next = recover(folder, self.identity, self._committed, self._segment)
            except OSError as error:
                raise files.unusable(folder, error) from error
            undo.pop_all()
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
        _check_size(payload)
        return self._queue.put(payload)

    def append_all(self, payloads: Sequence[bytes]) -> Future[int]:
        """Queue records that are written together: all of them, or none. The future is that of the first.

        Raises what `append` does, InvalidInput also for more than a group (16 MiB) holds.
        """
        for payload in (min(payloads, key=len, default=b""), max(payloads, key=len, default=b"")):
            _check_size(payload)
        if not 0 < (size := group_size(payloads)) <= MAX_GROUP:
            raise InvalidInput(f"a group holds 1 to {MAX_GROUP} bytes, but these records take {size}")
        return self._queue.put(*payloads)

    @property
    def end(self) -> int:
        """Acknowledged records, from any thread."""
        return self._next

    def shipping(self) -> Shipping:
        """Nothing waits: this log is read where it lies."""
        return Shipping()

    def close(self) -> None:
        """Write what is queued, stop, and give the lock back. A second call does nothing."""
        self._queue.close()
        self._thread.join()
        self._segment.close()
        self._committed.close()
        self._lock.release()

    def _run(self) -> None:
        check_s = self._retention.check_s if self._retention.limited else None
        check_at = 0.0
        try:
            while (group := self._queue.take(check_s)) is not None:
                if group:
                    self._commit(group)
                if check_s is not None and time.monotonic() >= check_at:
                    self.expire()
                    check_at = time.monotonic() + check_s
        finally:
            self._queue.fail()

    def _commit(self, group: Group) -> None:
        """Make a group durable and resolve its futures."""
        first = self._next
        try:
            records = [payload for payloads, _ in group for payload in payloads]
            size = self._segment.write(records, first)
            self._committed.write(first + len(records))
        except OSError as error:
            self._segment.abandon()
            for _, future in group:
                future.set_exception(
                    LogUnavailable(
                        f"not written to {self._folder}: {error.strerror or error}; the event is not acknowledged,"
                        " send it again once the disk takes writes"
                    )
                )
            return
        self._segment.accept(size)
        self._next = first + len(records)
        self.groups += 1
        for payloads, future in group:
            future.set_result(first)
            first += len(payloads)

    def expire(self) -> list[int]:
        """Remove segments by the retention; returns their first sequence numbers. Only the writer's thread calls it.

        A folder that cannot be read or changed is tried again later.
        """
        removed: list[int] = []
        try:
            positions = [files.first_needed(self._folder), self._shipped() if self._shipped else None]
            needed = min((number for number in positions if number is not None), default=self._next)
            last = self._segment.last_change()
            if needed >= self._next and last is not None and self._retention.is_old(last):
                self._segment.begin(self._next)
            removed.extend(remove_expired(self._folder, self._retention, needed))
        except OSError as error:
            structlog.get_logger().warning("retention failed", folder=str(self._folder), error=error.strerror)
        return removed


def _check_size(payload: bytes) -> None:
    """Raises InvalidInput."""
    if not 0 < len(payload) <= MAX_RECORD:
        raise InvalidInput(f"a record holds 1 to {MAX_RECORD} bytes, but this one has {len(payload)}")
