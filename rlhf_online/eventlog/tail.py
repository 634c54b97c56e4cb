"""Reads a local log in order, also while its writer, another process, goes on."""

import base64
import bisect
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Self

from rlhf_online.errors import LogUnavailable, PositionLost
from rlhf_online.eventlog import folder as files
from rlhf_online.eventlog import gap
from rlhf_online.eventlog.base import Letter, Position, Record
from rlhf_online.eventlog.segments import HEADER, parse_header, segment_name
from rlhf_online.state import append_durably

PARTITION = "local"

_READ_BYTES = 1 << 20
_RESULT_BYTES = 64 << 20


def _line(letter: Letter) -> str:
    values = {"partition": letter.partition, "offset": letter.offset, "event_id": letter.event_id}
    values |= {"reason": letter.reason, "payload": base64.b64encode(letter.payload).decode()}
    return json.dumps(values) + "\n"


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

    def consumed(self, reader: str, position: Mapping[str, int]) -> None:
        """Note in the folder how far `reader` has come: the writer keeps what follows. Raises LogUnavailable."""
        try:
            files.mark_consumed(self._folder, reader, position.get(PARTITION, 0))
        except OSError as error:
            raise files.unusable(self._folder, error) from error

    def set_aside(self, letters: Sequence[Letter]) -> None:
        """Append to `dead-letters.jsonl` or `orphans.jsonl` in the folder, a line each; the payload as base64."""
        for name, orphan in (("dead-letters.jsonl", False), ("orphans.jsonl", True)):
            lines = [_line(letter) for letter in letters if letter.orphan == orphan]
            try:
                if lines:
                    append_durably(self._folder / name, "".join(lines).encode())
            except OSError as error:
                raise LogUnavailable(f"{self._folder / name} cannot be written: {error.strerror or error}") from error

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

    def _seek(self, number: int, firsts: list[int]) -> int:
        """Stand before record `number`; returns the sequence number at which its segment ends."""
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
                raise files.damaged(self._folder / segment_name(self._first), self._offset)
            if max_bytes is None:
                self._number, self._offset = self._number + 1, self._offset + header.size
                yield b""
                continue
            if at + header.size > len(data):
                data, base, at = self._load(header.size), self._offset, 0
            payload = data[at + HEADER.size : at + header.size]
            if not header.matches(payload):
                raise files.damaged(self._folder / segment_name(self._first), self._offset)
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
            raise files.damaged(self._folder / segment_name(self._first), self._offset)
        return data
