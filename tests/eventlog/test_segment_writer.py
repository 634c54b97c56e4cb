"""The segment that is written to: when it ends, what a failure leaves, and writes that the system takes in pieces."""

import os
from pathlib import Path

import pytest

from rlhf_online.eventlog import segment_writer
from rlhf_online.eventlog.segment_writer import SegmentWriter
from rlhf_online.eventlog.segments import HEADER, encode_group, segment_name
from tests.support.local_log import Disk, segment_files

RECORD = HEADER.size + 10


def _writer(folder: Path, disk: Disk, *, records: float = 100, max_age_s: float = 3600.0) -> SegmentWriter:
    return SegmentWriter(folder, int(records * RECORD), max_age_s, disk)


def _write(writer: SegmentWriter, count: int, number: int) -> int:
    size = writer.write([bytes(10)] * count, number)
    writer.accept(size)
    return size


def _names(folder: Path) -> list[str]:
    return [path.name for path in segment_files(folder)]


def test_a_segment_takes_what_fits_to_the_byte(tmp_path: Path, disk: Disk) -> None:
    writer = _writer(tmp_path, disk, records=3)
    assert _write(writer, 1, 0) == RECORD
    assert _write(writer, 2, 1) == 3 * RECORD
    assert _write(writer, 1, 3) == RECORD, "the next one"
    assert _write(writer, 5, 4) == 5 * RECORD, "a group stays together, however large"
    assert _names(tmp_path) == [segment_name(0), segment_name(3), segment_name(4)]
    writer.close()
    assert segment_files(tmp_path)[0].read_bytes() == encode_group([bytes(10)], 0) + encode_group([bytes(10)] * 2, 1)
    assert disk.syncs == 4


def test_a_segment_that_is_too_old_ends_with_the_next_write(
    tmp_path: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1_000_000.0
    monkeypatch.setattr(segment_writer.time, "time", lambda: now)
    writer = _writer(tmp_path, disk, max_age_s=60)
    _write(writer, 1, 0)
    now += 60
    _write(writer, 1, 1)
    now += 0.5
    _write(writer, 1, 2)
    assert _names(tmp_path) == [segment_name(0), segment_name(2)]
    writer.close()


def test_a_write_that_fails_is_cut_away_and_the_segment_is_never_used_again(tmp_path: Path, disk: Disk) -> None:
    writer = _writer(tmp_path, disk)
    _write(writer, 2, 0)
    disk.failures = [5]
    with pytest.raises(OSError, match="the disk failed"):
        writer.write([bytes(10)], 2)
    writer.abandon()
    assert segment_files(tmp_path)[0].stat().st_size == 2 * RECORD
    _write(writer, 1, 2)
    assert _names(tmp_path) == [segment_name(0), segment_name(2)]
    writer.close()


def test_a_segment_without_an_acknowledged_record_gives_its_name_back(tmp_path: Path, disk: Disk) -> None:
    writer = _writer(tmp_path, disk)
    writer.abandon()  # where nothing is open there is nothing to cut
    disk.failures = [5]
    with pytest.raises(OSError, match="the disk failed"):
        writer.write([bytes(10)], 0)
    writer.abandon()
    assert _names(tmp_path) == []
    assert _write(writer, 1, 0) == RECORD
    writer.close()


def test_what_the_system_takes_in_pieces_is_written_and_read_whole(
    tmp_path: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    pwrite, pread = os.pwrite, os.pread
    monkeypatch.setattr(os, "pwrite", lambda descriptor, data, offset: pwrite(descriptor, data[:7], offset))
    monkeypatch.setattr(os, "pread", lambda descriptor, size, offset: pread(descriptor, min(size, 7), offset))
    writer = _writer(tmp_path, disk)
    _write(writer, 3, 0)
    _write(writer, 1, 3)
    writer.close()
    expected = encode_group([bytes(10)] * 3, 0) + encode_group([bytes(10)], 3)
    assert segment_files(tmp_path)[0].read_bytes() == expected
    assert writer.reopen(0) == expected
    writer.restore(expected, 2 * RECORD, rewrite=True)
    assert _write(writer, 1, 2) == 3 * RECORD
    writer.close()
    assert segment_files(tmp_path)[0].read_bytes()[: 2 * RECORD] == expected[: 2 * RECORD]


def test_when_the_open_segment_changed_is_told_once_it_holds_a_record(tmp_path: Path, disk: Disk) -> None:
    writer = _writer(tmp_path, disk)
    assert writer.last_change() is None
    writer.begin(0)
    assert writer.last_change() is None
    _write(writer, 2, 0)
    change = writer.last_change()
    assert change is not None and change.st_size == 2 * RECORD
    writer.close()
    writer.close()
    assert writer.last_change() is None
