"""Readers of the local log: what they see, from where, and where they stop."""

import os
import random
from pathlib import Path

import pytest

from rlhf_online.errors import PositionLost
from rlhf_online.eventlog import folder as files
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
        assert reader.resume_position(name, {"local": 10}) == ({"local": 10}, [])
        assert reader.resume_position(name, {"local": 1}) == (
            {"local": 4},
            ["records 1 to 3 were removed: 3 are missing"],
        )
        position, [sentence] = reader.resume_position(name, {"local": 25})
        assert position == {"local": 20} and "5 that were read before are missing" in sentence
        position, [sentence] = reader.resume_position("another", {"local": 7})
        assert position == {"local": 4} and "is another one" in sentence
