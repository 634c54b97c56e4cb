"""Reads a local log in order, also while its writer, another process, goes on.

A record that was acknowledged and is damaged now is neither skipped silently nor a stop: it comes as a Record that says
what is wrong (`damage`) and holds the bytes that are left, under the number that it always had.
"""

import bisect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

from rlhf_online.errors import LogError, LogUnavailable, PositionLost
from rlhf_online.eventlog import folder as files
from rlhf_online.eventlog import gap
from rlhf_online.eventlog.base import PARTITION, DeadLetter, Position, Record
from rlhf_online.eventlog.committed import Committed, CommittedFile
from rlhf_online.eventlog.dead_letters import append
from rlhf_online.eventlog.segment_reader import SegmentReader

_RESULT_BYTES = 64 << 20


class LocalReader:
    """Reads a local log (a `Source`), also while another process writes it. One thread at a time.

    The folder may not exist yet: it is made, and the log is empty until its writer comes.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._identity = files.identity(folder)
        self._committed: CommittedFile | None = None
        self._segment: SegmentReader | None = None

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
                    segment, end = self._seek(number, firsts)
                    for record in segment.records(wanted if end is None else min(wanted, end), end):
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

    def mark_consumed(self, reader: str, position: Mapping[str, int]) -> None:
        """Note in the folder how far `reader` has read: retention keeps what follows. Raises LogUnavailable."""
        try:
            files.mark_consumed(self._folder, reader, position.get(PARTITION, 0))
        except OSError as error:
            raise files.unusable(self._folder, error) from error

    def write_dead_letters(self, dead_letters: Sequence[DeadLetter]) -> None:
        """Append to `dead-letters.jsonl` or `orphans.jsonl` in the folder (`dead_letters`)."""
        for name, orphan in (("dead-letters.jsonl", False), ("orphans.jsonl", True)):
            append(self._folder / name, [item for item in dead_letters if item.orphan == orphan])

    def resume_position(self, identity: str, position: Mapping[str, int]) -> tuple[Position, list[str]]:
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
        self._close_segment()
        if self._committed is not None:
            self._committed.close()
            self._committed = None

    def _read_committed(self) -> Committed:
        if self._committed is None:
            try:
                self._committed = CommittedFile(self._folder)
            except FileNotFoundError:
                return Committed(records=0, current=not files.segments(self._folder))
        return self._committed.read()

    def _seek(self, number: int, firsts: list[int]) -> tuple[SegmentReader, int | None]:
        """The segment of record `number`, standing before it, and where that segment ends if another one follows."""
        at = bisect.bisect_right(firsts, number) - 1
        if at < 0:
            raise PositionLost(
                f"record {number} is no longer in the log in {self._folder}, which begins at "
                f"{firsts[0] if firsts else 'no record'}: records before it were removed; {gap.HINT}"
            )
        first = firsts[at]
        if self._segment is None or self._segment.first != first or number < self._segment.number:
            self._close_segment()
            self._segment = SegmentReader(self._folder, first)
        end = firsts[at + 1] if at + 1 < len(firsts) else None
        for _ in self._segment.records(number, end):
            pass
        return self._segment, end

    def _close_segment(self) -> None:
        if self._segment is not None:
            segment, self._segment = self._segment, None
            segment.close()
