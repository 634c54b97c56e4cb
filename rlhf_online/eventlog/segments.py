"""The local log's format on disk, and how it is scanned. Pure: bytes in, values out; `local` and `tail` do the I/O.

A segment file, `<first sequence number, 20 digits>.log`, is a run of records:

    u32  length of the payload, 1 … 16 MiB; bit 31 is set in the first record of each group
    u32  number of the record within its segment, from 0
    u32  CRC-32C of the eight bytes above and of the payload
    …    the payload

all little-endian. A group is what one fsync covers, at most MAX_GROUP bytes. Its first record is written only after
all that stands before it in the file was fsynced. Hence the rule that tells a torn tail from damage: a bad record
that is followed by the start of a later group was durable once and has been damaged since; a bad record with no such
start behind it belongs to a group that was never acknowledged, and is cut. A length of 0 is never valid, so a tail of
zeros, which a power failure leaves on some file systems, is torn and not a run of empty records. The number says, after
damage of any extent, which record the next good one is: exactly how many are gone, and that no other changes its place.
"""

import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass

import crc32c

MAX_RECORD = 16 << 20
"""Largest payload, bytes."""

HEADER = struct.Struct("<III")
MAX_GROUP = MAX_RECORD + HEADER.size
"""Largest group, headers included, bytes."""

_COVERED = struct.Struct("<II")
"""What of the header its checksum covers."""
_GROUP_START = 1 << 31
_NAME = re.compile(r"(\d{20})\.log")
# The top byte of a valid length word, which stands 3 bytes into the header: that of a group's first record, or of any.
_START_TOP = re.compile(rb"[\x80\x81]")
_ANY_TOP = re.compile(rb"[\x00\x01\x80\x81]")


@dataclass(frozen=True, slots=True)
class Header:
    """A record's header; the record takes `size` bytes, header included."""

    length: int
    number: int
    crc: int
    starts_group: bool

    @property
    def size(self) -> int:
        return HEADER.size + self.length

    @property
    def plausible(self) -> bool:
        return 0 < self.length <= MAX_RECORD

    def matches(self, payload: bytes | memoryview) -> bool:
        """True if `payload` is the one that this header was written for."""
        crc = _crc(_word(self.length, self.starts_group), self.number, payload)
        return len(payload) == self.length and crc == self.crc


def segment_name(first: int) -> str:
    """Name of the segment whose first record has sequence number `first`."""
    return f"{first:020d}.log"


def parse_name(name: str) -> int | None:
    """The first sequence number in a segment's name; None for the name of something else."""
    match = _NAME.fullmatch(name)
    return int(match[1]) if match else None


def group_size(payloads: Sequence[bytes]) -> int:
    """Bytes that the group takes, headers included."""
    return len(payloads) * HEADER.size + sum(map(len, payloads))


def encode_group(payloads: Sequence[bytes], number: int) -> bytes:
    """The bytes of one group, whose first record is the `number`-th of its segment: what one fsync covers."""
    parts: list[bytes] = []
    for at, payload in enumerate(payloads):
        word = _word(len(payload), at == 0)
        parts += (HEADER.pack(word, number + at, _crc(word, number + at, payload)), payload)
    return b"".join(parts)


def parse_header(data: bytes | memoryview, offset: int = 0) -> Header:
    """The header at `offset`, where at least `HEADER.size` bytes must stand. It may be implausible."""
    word, number, crc = HEADER.unpack_from(data, offset)
    return Header(word & (_GROUP_START - 1), number, crc, bool(word & _GROUP_START))


@dataclass(frozen=True, slots=True)
class Hole:
    """`size` bytes at `offset` that were `records` records once, the first of them the `number`-th of the segment."""

    offset: int
    size: int
    number: int
    records: int


@dataclass(frozen=True, slots=True)
class Scan:
    """What a segment holds: `records` records, holes included, in its first `good_bytes` bytes; the last one is good.

    `damaged` says that what follows them was durable once, or part of it; otherwise the rest is a torn tail.
    """

    records: int
    good_bytes: int
    holes: tuple[Hole, ...]
    damaged: bool


def scan(data: bytes | memoryview) -> Scan:
    """Check every record of a segment's bytes."""
    view = memoryview(data)
    holes: list[Hole] = []
    records = offset = 0
    while True:
        while (header := _good_header(view, offset, records)) is not None and header.number == records:
            offset += header.size
            records += 1
        if _find(view, offset + 1, len(view), records + 1, _START_TOP) is None:
            # A tail longer than a group can't be one torn group.
            return Scan(records, offset, tuple(holes), damaged=len(view) - offset > MAX_GROUP)
        found = find_next(view, offset, records)
        assert found is not None, "the start that was just found, or an earlier record"
        holes.append(Hole(offset, found[0] - offset, records, found[1] - records))
        offset, records = found


def find_next(view: memoryview, offset: int, number: int) -> tuple[int, int] | None:
    """Where the next good record stands after a bad one at `offset`, which is the `number`-th, and which one it is.

    If the bad record's length leads to its successor, that is the one: what a damaged payload holds is not searched
    for records, which somebody might have written into it. None if there is no good record behind it.
    """
    if offset + HEADER.size <= len(view):
        end = offset + parse_header(view, offset).size
        header = _good_header(view, end, number + 1)
        if header is not None and header.number == number + 1:
            return end, header.number
    start = _find(view, offset + 1, len(view), number + 1, _START_TOP)
    stop = len(view) if start is None else start
    # Zeros are passed over at once: each of them could be the top byte of a length.
    zeros = stop - offset - len(bytes(view[offset:stop]).lstrip(b"\0"))
    found = _find(view, max(offset + 1, offset + zeros - HEADER.size), stop, number + 1, _ANY_TOP)
    at = start if found is None else found
    return None if at is None else (at, parse_header(view, at).number)


def _good_header(view: memoryview, offset: int, at_least: int) -> Header | None:
    """The header at `offset`, if a whole and valid record stands there whose number is `at_least` that."""
    if offset + HEADER.size > len(view):
        return None
    header = parse_header(view, offset)
    end = offset + header.size
    if not header.plausible or end > len(view) or header.number < at_least:
        return None
    return header if header.matches(view[offset + HEADER.size : end]) else None


def _find(view: memoryview, start: int, stop: int, at_least: int, top: re.Pattern[bytes]) -> int | None:
    """The first place from `start` to before `stop` of a good record, numbered `at_least`, with such a top byte."""
    for match in top.finditer(view, start + 3, stop + 3):
        header = _good_header(view, match.start() - 3, at_least)
        if header is not None and header.number - at_least <= len(view) // HEADER.size:
            return match.start() - 3
    return None


def _word(length: int, starts_group: bool) -> int:
    return length | (_GROUP_START if starts_group else 0)


def _crc(word: int, number: int, payload: bytes | memoryview) -> int:
    return crc32c.crc32c(payload, crc32c.crc32c(_COVERED.pack(word, number)))
