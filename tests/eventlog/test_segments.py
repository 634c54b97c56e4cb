"""The format on disk: what was written is found; what was torn is cut; what was damaged is told from what was torn."""

import random

import pytest

from rlhf_online.eventlog.segments import (
    HEADER,
    MAX_GROUP,
    MAX_RECORD,
    Hole,
    Scan,
    encode_group,
    group_size,
    parse_header,
    parse_name,
    scan,
    segment_name,
)


def _groups(seed: int, count: int = 6) -> list[list[bytes]]:
    rng = random.Random(seed)
    return [[rng.randbytes(rng.randrange(1, 60)) for _ in range(rng.randrange(1, 5))] for _ in range(count)]


def _encode(groups: list[list[bytes]]) -> bytes:
    """A segment of these groups."""
    parts: list[bytes] = []
    number = 0
    for group in groups:
        parts.append(encode_group(group, number))
        number += len(group)
    return b"".join(parts)


def _starts(groups: list[list[bytes]]) -> list[int]:
    """Where each record begins, and where the last one ends."""
    starts = [0]
    for record in [record for group in groups for record in group]:
        starts.append(starts[-1] + HEADER.size + len(record))
    return starts


def test_a_record_has_the_bytes_that_the_docstring_says():
    data = encode_group([b"123456789", b"x"], 0x0102)
    assert data[:8] == bytes([9, 0, 0, 0x80, 2, 1, 0, 0])
    # CRC-32C of length, number and "123456789", by the bit-wise definition of the Castagnoli polynomial.
    crc = 0xFFFFFFFF
    for byte in data[:8] + b"123456789":
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    assert int.from_bytes(data[8:12], "little") == crc ^ 0xFFFFFFFF
    assert data[12:21] == b"123456789"
    second = parse_header(data, 21)
    assert (second.length, second.number, second.starts_group, second.matches(b"x")) == (1, 0x0103, False, True)


def test_the_largest_record_has_sixteen_mebibytes_and_is_a_group():
    assert MAX_RECORD == 16 << 20
    assert group_size([bytes(MAX_RECORD)]) == MAX_GROUP and group_size([b"ab", b"c"]) == 2 * HEADER.size + 3
    header = parse_header(HEADER.pack(MAX_RECORD, 0, 0))
    assert header.plausible and header.size == MAX_GROUP
    assert not parse_header(HEADER.pack(MAX_RECORD + 1, 0, 0)).plausible
    assert not parse_header(HEADER.pack(0, 0, 0)).plausible


def test_names_sort_and_parse():
    assert segment_name(17) == "00000000000000000017.log"
    assert parse_name(segment_name(17)) == 17
    assert [parse_name(name) for name in ("identity", "17.log", "00000000000000000017.log.tmp")] == [None] * 3


@pytest.mark.parametrize("seed", range(3))
def test_every_cut_of_the_last_group_is_torn_and_keeps_whole_records(seed: int):
    groups = _groups(seed)
    data, starts = _encode(groups), _starts(groups)
    records_before = sum(len(group) for group in groups[:-1])
    for cut in range(starts[records_before], len(data) + 1):
        found = scan(data[:cut])
        whole = max(number for number, start in enumerate(starts) if start <= cut)
        assert (found.records, found.good_bytes) == (whole, starts[whole])
        assert (found.holes, found.damaged) == ((), False)


@pytest.mark.parametrize("seed", range(20))
def test_a_flipped_bit_before_a_later_group_is_a_hole_of_one_record(seed: int):
    rng = random.Random(seed)
    groups = _groups(seed)
    data, starts = bytearray(_encode(groups)), _starts(groups)
    bit = rng.randrange(8 * len(_encode(groups[:-1])))
    data[bit // 8] ^= 1 << bit % 8
    hit = max(number for number, start in enumerate(starts) if start <= bit // 8)
    found = scan(bytes(data))
    assert found.holes == (Hole(starts[hit], starts[hit + 1] - starts[hit], hit, 1),)
    assert (found.records, found.good_bytes, found.damaged) == (len(starts) - 1, len(data), False)


@pytest.mark.parametrize("junk", [bytes(1), b"\x80", b"text \0\0\x01\x81 "], ids=["zeros", "starts", "text"])
@pytest.mark.parametrize("seed", range(10))
def test_a_hole_of_any_extent_says_how_many_records_are_gone(seed: int, junk: bytes):
    rng = random.Random(seed)
    groups = _groups(seed, count=12)
    data, starts = bytearray(_encode(groups)), _starts(groups)
    begin, end = sorted(rng.sample(range(len(_encode(groups[:-1]))), 2))
    data[begin:end] = (junk * (end - begin))[: end - begin]
    first = max(number for number, start in enumerate(starts) if start <= begin)
    after = min(number for number, start in enumerate(starts) if start >= end)
    found = scan(bytes(data))
    [hole] = found.holes
    assert (hole.offset, hole.offset + hole.size) == (starts[first], starts[after])
    assert (hole.number, hole.records) == (first, after - first)
    assert (found.records, found.damaged) == (len(starts) - 1, False)


def test_records_that_somebody_wrote_into_a_damaged_payload_are_not_taken_for_records():
    forged = encode_group([b"forged"], 1)
    data = bytearray(_encode([[b"x" + forged + b"x"], [b"real"]]))
    data[HEADER.size] ^= 1
    found = scan(bytes(data))
    assert [(hole.size, hole.records) for hole in found.holes] == [(HEADER.size + len(forged) + 2, 1)]


@pytest.mark.parametrize("seed", range(5))
def test_a_flipped_bit_in_the_last_group_can_not_be_told_from_a_torn_one(seed: int):
    rng = random.Random(seed)
    groups = _groups(seed)
    before, data = _encode(groups[:-1]), bytearray(_encode(groups))
    bit = rng.randrange(8 * len(before), 8 * len(data))
    data[bit // 8] ^= 1 << bit % 8
    found = scan(bytes(data))
    assert (found.holes, found.damaged) == ((), False)
    assert len(before) <= found.good_bytes < len(data)


def test_zeros_are_a_torn_tail_and_not_empty_records():
    data = encode_group([b"a", b"b"], 0)
    assert scan(data + bytes(5000)) == Scan(2, len(data), (), damaged=False)


def test_more_garbage_than_one_group_is_damage():
    assert scan(encode_group([b"a"], 0) + bytes(MAX_GROUP + 2)).damaged
