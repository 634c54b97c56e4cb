"""The durable log on local disk: one writer (`LocalLog`), and readers that tail it (`LocalReader`).

    append ──▶ queue ──▶ writer thread: take all that waits → write → fsync → publish `committed` → resolve futures

While one fsync runs, the next group gathers; an idle append waits for nothing but its own fsync, and no append waits
for more to come.

Invariants:
- A future resolves only after the fsync that covers its record; sequence numbers count acknowledged records from 0.
- A reader returns only acknowledged records, each checked against its CRC.
- After a failed write or fsync the segment is cut back to what was acknowledged and never appended to again; the
  next group begins a new segment. Should even the cut fail, the new segment's name still says how many records of
  the old one count, and what stands behind them is never read.
- Records that a killed writer left written but not acknowledged are kept on the next open if they are whole: their
  sender doesn't know, sends them again, and readers drop the second by its event id.
"""

import bisect
import contextlib
import os
import threading
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Self

from rlhf_online.errors import InvalidInput, LogCorrupt, LogUnavailable, PositionLost
from rlhf_online.eventlog import folder as files
from rlhf_online.eventlog.base import Position, Record, Shipping
from rlhf_online.eventlog.segments import (
    HEADER,
    MAX_GROUP,
    MAX_RECORD,
    encode_group,
    parse_header,
    scan,
    segment_name,
)
from rlhf_online.state import fsync_dir

PARTITION = "local"

_datasync = getattr(os, "fdatasync", os.fsync)  # macOS has none
_READ_BYTES = 1 << 20
_RESULT_BYTES = 64 << 20


class LocalLog:
    """The log's one writer (a `Sink`). Opening recovers: a torn tail is cut, what is left is made durable.

    `segment_bytes` is the size at which a segment ends; `queue_bytes` bounds what waits for the disk.
    Raises LogLocked, LogCorrupt, LogUnavailable.
    """

    def __init__(self, folder: Path, *, segment_bytes: int = 64 << 20, queue_bytes: int = 64 << 20) -> None:
        self._folder = folder
        self._segment_bytes = segment_bytes
        self._queue_bytes = queue_bytes
        self._boot = files.boot_id()
        self.identity = files.identity(folder)
        self.groups = 0
        """Groups made durable since the log was opened: acknowledged records for each fsync tell how busy it is."""
        self._segment: int | None = None
        self._segment_first = 0
        self._offset = 0
        with contextlib.ExitStack() as undo:
            try:
                self._lock = files.take_lock(folder)
                undo.callback(os.close, self._lock)
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
        if self._lock >= 0:
            self._close_segment()
            os.close(self._committed)
            os.close(self._lock)
            self._lock = -1

    def _run(self) -> None:
        try:
            while (group := self._take()) is not None:
                if group:
                    self._commit(group)
        finally:
            with self._changed:
                self._closed = True
                rest, self._queue = self._queue, deque()
            for _, future in rest:
                if future.set_running_or_notify_cancel():
                    future.set_exception(LogUnavailable(f"the writer of the log in {self._folder} stopped"))

    def _take(self) -> list[tuple[bytes, Future[int]]] | None:
        """All that waits, up to what one segment takes; None once closed and empty."""
        group: list[tuple[bytes, Future[int]]] = []
        size = 0
        limit = min(MAX_GROUP, self._segment_bytes)
        with self._changed:
            while not self._queue and not self._closed:
                self._changed.wait()
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
        data = encode_group([payload for payload, _ in group])
        first = self._next
        try:
            segment = self._segment_for(len(data))
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
        if self._segment is not None and self._offset and self._offset + size > self._segment_bytes:
            self._close_segment()
        if self._segment is None:
            path = self._folder / segment_name(self._next)
            self._segment = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
            self._segment_first, self._offset = self._next, 0
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
        """Open the last segment, cut its torn tail, make the rest durable; returns the next sequence number."""
        committed = files.read_committed(self._committed, self._boot)
        firsts = files.segments(self._folder)
        end = 0
        if firsts:
            self._segment_first = firsts[-1]
            path = self._folder / segment_name(self._segment_first)
            self._segment = os.open(path, os.O_RDWR)
            data = _read_all(self._segment)
            found = scan(data)
            end = self._segment_first + found.records
            if found.damaged or end < committed.records:
                raise _corrupt(path, found.good_bytes)
            if len(data) > found.good_bytes:
                os.ftruncate(self._segment, found.good_bytes)
            if end > committed.records or not committed.current:
                # What the last writer did not live to fsync is written again: only a dirty page is sure to be synced.
                _write(self._segment, data[: found.good_bytes], 0)
            os.fsync(self._segment)
            self._offset = found.good_bytes
        if end < committed.records:
            raise LogCorrupt(
                f"{self._folder} holds {end} records, but {committed.records} were acknowledged: segment files are"
                " missing; bring them back, or move the folder away to begin a new log"
            )
        files.write_committed(self._committed, end, self._boot)
        os.fsync(self._committed)
        fsync_dir(self._folder)
        return end


