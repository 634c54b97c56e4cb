"""Reads a local log in order, also while its writer, another process, goes on.

A record that was acknowledged and is damaged now is not passed over in silence and stops nobody: it comes as a Record
that says what is wrong (`damage`) and holds the bytes that are left, under the number that it always had.
"""

import bisect
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Self

from rlhf_online.errors import LogError, LogUnavailable, PositionLost
from rlhf_online.eventlog import folder as files
from rlhf_online.eventlog import gap
from rlhf_online.eventlog.base import DeadLetter, Position, Record
from rlhf_online.eventlog.dead_letters import append
from rlhf_online.eventlog.segments import HEADER, MAX_RECORD, find_next, parse_header, segment_name

PARTITION = "local"

_READ_BYTES = 1 << 20
_RESULT_BYTES = 64 << 20


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
        # Where the next record in sequence stands in the open segment; in a hole, what follows the hole.
        self._number = 0
        self._offset = 0
        self._hole = ""
        self._hole_end = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def read(self, position: Mapping[str, int], limit: int) -> tuple[list[Record], Position]:
        """Up to `limit` records (fewer if they would exceed 64 MiB) from `position`, and the position after them.

        Raises PositionLost, LogUnavailable.
        """
        try:
            committed = self._read_committed()
            number = position.get(PARTITION, -1)
            if number < 0:  # what there is, from its beginning
                number = next(iter(files.segments(self._folder)), 0)
            if number > committed.records and committed.current:
                raise PositionLost(
                    f"position {number} is past the end of the log in {self._folder} ({committed.records} records): "
                    f"the log was replaced or lost records; bring the old one back, or: {gap.HINT}"
                )
            records: list[Record] = []
            wanted = min(number + limit, committed.records)
            firsts = files.segments(self._folder) if number < wanted else []
            size = 0
            while number < wanted and size < _RESULT_BYTES:
                try:
                    end, closed = self._seek(number, firsts)
                    for record in self._records(min(wanted, end), end if closed else None):
                        records.append(record)
                        number, size = number + 1, size + len(record.payload)
                        if size >= _RESULT_BYTES:
                            break
                except LogError:
                    if not records:
                        raise
                    break  # what was read before comes first
            return records, {PARTITION: number}
        except OSError as error:
            raise LogUnavailable(f"the log in {self._folder} cannot be read: {error.strerror or error}") from error

    def end(self) -> Position:
        """The position after the last acknowledged record. Raises LogUnavailable."""
        try:
            return {PARTITION: self._read_committed().records}
        except OSError as error:
            raise LogUnavailable(f"the log in {self._folder} cannot be read: {error.strerror or error}") from error

    def consumed(self, reader: str, position: Mapping[str, int]) -> None:
        """Note in the folder how far `reader` has come: the writer keeps what follows. Raises LogUnavailable."""
        try:
            files.mark_consumed(self._folder, reader, position.get(PARTITION, 0))
        except OSError as error:
            raise files.unusable(self._folder, error) from error

    def set_aside(self, letters: Sequence[DeadLetter]) -> None:
        """Append to `dead-letters.jsonl` or `orphans.jsonl` in the folder (`dead_letters`)."""
        for name, orphan in (("dead-letters.jsonl", False), ("orphans.jsonl", True)):
            append(self._folder / name, [letter for letter in letters if letter.orphan == orphan])

    def reconcile(self, identity: str, position: Mapping[str, int]) -> tuple[Position, list[str]]:
        """See `Source`. A reader has no part in a log that replaced another: it goes on from its beginning."""
        try:
            first = next(iter(files.segments(self._folder)), 0)
        except OSError as error:
            raise files.unusable(self._folder, error) from error
        end, number = self.end()[PARTITION], position.get(PARTITION, first)
        if identity != self._identity:
            return {PARTITION: first}, [
                f"the log in {self._folder} is another one ({self._identity}) than was read up to record {number} "
                f"({identity}): what that one held since is missing; the new one is read from its record {first} on"
            ]
        if number < first:
            return {PARTITION: first}, [f"records {number} to {first - 1} were removed: {first - number} are missing"]
        if number > end:
            return {PARTITION: end}, [f"the log ends at record {end}: {number - end} that were read before are missing"]
        try:
            self.read({PARTITION: number}, 1)
        except PositionLost as error:  # a segment file is missing in the middle
            later = [first for first in files.segments(self._folder) if first > number]
            return {PARTITION: later[0] if later else end}, [str(error)]
        return {PARTITION: number}, []

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

    def _seek(self, number: int, firsts: list[int]) -> tuple[int, bool]:
        """Stand before record `number`; where its segment ends, and whether another one follows it."""
        at = bisect.bisect_right(firsts, number) - 1
        if at < 0:
            raise PositionLost(
                f"record {number} is no longer in the log in {self._folder}, which begins at "
                f"{firsts[0] if firsts else 'no record'}: records before it were removed; {gap.HINT}"
            )
        first = firsts[at]
        if first != self._first or self._segment is None or number < self._number:
            if self._segment is not None:
                os.close(self._segment)
                self._segment = None
            self._segment = os.open(self._folder / segment_name(first), os.O_RDONLY)
            self._first, self._number, self._offset, self._hole_end = first, first, 0, 0
        closed = at + 1 < len(firsts)
        end = firsts[at + 1] if closed else 1 << 63
        for _ in self._records(number, end if closed else None):
            pass
        return end, closed

    def _records(self, stop: int, end: int | None) -> Iterator[Record]:
        """The open segment's records up to the `stop`-th of the log; `end`: where the segment ends, if it is known.

        Raises PositionLost for records of which not a byte is left, LogUnavailable.
        """
        data, base = b"", -1
        while self._number < stop:
            if self._number < self._hole_end:
                record = Record(PARTITION, self._number, b"", self._hole)
            elif (payload := self._whole(data, self._offset - base)) is not None:
                self._offset += HEADER.size + len(payload)
                record = Record(PARTITION, self._number, payload)
            elif base != self._offset:
                data, base = self._load(), self._offset
                continue
            else:
                left = self._left(end)
                record = Record(PARTITION, self._number, left, self._hole)
            self._number += 1
            yield record

    def _whole(self, data: bytes, at: int) -> bytes | None:
        """The payload of the record at hand, which begins at `at` in `data`; None if it is not there whole and good."""
        if at + HEADER.size > len(data):
            return None
        header = parse_header(data, at)
        payload = data[at + HEADER.size : at + header.size]
        good = header.plausible and header.number == self._number - self._first and header.matches(payload)
        return payload if good else None

    def _load(self) -> bytes:
        """What stands from the record at hand on, itself whole if its header is good."""
        assert self._segment is not None
        data = os.pread(self._segment, _READ_BYTES, self._offset)
        if len(data) >= HEADER.size:
            header = parse_header(data)
            if header.plausible and header.size > len(data):
                data = os.pread(self._segment, header.size, self._offset)
        return data

    def _left(self, end: int | None) -> bytes:
        """Find where the hole ends that begins at the record at hand; what is left of it, 16 MiB at most."""
        assert self._segment is not None
        path, begin = self._folder / segment_name(self._first), self._offset
        rest = os.pread(self._segment, os.fstat(self._segment).st_size, begin)
        size, found = len(rest), find_next(memoryview(rest), 0, self._number - self._first)
        if found is not None and (end is None or self._first + found[1] <= end):
            size, self._hole_end = found[0], self._first + found[1]
        elif end is None:
            raise LogUnavailable(f"{path}: the record at byte {begin} is damaged; reading waits for what follows it")
        elif size > 0:
            self._hole_end = end
        else:
            raise PositionLost(
                f"records {self._number} to {end - 1} are missing: {path} ends before them, or their file was removed; "
                f"bring it back, or: {gap.HINT}"
            )
        self._offset = begin + size
        count = self._hole_end - self._number
        self._hole = f"damaged: {size} bytes at byte {begin} of {path.name}, where {count} records were"
        return rest[: min(size, MAX_RECORD)]
