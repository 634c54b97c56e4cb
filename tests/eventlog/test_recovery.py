"""The local log after a kill, and with torn, damaged, lost and empty files: what was acknowledged is there."""

import errno
import json
import os
import random
import signal
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from rlhf_online.errors import LogUnavailable, PositionLost
from rlhf_online.eventlog import folder as files
from rlhf_online.eventlog.committed import CommittedFile
from rlhf_online.eventlog.local import LocalLog
from rlhf_online.eventlog.segments import HEADER, encode_group, segment_name
from rlhf_online.eventlog.tail import LocalReader
from tests.support.local_log import Disk, append_all, read_all, segment_files, start_writer
from tests.support.log_writer import payload


def test_what_was_acknowledged_survives_kill_nine(tmp_path: Path):
    rng = random.Random(3)
    acknowledged: list[bytes] = []
    for round_ in map(str, range(5)):
        with start_writer(tmp_path, round_=round_) as writer:
            assert writer.stdout is not None
            assert writer.stdout.readline() == b"ready\n"
            lines = [writer.stdout.readline() for _ in range(rng.randrange(1, 400))]
            writer.send_signal(signal.SIGKILL)
            lines += writer.stdout.readlines()
        for line in lines:
            if line.endswith(b"\n"):
                thread, number = line.split()
                acknowledged.append(payload(round_, int(thread), int(number)))
        with LocalReader(tmp_path) as reader:  # before the next writer recovers
            assert reader.end()["local"] >= len(acknowledged)
    read = read_all(tmp_path)
    assert len(acknowledged) > 5
    assert set(acknowledged) <= set(read)
    assert len(set(read)) == len(read)
    # What is read beyond that was being written when the kill came: at most one record a thread and round.
    assert len(read) <= len(acknowledged) + 5 * 8
    orders: dict[tuple[bytes, bytes], list[int]] = {}
    for record in read:
        round_, thread, number, _ = record.split(b" ", 3)
        orders.setdefault((round_, thread), []).append(int(number))
    assert all(numbers == list(range(len(numbers))) for numbers in orders.values())


def test_any_torn_tail_is_cut_and_the_log_goes_on(tmp_path: Path):
    kept = [b"one", b"two" * 50]
    torn = encode_group([b"three" * 30, b"four" * 10], 2)
    whole = HEADER.size + len(b"three" * 30)
    cuts = [1, 7, 8, 11, 12, 13, whole - 1, whole, whole + 1, whole + 13, len(torn) - 1]
    for tail in [torn[:cut] for cut in cuts] + [bytes(100), b"\xff" * 100]:
        folder = tmp_path / f"{len(list(tmp_path.iterdir()))}"
        append_all(folder, kept)
        with segment_files(folder)[0].open("ab") as file:
            file.write(tail)
        assert read_all(folder) == kept
        append_all(folder, [b"next"])
        # The torn group's first record was written whole, if not acknowledged: it may stay, its sender repeats it.
        extra = [b"three" * 30] if len(tail) >= whole and tail == torn[: len(tail)] else []
        assert read_all(folder) == [*kept, *extra, b"next"]


@pytest.mark.parametrize("seed", range(8))
def test_a_flipped_bit_costs_its_record_alone_and_is_reported(tmp_path: Path, seed: int):
    rng = random.Random(seed)
    payloads = [rng.randbytes(rng.randrange(1, 100)) for _ in range(30)]
    append_all(tmp_path, payloads, segment_bytes=1000)
    victim = rng.randrange(29)
    firsts = files.segments(tmp_path)
    segment = max(first for first in firsts if first <= victim)
    offset = sum(HEADER.size + len(each) for each in payloads[segment:victim])
    path = tmp_path / segment_name(segment)
    data = bytearray(path.read_bytes())
    data[offset + rng.randrange(HEADER.size + len(payloads[victim]))] ^= 1 << rng.randrange(8)
    path.write_bytes(data)
    append_all(tmp_path, [b"the log goes on"])
    expected = [*payloads, b"the log goes on"]
    for begin in (0, victim, victim + 1):
        with LocalReader(tmp_path) as reader:
            records, position = reader.read({"local": begin}, 100)
        assert [record.offset for record in records] == list(range(begin, 31))
        assert position == {"local": 31}
        assert [record.payload for record in records if not record.damage] == [
            payload for number, payload in enumerate(expected) if number >= begin and number != victim
        ]
        if begin <= victim:
            [broken] = [record for record in records if record.damage]
            size = HEADER.size + len(payloads[victim])
            assert broken.offset == victim
            assert broken.damage == f"damaged: {size} bytes at byte {offset} of {path.name}, where 1 records were"
            assert broken.payload == bytes(data[offset : offset + size])