class LocalReader:
    """Reads a local log (a `Source`), also while another process writes it. One thread at a time.

    The folder may not exist yet: it is made, and the log is empty until its writer comes.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._identity = files.identity(folder)
        self._boot = files.boot_id()
        self._committed: int | None = None
        self._segment: int | None = None
        self._first = -1
        # Where the next record in sequence stands in the open segment.
        self._number = 0
        self._offset = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def read(self, position: Mapping[str, int], limit: int) -> tuple[list[Record], Position]:
        """Up to `limit` records (fewer if they would exceed 64 MiB) from `position`, and the position after them.

        Raises PositionLost, LogCorrupt, LogUnavailable.
        """
        number = position.get(PARTITION, 0)
        try:
            committed = self._read_committed()
            if number > committed.records and committed.current:
                raise PositionLost(
                    f"position {number} is past the end of the log in {self._folder} ({committed.records} records): "
                    "the log was replaced or lost records; bring the old one back, or start from a fresh checkpoint"
                )
            records: list[Record] = []
            wanted = min(number + limit, committed.records)
            firsts = files.segments(self._folder) if number < wanted else []
            size = 0
            while number < wanted and size < _RESULT_BYTES:
                stop = self._seek(number, firsts)
                for payload in self._payloads(min(wanted, stop) - number, _RESULT_BYTES - size):
                    records.append(Record(partition=PARTITION, offset=number, payload=payload))
                    size += len(payload)
                    number += 1
            return records, {PARTITION: number}
        except OSError as error:
            raise LogUnavailable(f"the log in {self._folder} cannot be read: {error.strerror or error}") from error

    def end(self) -> Position:
        """The position after the last acknowledged record. Raises LogUnavailable."""
        try:
            return {PARTITION: self._read_committed().records}
        except OSError as error:
            raise LogUnavailable(f"the log in {self._folder} cannot be read: {error.strerror or error}") from error

    def identity(self) -> str:
        """The name that the folder was given when it was made."""
        return self._identity

    def close(self) -> None:
        for descriptor in (self._segment, self._committed):
            if descriptor is not None:
                os.close(descriptor)
        self._segment = self._committed = None

    def _read_committed(self) -> files.Committed:
        if self._committed is None:
            try:
                self._committed = os.open(self._folder / "committed", os.O_RDONLY)
            except FileNotFoundError:
                return files.Committed(records=0, current=not files.segments(self._folder))
        return files.read_committed(self._committed, self._boot)

    def _seek(self, number: int, firsts: list[int]) -> int:
        """Stand before record `number`; returns the sequence number at which its segment ends."""
        at = bisect.bisect_right(firsts, number) - 1
        if at < 0:
            raise PositionLost(
                f"record {number} is no longer in the log in {self._folder}, which begins at "
                f"{firsts[0] if firsts else 'no record'}: records before it were removed"
            )
        first = firsts[at]
        if first != self._first or self._segment is None or number < self._number:
            if self._segment is not None:
                os.close(self._segment)
                self._segment = None
            self._segment = os.open(self._folder / segment_name(first), os.O_RDONLY)
            self._first, self._number, self._offset = first, first, 0
        for _ in self._payloads(number - self._number, None):
            pass
        return firsts[at + 1] if at + 1 < len(firsts) else 1 << 63

    def _payloads(self, count: int, max_bytes: int | None) -> Iterator[bytes]:
        """The next `count` payloads of the open segment, until `max_bytes` is reached; None: skip, without bodies."""
        assert self._segment is not None
        data, base = b"", self._offset
        taken = 0
        for _ in range(count):
            at = self._offset - base
            if at + HEADER.size > len(data):
                data, base, at = self._load(HEADER.size), self._offset, 0
            header = parse_header(data, at)
            if not header.plausible:
                raise _corrupt(self._folder / segment_name(self._first), self._offset)
            if max_bytes is None:
                self._number, self._offset = self._number + 1, self._offset + header.size
                yield b""
                continue
            if at + header.size > len(data):
                data, base, at = self._load(header.size), self._offset, 0
            payload = data[at + HEADER.size : at + header.size]
            if not header.matches(payload):
                raise _corrupt(self._folder / segment_name(self._first), self._offset)
            self._number, self._offset = self._number + 1, self._offset + header.size
            taken += len(payload)
            yield payload
            if taken >= max_bytes:
                return

    def _load(self, size: int) -> bytes:
        """At least `size` bytes from the record at hand on. A committed record that isn't whole is damage."""
        assert self._segment is not None
        data = os.pread(self._segment, max(size, _READ_BYTES), self._offset)
        if len(data) < size:
            raise _corrupt(self._folder / segment_name(self._first), self._offset)
        return data


def _corrupt(path: Path, offset: int) -> LogCorrupt:
    return LogCorrupt(
        f"{path}: the record at byte {offset} was acknowledged and is damaged now: restore this file from a copy, or "
        "move the folder away to begin a new log"
    )


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
