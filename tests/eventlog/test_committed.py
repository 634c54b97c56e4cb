"""The count of acknowledged records: what a reader makes of the file, whole, damaged, or of another boot."""

import os
import uuid
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from rlhf_online.eventlog import committed
from rlhf_online.eventlog.committed import Committed, CommittedFile, boot_id

BOOT = bytes(range(16))


@pytest.fixture
def file(tmp_path: Path) -> Iterator[CommittedFile]:
    opened = CommittedFile(tmp_path, writable=True, boot=BOOT)
    yield opened
    opened.close()


def test_what_is_written_is_read_also_by_another_and_over_again(tmp_path: Path, file: CommittedFile) -> None:
    assert file.read() == Committed(records=0, current=False), "an empty file says nothing"
    reader = CommittedFile(tmp_path, boot=BOOT)
    for records in (0, 1, 2**40):
        file.write(records)
        assert reader.read() == file.read() == Committed(records=records, current=True)
    reader.close()


def test_the_bytes_on_disk_are_those_that_earlier_releases_wrote(tmp_path: Path, file: CommittedFile) -> None:
    file.write(0x0102)
    data = (tmp_path / "committed").read_bytes()
    assert data[:24] == bytes([2, 1, 0, 0, 0, 0, 0, 0]) + BOOT
    assert data[24:] == zlib.crc32(data[:24]).to_bytes(4, "little")


def test_a_count_of_another_boot_may_be_low(tmp_path: Path, file: CommittedFile) -> None:
    file.write(7)
    later = CommittedFile(tmp_path, boot=bytes(16))
    assert later.read() == Committed(records=7, current=False)
    later.close()


@pytest.mark.parametrize("bit", range(0, 28 * 8, 25))
def test_a_flipped_bit_says_nothing(tmp_path: Path, file: CommittedFile, bit: int) -> None:
    file.write(7)
    data = bytearray((tmp_path / "committed").read_bytes())
    data[bit // 8] ^= 1 << bit % 8
    (tmp_path / "committed").write_bytes(data)
    assert file.read() == Committed(records=0, current=False)


def test_a_read_that_meets_a_write_halfway_is_made_again(
    tmp_path: Path, file: CommittedFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.write(7)
    whole = (tmp_path / "committed").read_bytes()
    met = [whole[:4] + bytes(24), whole[:20] + bytes(8), whole]
    monkeypatch.setattr(os, "pread", lambda *_: met.pop(0))
    assert file.read() == Committed(records=7, current=True)


def test_a_reader_makes_no_file_and_closes_once(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        CommittedFile(tmp_path)
    file = CommittedFile(tmp_path, writable=True)
    file.close()
    file.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        file.read()


def test_a_boot_is_named_by_the_system_and_by_zeros_where_it_does_not_tell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = uuid.uuid4()
    monkeypatch.setattr(committed, "_BOOT_ID", tmp_path / "boot_id")
    assert boot_id() == bytes(16)
    (tmp_path / "boot_id").write_text("none")
    assert boot_id() == bytes(16)
    (tmp_path / "boot_id").write_text(f"{name}\n")
    assert boot_id() == name.bytes
