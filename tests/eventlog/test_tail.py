"""Readers of the local log: what they see, from where, and where they stop."""

import json
import os
import random
import shutil
from pathlib import Path

import pytest

from rlhf_online.errors import LogUnavailable, PositionLost
from rlhf_online.eventlog import folder as files
from rlhf_online.eventlog import tail
from rlhf_online.eventlog.base import DeadLetter
from rlhf_online.eventlog.local import LocalLog
from rlhf_online.eventlog.segments import encode_group
from rlhf_online.eventlog.tail import LocalReader
from tests.support.local_log import append_all, read_all, segment_files


def test_a_reader_never_sees_what_is_not_committed(tmp_path: Path):
    append_all(tmp_path, [b"one"])
    with segment_files(tmp_path)[0].open("ab") as file:
        file.write(encode_group([b"written, not acknowledged"], 1))
    assert read_all(tmp_path) == [b"one"]


def test_a_missing_segment_stops_readers_until_it_is_back_or_they_go_on_without_it(tmp_path: Path):
    payloads = [b"%03d" % number for number in range(20)]
    append_all(tmp_path, payloads, segment_bytes=80)
    lost = segment_files(tmp_path)[1]
    begin, end = files.segments(tmp_path)[1:3]
    lost.rename(tmp_path / "aside")
    with LocalReader(tmp_path) as reader:
        records, position = reader.read({}, 100)
        assert [record.payload for record in records] == payloads[:begin]
        with pytest.raises(PositionLost, match=rf"records {begin} to {end - 1} are missing"):
            reader.read(position, 100)
        assert reader.resume_position(reader.identity(), position)[0] == {"local": end}
        (tmp_path / "aside").rename(lost)
        assert [record.payload for record in reader.read(position, 100)[0]] == payloads[begin:]


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="Linux tells what a process has open")
def test_a_reader_leaves_no_file_open_behind_it(tmp_path: Path):
    """Neither the segments that it has read to their end, nor the last one once it is closed."""
    append_all(tmp_path, [b"%03d" % number for number in range(40)], segment_bytes=80)
    begun = len(os.listdir("/proc/self/fd"))
    with LocalReader(tmp_path) as reader:
        position: dict[str, int] = {}
        for _ in range(4):
            _, position = reader.read(position, 10)
            assert len(os.listdir("/proc/self/fd")) <= begun + 2, "a segment and the committed length"
    assert len(os.listdir("/proc/self/fd")) == begun


def test_a_segment_that_was_emptied_is_as_good_as_gone(tmp_path: Path):
    append_all(tmp_path, [b"x" * 100] * 20, segment_bytes=500)
    os.truncate(segment_files(tmp_path)[1], 0)
    with LocalReader(tmp_path) as reader:
        position, [sentence] = reader.resume_position(reader.identity(), {"local": 4})
    assert position == {"local": 8} and "records 4 to 7 are missing" in sentence


def test_records_whose_count_is_gone_are_waited_for_and_not_taken_for_lost(tmp_path: Path):
    append_all(tmp_path, [b"one", b"two"])
    (tmp_path / "committed").unlink()
    with LocalReader(tmp_path) as reader:
        assert reader.read({"local": 2}, 10) == ([], {"local": 2})


def test_reading_from_any_position_in_any_order(tmp_path: Path):
    rng = random.Random(5)
    payloads = [rng.randbytes(rng.randrange(1, 200)) for _ in range(300)]
    append_all(tmp_path, payloads[:150], segment_bytes=2000)
    append_all(tmp_path, payloads[150:], segment_bytes=1000)
    with LocalReader(tmp_path) as reader:
        for _ in range(100):
            start, limit = rng.randrange(301), rng.randrange(1, 60)
            records, position = reader.read({"local": start}, limit)
            assert [record.payload for record in records] == payloads[start : start + limit]
            assert position == {"local": min(start + limit, 300)}


def test_a_position_whose_segment_was_removed_is_lost(tmp_path: Path):
    append_all(tmp_path, [b"x" * 100] * 20, segment_bytes=500)
    segment_files(tmp_path)[0].unlink()
    with LocalReader(tmp_path) as reader:
        with pytest.raises(PositionLost, match="no longer in the log"):
            reader.read({"local": 0}, 10)
        assert reader.read({}, 1)[0][0].offset > 0, "who names no position asks for what there is"


def test_a_reader_may_come_before_the_writer(tmp_path: Path):
    folder = tmp_path / "not yet"
    with LocalReader(folder) as reader:
        assert reader.read({}, 10) == ([], {"local": 0})
        assert reader.end() == {"local": 0}
        assert reader.resume_position(reader.identity(), {}) == ({"local": 0}, [])
        with pytest.raises(PositionLost, match="past the end"):
            reader.read({"local": 2}, 10)
        with LocalLog(folder) as log:
            assert log.identity == reader.identity()
            log.append(b"one").result(30)
        assert [record.payload for record in reader.read({}, 10)[0]] == [b"one"]
        with pytest.raises(PositionLost, match="past the end"):
            reader.read({"local": 2}, 10)


def test_where_to_go_on_and_what_is_missing(tmp_path: Path):
    append_all(tmp_path, [b"x" * 100] * 20, segment_bytes=500)
    segment_files(tmp_path)[0].unlink()
    with LocalReader(tmp_path) as reader:
        name = reader.identity()
        for number in (4, 10, 20):
            assert reader.resume_position(name, {"local": number}) == ({"local": number}, [])
        assert reader.resume_position(name, {}) == ({"local": 4}, [])
        assert reader.resume_position(name, {"local": 1}) == (
            {"local": 4},
            ["records 1 to 3 were removed: 3 are missing"],
        )
        position, [sentence] = reader.resume_position(name, {"local": 25})
        assert position == {"local": 20} and "5 that were read before are missing" in sentence
        position, [sentence] = reader.resume_position("another", {"local": 7})
        assert position == {"local": 4} and "is another one" in sentence


