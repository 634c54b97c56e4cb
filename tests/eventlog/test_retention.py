"""What goes from the local log, and what stays."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from rlhf_online.errors import PositionLost
from rlhf_online.eventlog import folder as files
from rlhf_online.eventlog import retention
from rlhf_online.eventlog.local import LocalLog
from rlhf_online.eventlog.retention import Retention
from rlhf_online.eventlog.segments import HEADER
from rlhf_online.eventlog.tail import LocalReader
from tests.support.local_log import append_all, segment_files


@pytest.fixture
def full(tmp_path: Path) -> Iterator[LocalLog]:
    """Ten segments of four records of 100 bytes; 20 of them are more than may be kept."""
    with LocalLog(tmp_path, segment_bytes=500, retention=Retention(max_bytes=20 * (HEADER.size + 100))) as log:
        for number in range(40):
            log.append(bytes([number]) * 100).result(30)
        yield log


def _offsets(folder: Path) -> list[int]:
    with LocalReader(folder) as reader:
        return [record.offset for record in reader.read({}, 1000)[0]]


def test_the_oldest_segments_go_when_the_log_is_too_large(full: LocalLog, tmp_path: Path):
    assert full.expire() == [0, 4, 8, 12, 16]
    assert full.expire() == []
    assert _offsets(tmp_path) == list(range(20, 40))
    with LocalReader(tmp_path) as reader, pytest.raises(PositionLost, match="begins at 20"):
        reader.read({"local": 19}, 1)


def test_nothing_goes_that_a_reader_has_not_had(full: LocalLog, tmp_path: Path):
    with LocalReader(tmp_path) as reader:
        reader.mark_consumed("trainer", {})
        assert full.expire() == []
        reader.mark_consumed("trainer", {"local": 11})
        reader.mark_consumed("auditor", {"local": 30})
        assert full.expire() == [0, 4]
    (tmp_path / "readers" / "trainer").write_text("{")  # what it has had is not known
    assert full.expire() == []
    (tmp_path / "readers" / "trainer").unlink()
    assert full.expire() == [8, 12, 16]


def test_nothing_goes_that_was_not_shipped(tmp_path: Path):
    shipped = 0
    with LocalLog(tmp_path, segment_bytes=500, retention=Retention(max_bytes=0), shipped=lambda: shipped) as log:
        for number in range(40):
            log.append(bytes([number]) * 100).result(30)
        assert log.expire() == []
        files.mark_consumed(tmp_path, "trainer", 40)
        shipped = 12
        assert log.expire() == [0, 4, 8]
        files.mark_consumed(tmp_path, "trainer", 17)
        shipped = 21
        assert log.expire() == [12], "what a reader here has not had stays as well"
        (tmp_path / "readers" / "trainer").unlink()
        assert log.expire() == [16]


def test_what_is_old_goes_and_the_count_of_records_stays(tmp_path: Path):
    append_all(tmp_path, [b"x" * 100] * 10, segment_bytes=500)
    for path in segment_files(tmp_path):
        os.utime(path, (1_000_000, 1_000_000))
    with LocalLog(tmp_path, segment_bytes=500, retention=Retention(max_age_s=3600)) as log:
        assert log.expire() == [0, 4, 8], "also the one that was written to last"
        assert _offsets(tmp_path) == []
        assert log.append(b"next").result(30) == 10
    with LocalLog(tmp_path, retention=Retention(max_age_s=3600)) as log:
        assert log.expire() == []
        assert log.append(b"and one more").result(30) == 11
    assert _offsets(tmp_path) == [10, 11]


def test_an_old_segment_that_somebody_needs_is_written_on(tmp_path: Path):
    append_all(tmp_path, [b"x" * 100] * 3)
    files.mark_consumed(tmp_path, "trainer", 2)
    os.utime(segment_files(tmp_path)[0], (1_000_000, 1_000_000))
    with LocalLog(tmp_path, retention=Retention(max_age_s=3600)) as log:
        assert log.expire() == []
        assert files.segments(tmp_path) == [0]


def test_an_empty_last_segment_survives_a_restart(tmp_path: Path):
    append_all(tmp_path, [b"x" * 100] * 3)
    os.utime(segment_files(tmp_path)[0], (1_000_000, 1_000_000))
    with LocalLog(tmp_path, retention=Retention(max_age_s=3600)) as log:
        assert log.expire() == [0]
    with LocalLog(tmp_path) as log:
        assert log.append(b"next").result(30) == 3


def test_a_folder_that_cannot_be_looked_through_is_tried_again_later(full: LocalLog, tmp_path: Path):
    """Retention may be late; what is written is not to wait for it, nor to end with it."""
    (tmp_path / "readers").write_text("no folder")
    assert full.expire() == []
    assert full.append(b"goes on").result(30) == 40
    (tmp_path / "readers").unlink()
    assert full.expire()[:5] == [0, 4, 8, 12, 16]


def test_what_is_as_old_as_it_may_be_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "file").touch()
    os.utime(tmp_path / "file", (1000, 1000))
    now = 1060.0
    monkeypatch.setattr(retention.time, "time", lambda: now)
    assert not Retention(max_age_s=60).is_old((tmp_path / "file").stat())
    now = 1060.5
    assert Retention(max_age_s=60).is_old((tmp_path / "file").stat())


def test_a_limit_of_either_kind_is_one():
    assert Retention(max_bytes=10).limited and Retention(max_age_s=10).limited
    assert not Retention().limited and not Retention(check_s=1).limited


def test_without_limits_everything_stays(tmp_path: Path):
    with LocalLog(tmp_path, segment_bytes=500) as log:
        for number in range(40):
            log.append(bytes([number]) * 100).result(30)
        for path in segment_files(tmp_path):
            os.utime(path, (0, 0))
        assert log.expire() == []
    assert _offsets(tmp_path) == list(range(40))


def test_retention_works_by_itself_while_people_vote(tmp_path: Path):
    with LocalLog(tmp_path, segment_bytes=500, retention=Retention(max_bytes=1000, check_s=0.0)) as log:
        for number in range(200):
            log.append(bytes([number]) * 100).result(30)
        assert len(segment_files(tmp_path)) <= 4
    assert _offsets(tmp_path)[-1] == 199
