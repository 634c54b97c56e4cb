"""Reads one segment of a local log, record by record, across damage.

good record ─▶ good record ─▶ hole: bytes that are no records any more ─▶ good record, whose number says how many
                                                                           records the hole has swallowed
"""

import os
from collections.abc import Iterator
from pathlib import Path

from rlhf_online.errors import LogUnavailable, PositionLost
from rlhf_online.eventlog import gap
from rlhf_online.eventlog.base import PARTITION, Record
from rlhf_online.eventlog.segments import HEADER, MAX_RECORD, find_next, parse_header, segment_name

_READ_BYTES = 1 << 20


class SegmentReader:
    """The segment whose first record is the `first`-th, opened; `number` is the record that it stands before.

    Raises OSError.
    """

    def __init__(self, folder: Path, first: int) -> None:
        self._path = folder / segment_name(first)
        self._descriptor = os.open(self._path, os.O_RDONLY)
        self.first = self.number = first
        # Where the next record stands; in a hole, what follows the hole.
        self._offset = 0
        self._hole = ""
        self._hole_end = 0

    def close(self) -> None:
        os.close(self._descriptor)

    def records(self, stop: int, end: int | None) -> Iterator[Record]:
        """Its records from `number` up to the `stop`-th of the log; `end`: where the segment ends, if it is known.

        Raises PositionLost for records of which not a byte is left, LogUnavailable.
        """
        data, base = b"", -1
        while self.number < stop:
            if self.number < self._hole_end:
                record = Record(PARTITION, self.number, b"", self._hole)
            elif (payload := self._whole(data, self._offset - base)) is not None:
                self._offset += HEADER.size + len(payload)
                record = Record(PARTITION, self.number, payload)
            elif base != self._offset:
                data, base = self._load(), self._offset
                continue
            else:
                left = self._left(end)
                record = Record(PARTITION, self.number, left, self._hole)
            self.number += 1
            yield record

    def _whole(self, data: bytes, at: int) -> bytes | None:
        """The payload of the record at hand, which begins at `at` in `data`; None if it is not there whole and good."""
        if at + HEADER.size > len(data):
            return None
        header = parse_header(data, at)
        payload = data[at + HEADER.size : at + header.size]
        good = header.plausible and header.number == self.number - self.first and header.matches(payload)
        return payload if good else None

    def _load(self) -> bytes:
        """What stands from the record at hand on, itself whole if its header is good."""
        data = os.pread(self._descriptor, _READ_BYTES, self._offset)
        if len(data) >= HEADER.size:
            header = parse_header(data)
            if header.plausible and header.size > len(data):
                data = os.pread(self._descriptor, header.size, self._offset)
        return data

    def _left(self, end: int | None) -> bytes:
        """Find where the hole ends that begins at the record at hand; what is left of it, 16 MiB at most."""
        path, begin = self._path, self._offset
        rest = os.pread(self._descriptor, os.fstat(self._descriptor).st_size, begin)
        size, found = len(rest), find_next(memoryview(rest), 0, self.number - self.first)
        if found is not None and (end is None or self.first + found[1] <= end):
            size, self._hole_end = found[0], self.first + found[1]
        elif end is None:
            raise LogUnavailable(f"{path}: the record at byte {begin} is damaged; reading waits for what follows it")
        elif size > 0:
            self._hole_end = end
        else:
            raise PositionLost(
                f"records {self.number} to {end - 1} are missing: {path} ends before them, or their file was removed; "
                f"bring it back, or: {gap.HINT}"
            )
        self._offset = begin + size
        count = self._hole_end - self.number
        self._hole = f"damaged: {size} bytes at byte {begin} of {path.name}, where {count} records were"
        return rest[: min(size, MAX_RECORD)]
