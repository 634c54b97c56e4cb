"""The local log's format on disk, and how it is scanned. Pure: bytes in, values out; `local` does the I/O.

A segment file, `<first sequence number, 20 digits>.log`, is a run of records:

    u32  length of the payload, 1 … 16 MiB; bit 31 is set in the first record of each group
    u32  CRC-32C of the four bytes above and of the payload
    …    the payload

both little-endian. A group is what one fsync covers, at most MAX_GROUP bytes. Its first record is written only after
all that stands before it in the file was fsynced. Hence the rule that tells a torn tail from damage: a bad record
that is followed by the start of a later group was durable once and has been damaged since; a bad record with no such
start behind it belongs to a group that was never acknowledged, and is cut. A length of 0 is never valid, so a tail of
zeros, which a power failure leaves on some file systems, is torn and not a run of empty records.
"""

import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass

import crc32c

MAX_RECORD = 16 << 20
"""Largest payload, bytes."""

HEADER = struct.Struct("<II")
MAX_GROUP = MAX_RECORD + HEADER.size
"""Largest group, headers included, bytes."""

_GROUP_START = 1 << 31
_NAME = re.compile(r"(\d{20})\.log")


@dataclass(frozen=True, slots=True)
class Header:
    """A record's header; the record takes `size` bytes, header included."""

    length: int
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
        return len(payload) == self.length and _crc(self.length, self.starts_group, payload) == self.crc


def segment_name(first: int) -> str:
    """Name of the segment whose first record has sequence number `first`."""
    return f"{first:020d}.log"


def parse_name(name: str) -> int | None:
    """The first sequence number in a segment's name; None for the name of something else."""
    match = _NAME.fullmatch(name)
    return int(match[1]) if match else None


def encode_group(payloads: Sequence[bytes]) -> bytes:
    """The bytes of one group: what is written at once and covered by one fsync."""
    parts: list[bytes] = []
    for number, payload in enumerate(payloads):
        starts = number == 0
        word = len(payload) | (_GROUP_START if starts else 0)
        parts.append(HEADER.pack(word, _crc(len(payload), starts, payload)))
        parts.append(payload)
    return b"".join(parts)


def parse_header(data: bytes | memoryview, offset: int = 0) -> Header:
    """The header at `offset`, where at least `HEADER.size` bytes must stand. It may be implausible."""
    word, crc = HEADER.unpack_from(data, offset)
    return Header(length=word & (_GROUP_START - 1), crc=crc, starts_group=bool(word & _GROUP_START))


@dataclass(frozen=True, slots=True)
class Scan:
    """What a segment holds: `records` good records in its first `good_bytes` bytes.

    `damaged` says that the bad record which follows them was durable once; without it the rest is a torn tail.
    """

    records: int
    good_bytes: int
    damaged: bool


def scan(data: bytes | memoryview) -> Scan:
    """Check every record of a segment's bytes, up to the first bad one."""
    view = memoryview(data)
    records = offset = 0
    while (header := _good_header(view, offset)) is not None:
        offset += header.size
        records += 1
    return Scan(records=records, good_bytes=offset, damaged=_holds_group_start(view, offset + 1))


def _good_header(view: memoryview, offset: int) -> Header | None:
    """The header at `offset`, if a whole and valid record stands there."""
    if offset + HEADER.size > len(view):
        return None
    header = parse_header(view, offset)
    end = offset + header.size
    if not header.plausible or end > len(view) or not header.matches(view[offset + HEADER.size : end]):
        return None
    return header


def _holds_group_start(view: memoryview, start: int) -> bool:
    """True if the valid first record of a group stands anywhere from `start` on.

    A tail longer than a group can't be one torn group, so it counts as holding a start without being searched.
    """
    if len(view) - start > MAX_GROUP:
        return True
    tail = bytes(view[start:])
    # The length's top byte is 0x80 or, for exactly 16 MiB, 0x81: it stands 3 bytes into the header.
    for top in re.finditer(rb"[\x80\x81]", tail):
        at = top.start() - 3
        if at >= 0:
            header = _good_header(memoryview(tail), at)
            if header is not None and header.starts_group:
                return True
    return False


def _crc(length: int, starts_group: bool, payload: bytes | memoryview) -> int:
    word = length | (_GROUP_START if starts_group else 0)
    return crc32c.crc32c(payload, crc32c.crc32c(word.to_bytes(4, "little")))