def _in_the_place(path: Path) -> None:
    """A folder where the file should be, which no user may read as a file."""
    path.unlink(missing_ok=True)
    path.mkdir(parents=True)


def test_whatever_cannot_be_read_or_written_is_the_log_being_unavailable(tmp_path: Path) -> None:
    """Which may be tried again: no error of the system leaves a reader as it came."""
    append_all(tmp_path, [b"one"])
    letter = DeadLetter(partition="local", offset=0, event_id="a", reason="why", payload=b"")
    with LocalReader(tmp_path) as reader:
        for name in ("dead-letters.jsonl", "orphans.jsonl", "readers/trainer"):
            _in_the_place(tmp_path / name)
        with pytest.raises(LogUnavailable, match=r"the log in .* cannot be used: .*/readers/.*: Is a directory"):
            reader.mark_consumed("trainer", {"local": 1})
        with pytest.raises(LogUnavailable, match=r"dead-letters\.jsonl cannot be written: Is a directory"):
            reader.write_dead_letters([letter])
        _in_the_place(segment_files(tmp_path)[0])
        with pytest.raises(LogUnavailable, match="cannot be read: Is a directory"):
            reader.read({}, 10)
        _in_the_place(tmp_path / "committed")
        reader.close()
        with pytest.raises(LogUnavailable, match="cannot be read: Is a directory"):
            reader.end()
        with pytest.raises(LogUnavailable, match="cannot be read: Is a directory"):
            reader.read({}, 10)
        shutil.rmtree(tmp_path)
        with pytest.raises(LogUnavailable, match=r"cannot be used: .*No such file or directory"):
            reader.resume_position(reader.identity(), {"local": 0})


def test_what_stands_before_damage_is_read_before_the_damage_is_told(tmp_path: Path) -> None:
    """Also where it stands in an earlier segment."""
    append_all(tmp_path, [b"%03d" % number for number in range(8)], segment_bytes=80)
    last = segment_files(tmp_path)[-1]
    os.truncate(last, last.stat().st_size - 1)
    with LocalReader(tmp_path) as reader:
        records, position = reader.read({}, 100)
        assert [record.payload for record in records] == [b"%03d" % number for number in range(7)]
        with pytest.raises(LogUnavailable, match="is damaged"):
            reader.read(position, 100)


@pytest.mark.parametrize(("most", "counts"), [(1, [1] * 6), (100, [1] * 6), (101, [2] * 3), (600, [6]), (10**9, [6])])
def test_one_read_ends_with_the_record_that_fills_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int, counts: list[int]
) -> None:
    """So that a reader who asks for many large records is not given gigabytes; in one segment and over several."""
    monkeypatch.setattr(tail, "_RESULT_BYTES", most)
    for segment_bytes in (250, 10_000):
        folder = tmp_path / str(segment_bytes)
        append_all(folder, [bytes([number]) * 100 for number in range(6)], segment_bytes=segment_bytes)
        position: dict[str, int] = {}
        with LocalReader(folder) as reader:
            for count in counts:
                records, position = reader.read(position, 100)
                assert len(records) == count
        assert position == {"local": 6}


def test_one_read_gives_64_mebibytes_at_most(tmp_path: Path) -> None:
    append_all(tmp_path, [bytes([1]) * (16 << 20)] * 5)
    with LocalReader(tmp_path) as reader:
        assert len(reader.read({}, 100)[0]) == 4


def test_orphans_and_other_dead_letters_go_to_a_file_each(tmp_path: Path) -> None:
    letters = [
        DeadLetter(partition="local", offset=offset, event_id=f"{offset}", reason="why", payload=b"", orphan=orphan)
        for offset, orphan in ((1, True), (2, False), (3, True))
    ]
    with LocalReader(tmp_path) as reader:
        reader.write_dead_letters(letters)

    def offsets(name: str) -> list[int]:
        return [json.loads(line)["offset"] for line in (tmp_path / name).read_text().splitlines()]

    assert offsets("orphans.jsonl") == [1, 3] and offsets("dead-letters.jsonl") == [2]


def test_how_far_a_reader_is_stands_in_the_folder(tmp_path: Path) -> None:
    with LocalReader(tmp_path) as reader:
        reader.mark_consumed("trainer", {"local": 7})
        assert files.first_needed(tmp_path) == 7
        reader.mark_consumed("trainer", {})
        assert files.first_needed(tmp_path) == 0


def test_where_the_last_segments_are_gone_a_reader_waits_for_the_writer(tmp_path: Path) -> None:
    """Who finds the end anew, and gives nobody's number to another record; until then nothing is known to be lost."""
    append_all(tmp_path, [b"x" * 100] * 20, segment_bytes=500)
    for path in segment_files(tmp_path)[-2:]:
        path.unlink()
    with LocalReader(tmp_path) as reader:
        with pytest.raises(LogUnavailable, match="reading waits for what follows it"):
            reader.resume_position(reader.identity(), {"local": 13})
        append_all(tmp_path, [b"next"])
        position, [sentence] = reader.resume_position(reader.identity(), {"local": 13})
        assert position == {"local": 20} and "to 19 are missing" in sentence