def test_a_hole_of_many_records_is_as_many_letters_and_may_be_read_bit_by_bit(tmp_path: Path):
    payloads = [b"%03d" % number for number in range(50)]
    append_all(tmp_path, payloads)
    size = HEADER.size + 3
    with segment_files(tmp_path)[0].open("r+b") as file:
        file.seek(10 * size + 2)
        file.write(bytes(20 * size))
    position: dict[str, int] = {}
    found: list[bytes] = []
    damaged: list[int] = []
    while position != {"local": 50}:
        with LocalReader(tmp_path) as reader:
            records, position = reader.read(position, 7)
        found += [record.payload for record in records if not record.damage]
        damaged += [record.offset for record in records if record.damage]
    assert found == payloads[:10] + payloads[31:]
    assert damaged == list(range(10, 31))


def test_acknowledged_records_at_a_damaged_end_keep_their_numbers(tmp_path: Path):
    append_all(tmp_path, [b"one", b"two"])
    path = segment_files(tmp_path)[0]
    os.truncate(path, path.stat().st_size - 1)
    with LocalReader(tmp_path) as reader:
        assert [record.payload for record in reader.read({}, 10)[0]] == [b"one"]
        with pytest.raises(LogUnavailable, match=r"the record at byte 15 is damaged"):
            reader.read({"local": 1}, 10)
        append_all(tmp_path, [b"three"])
        records, _ = reader.read({"local": 1}, 10)
    assert [(record.offset, record.payload) for record in records if not record.damage] == [(2, b"three")]
    assert records[0].damage == f"damaged: 14 bytes at byte 15 of {path.name}, where 1 records were"


def test_a_log_without_its_segments_goes_on_where_it_ended(tmp_path: Path):
    append_all(tmp_path, [b"one", b"two"])
    segment_files(tmp_path)[0].unlink()
    append_all(tmp_path, [b"three"])
    with LocalReader(tmp_path) as reader:
        with pytest.raises(PositionLost):
            reader.read({"local": 0}, 10)
        assert [(record.offset, record.payload) for record in reader.read({}, 10)[0]] == [(2, b"three")]


@pytest.mark.parametrize("who", ["trainer", "kafka"])
def test_a_number_that_somebody_has_had_is_never_given_to_another_record(tmp_path: Path, who: str):
    append_all(tmp_path, [b"one", b"two", b"three"])
    identity = (tmp_path / "identity").read_text()
    if who == "trainer":
        files.mark_consumed(tmp_path, "trainer", 3)
    else:
        (tmp_path / "shipped.json").write_text(json.dumps({"spool": identity, "shipped": 3}))
    os.truncate(segment_files(tmp_path)[0], HEADER.size + 3)  # a disk that forgot what it had said was on it
    (tmp_path / "committed").unlink()
    append_all(tmp_path, [b"four"])
    with LocalReader(tmp_path) as reader:
        assert [(record.offset, record.payload) for record in reader.read({"local": 3}, 10)[0]] == [(3, b"four")]


def test_where_everything_was_read_and_is_there_the_last_segment_is_written_on(tmp_path: Path):
    append_all(tmp_path, [b"one", b"two", b"three"])
    files.mark_consumed(tmp_path, "trainer", 3)
    append_all(tmp_path, [b"four"])
    assert files.segments(tmp_path) == [0] and read_all(tmp_path)[3:] == [b"four"]


@pytest.mark.parametrize(
    ("records", "boot", "rewritten"), [(2, None, False), (1, None, True), (2, bytes(16), True), (1, bytes(16), True)]
)
def test_what_may_never_have_been_synced_is_written_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, records: int, boot: bytes | None, rewritten: bool
):
    """Records beyond the count, or any that a machine has found which was started since."""
    append_all(tmp_path, [b"one", b"two"])
    held = segment_files(tmp_path)[0].read_bytes()
    committed = CommittedFile(tmp_path, writable=True, boot=boot)
    committed.write(records)
    committed.close()
    written: list[bytes] = []
    pwrite = os.pwrite

    def note(descriptor: int, data: bytes, offset: int) -> int:
        written.append(bytes(data))
        return pwrite(descriptor, data, offset)

    monkeypatch.setattr(os, "pwrite", note)
    LocalLog(tmp_path).close()
    assert (held in written) == rewritten
    assert segment_files(tmp_path)[0].read_bytes() == held


def test_what_is_damaged_or_gone_is_logged_with_its_place(tmp_path: Path):
    append_all(tmp_path, [b"one", b"two", b"three"])
    path = segment_files(tmp_path)[0]
    data = bytearray(path.read_bytes())
    data[HEADER.size] ^= 1
    path.write_bytes(data[:-1])
    with capture_logs() as logged:
        LocalLog(tmp_path).close()
    first, last = logged
    assert first == {
        "log_level": "error", "event": "damaged records", "file": str(path), "offset": 0, "bytes": 15, "records": 1
    }  # fmt: skip
    assert (last["event"], last["offset"]) == ("the last records are damaged or missing", 30)


