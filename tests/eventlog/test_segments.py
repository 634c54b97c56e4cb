"""The format on disk: what was written is found; what was torn is cut; what was damaged is told from what was torn."""

import random

import pytest

from rlhf_online.eventlog.segments import (
    HEADER,
    MAX_GROUP,
    encode_group,
    parse_header,
    parse_name,
    scan,
    segment_name,
)


def _groups(seed: int, count: int = 6) -> list[list[bytes]]:
    rng = random.Random(seed)
    return [[rng.randbytes(rng.randrange(1, 60)) for _ in range(rng.randrange(1, 5))] for _ in range(count)]


def test_a_record_has_the_bytes_that_the_docstring_says():
    data = encode_group([b"123456789", b"x"])
    assert data[:4] == bytes([9, 0, 0, 0x80])
    # CRC-32C of the length word and "123456789", by the bit-wise definition of the Castagnoli polynomial.
    crc = 0xFFFFFFFF
    for byte in bytes([9, 0, 0, 0x80]) + b"123456789":
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    assert int.from_bytes(data[4:8], "little") == crc ^ 0xFFFFFFFF
    assert data[8:17] == b"123456789"
    second = parse_header(data, 17)
    assert (second.length, second.starts_group, second.matches(b"x")) == (1, False, True)


def test_names_sort_and_parse():
    assert segment_name(17) == "00000000000000000017.log"
    assert parse_name(segment_name(17)) == 17
    assert [parse_name(name) for name in ("identity", "17.log", "00000000000000000017.log.tmp")] == [None] * 3


@pytest.mark.parametrize("seed", range(3))
def test_every_cut_of_the_last_group_is_torn_and_keeps_whole_records(seed: int):
    groups = _groups(seed)
    before = b"".join(encode_group(group) for group in groups[:-1])
    last = encode_group(groups[-1])
    records_before = sum(len(group) for group in groups[:-1])
    ends = [sum(HEADER.size + len(record) for record in groups[-1][:n]) for n in range(len(groups[-1]) + 1)]
    for cut in range(len(last) + 1):
        found = scan(before + last[:cut])
        whole = sum(end <= cut for end in ends) - 1
        assert found.records == records_before + whole
        assert found.good_bytes == len(before) + ends[whole]
        assert not found.damaged


@pytest.mark.parametrize("seed", range(20))
def test_a_flipped_bit_before_a_later_group_is_damage_and_is_found_at_its_record(seed: int):
    rng = random.Random(seed)
    groups = _groups(seed)
    data = bytearray(b"".join(encode_group(group) for group in groups))
    records = [record for group in groups for record in group]
    starts = [0]
    for record in records:
        starts.append(starts[-1] + HEADER.size + len(record))
    bit = rng.randrange(8 * (len(data) - len(encode_group(groups[-1]))))
    data[bit // 8] ^= 1 << bit % 8
    found = scan(bytes(data))
    hit = max(number for number, start in enumerate(starts) if start <= bit // 8)
    assert (found.records, found.good_bytes, found.damaged) == (hit, starts[hit], True)


@pytest.mark.parametrize("seed", range(5))
def test_a_flipped_bit_in_the_last_group_can_not_be_told_from_a_torn_one(seed: int):
    rng = random.Random(seed)
    groups = _groups(seed)
    before = b"".join(encode_group(group) for group in groups[:-1])
    last = bytearray(encode_group(groups[-1]))
    bit = rng.randrange(8 * len(last))
    last[bit // 8] ^= 1 << bit % 8
    found = scan(before + bytes(last))
    assert not found.damaged
    assert found.good_bytes < len(before) + len(last)


def test_zeros_are_a_torn_tail_and_not_empty_records():
    data = encode_group([b"a", b"b"])
    assert scan(data + bytes(5000)).records == 2
    assert not scan(data + bytes(5000)).damaged


def test_more_garbage_than_one_group_is_damage():
    data = encode_group([b"a"])
    assert scan(data + bytes(MAX_GROUP + 2)).damaged