def test_many_records_that_are_gone_from_the_end_keep_their_numbers(tmp_path: Path):
    append_all(tmp_path, [b"%03d" % number for number in range(9)])
    os.truncate(segment_files(tmp_path)[0], HEADER.size + 3)
    append_all(tmp_path, [b"next"])
    with LocalReader(tmp_path) as reader:
        assert [(record.offset, record.payload) for record in reader.read({"local": 9}, 10)[0]] == [(9, b"next")]


def test_what_is_left_of_a_hole_is_sixteen_mebibytes_at_most(tmp_path: Path):
    append_all(tmp_path, [bytes([1]) * (9 << 20)] * 2 + [b"end"])
    with segment_files(tmp_path)[0].open("r+b") as file:
        file.write(bytes([255]) * (18 << 20))
    with LocalReader(tmp_path) as reader:
        records, _ = reader.read({}, 10)
    assert [(record.offset, len(record.payload)) for record in records] == [(0, 16 << 20), (1, 0), (2, 3)]
    assert "where 2 records were" in records[0].damage


def test_what_was_never_acknowledged_is_no_part_of_a_hole_before_it(tmp_path: Path):
    """It stands behind the last record of a segment that could not be cut; the next one begins with its number."""
    append_all(tmp_path, [b"one", b"two"])
    first = segment_files(tmp_path)[0]
    data = bytearray(first.read_bytes())
    data[-1] ^= 1
    first.write_bytes(data + encode_group([b"never acknowledged"], 2))
    (tmp_path / segment_name(2)).write_bytes(encode_group([b"three"], 0))
    append_all(tmp_path, [b"four"])
    with LocalReader(tmp_path) as reader:
        records, _ = reader.read({}, 10)
    assert [record.payload for record in records] == [b"one", bytes(data[15:]), b"three", b"four"]
    assert records[1].damage.startswith("damaged: 15 bytes at byte 15 of ")


def test_after_a_power_failure_the_count_may_be_low_and_is_made_good(tmp_path: Path):
    append_all(tmp_path, [b"one", b"two", b"three"])
    before = CommittedFile(tmp_path, writable=True, boot=b"another boot id ")
    before.write(1)
    before.close()
    with LocalReader(tmp_path) as reader:
        # Before its writer came back, a reader that had read more waits; it does not take the rest for lost.
        assert reader.read({"local": 3}, 10) == ([], {"local": 3})
        append_all(tmp_path, [b"four"])
        records, _ = reader.read({"local": 3}, 10)
    assert [record.payload for record in records] == [b"four"]


@pytest.mark.parametrize("content", [b"", bytes(28), b"garbage that is long enough for it"])
def test_a_lost_count_is_found_again_by_the_writer(tmp_path: Path, content: bytes):
    append_all(tmp_path, [b"one", b"two"])
    (tmp_path / "committed").write_bytes(content)
    assert read_all(tmp_path) == []
    LocalLog(tmp_path).close()
    assert read_all(tmp_path) == [b"one", b"two"], "before anything is appended"
    append_all(tmp_path, [b"three"])
    assert read_all(tmp_path) == [b"one", b"two", b"three"]


def test_a_segment_that_can_not_be_cut_is_read_up_to_where_the_next_one_begins(
    tmp_path: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch
):
    def refuse(descriptor: int, length: int) -> None:
        raise OSError(errno.EIO, "the disk failed")

    with LocalLog(tmp_path, sync=disk) as log, LocalReader(tmp_path) as reader:
        log.append(b"one").result(30)
        monkeypatch.setattr(os, "ftruncate", refuse)
        disk.failures = [errno.EIO]
        with pytest.raises(LogUnavailable):
            log.append(b"whole, but not acknowledged").result(30)
        monkeypatch.undo()
        log.append(b"two").result(30)
        assert [record.payload for record in reader.read({}, 10)[0]] == [b"one", b"two"]
    assert b"not acknowledged" in segment_files(tmp_path)[0].read_bytes()
    append_all(tmp_path, [b"three"])
    assert read_all(tmp_path) == [b"one", b"two", b"three"]


def test_files_of_no_length(tmp_path: Path):
    append_all(tmp_path, [b"one"])
    name = (tmp_path / "identity").read_text()
    (tmp_path / "identity").write_text("")
    for open_ in (LocalLog, LocalReader):
        with pytest.raises(LogUnavailable, match="identity is empty: bring back what it held"):
            open_(tmp_path)
    (tmp_path / "identity").write_text(name)
    (tmp_path / "committed").write_bytes(b"")
    (tmp_path / segment_name(1)).write_bytes(b"")
    append_all(tmp_path, [b"two"])
    assert read_all(tmp_path) == [b"one", b"two"]
