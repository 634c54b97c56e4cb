"""The local log under kill, torn and damaged files, a full disk, a second writer, and many writers at once."""

import errno
import json
import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rlhf_online.errors import InvalidInput, LogLocked, LogUnavailable, PositionLost
from rlhf_online.eventlog import folder as files
from rlhf_online.eventlog.committed import CommittedFile
from rlhf_online.eventlog.local import LocalLog
from rlhf_online.eventlog.retention import Retention
from rlhf_online.eventlog.segment_writer import datasync
from rlhf_online.eventlog.segments import HEADER, MAX_RECORD, encode_group, segment_name
from rlhf_online.eventlog.tail import LocalReader
from tests.support.log_writer import payload
from tests.support.waiting import until

ROOT = Path(__file__).parents[2]


def _write(folder: Path, payloads: list[bytes], *, segment_bytes: int = 64 << 20) -> None:
    """Append one by one, so that each record is a group of its own."""
    with LocalLog(folder, segment_bytes=segment_bytes) as log:
        for each in payloads:
            log.append(each).result(30)


def _read(folder: Path) -> list[bytes]:
    with LocalReader(folder) as reader:
        payloads: list[bytes] = []
        position: dict[str, int] = {}
        while True:
            records, position = reader.read(position, 1000)
            if not records:
                return payloads
            assert [record.offset for record in records] == list(range(len(payloads), len(payloads) + len(records)))
            payloads += [record.payload for record in records]


def _segments(folder: Path) -> list[Path]:
    return [folder / segment_name(first) for first in files.segments(folder)]


class Disk:
    """Stands in for fdatasync: can be held, and can fail."""

    def __init__(self) -> None:
        self.syncs = 0
        self.failures: list[int] = []
        self.free = threading.Event()
        self.free.set()
        self.entered = threading.Event()

    def __call__(self, descriptor: int) -> None:
        self.syncs += 1
        self.entered.set()
        assert self.free.wait(60)
        if self.failures:
            raise OSError(self.failures.pop(0), "the disk failed")
        datasync(descriptor)


@pytest.fixture
def disk() -> Disk:
    return Disk()


# Kill


def _start_writer(folder: Path, *, threads: int = 8, round_: str = "0", **environment: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.support.log_writer", str(folder), str(threads), round_],
        cwd=ROOT,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
    )


def test_what_was_acknowledged_survives_kill_nine(tmp_path: Path):
    rng = random.Random(3)
    acknowledged: list[bytes] = []
    for round_ in map(str, range(5)):
        with _start_writer(tmp_path, round_=round_) as writer:
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
    read = _read(tmp_path)
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


# Torn and damaged files


def test_any_torn_tail_is_cut_and_the_log_goes_on(tmp_path: Path):
    kept = [b"one", b"two" * 50]
    torn = encode_group([b"three" * 30, b"four" * 10], 2)
    whole = HEADER.size + len(b"three" * 30)
    cuts = [1, 7, 8, 11, 12, 13, whole - 1, whole, whole + 1, whole + 13, len(torn) - 1]
    for tail in [torn[:cut] for cut in cuts] + [bytes(100), b"\xff" * 100]:
        folder = tmp_path / f"{len(list(tmp_path.iterdir()))}"
        _write(folder, kept)
        with _segments(folder)[0].open("ab") as file:
            file.write(tail)
        assert _read(folder) == kept
        _write(folder, [b"next"])
        # The torn group's first record was written whole, if not acknowledged: it may stay, its sender repeats it.
        extra = [b"three" * 30] if len(tail) >= whole and tail == torn[: len(tail)] else []
        assert _read(folder) == [*kept, *extra, b"next"]


def test_a_reader_never_sees_what_is_not_committed(tmp_path: Path):
    _write(tmp_path, [b"one"])
    with _segments(tmp_path)[0].open("ab") as file:
        file.write(encode_group([b"written, not acknowledged"], 1))
    assert _read(tmp_path) == [b"one"]


@pytest.mark.parametrize("seed", range(8))
def test_a_flipped_bit_costs_its_record_alone_and_is_reported(tmp_path: Path, seed: int):
    rng = random.Random(seed)
    payloads = [rng.randbytes(rng.randrange(1, 100)) for _ in range(30)]
    _write(tmp_path, payloads, segment_bytes=1000)
    victim = rng.randrange(29)
    firsts = files.segments(tmp_path)
    segment = max(first for first in firsts if first <= victim)
    offset = sum(HEADER.size + len(each) for each in payloads[segment:victim])
    path = tmp_path / segment_name(segment)
    data = bytearray(path.read_bytes())
    data[offset + rng.randrange(HEADER.size + len(payloads[victim]))] ^= 1 << rng.randrange(8)
    path.write_bytes(data)
    _write(tmp_path, [b"the log goes on"])
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
    _write(tmp_path, payloads)
    size = HEADER.size + 3
    with _segments(tmp_path)[0].open("r+b") as file:
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
    _write(tmp_path, [b"one", b"two"])
    path = _segments(tmp_path)[0]
    os.truncate(path, path.stat().st_size - 1)
    with LocalReader(tmp_path) as reader:
        assert [record.payload for record in reader.read({}, 10)[0]] == [b"one"]
        with pytest.raises(LogUnavailable, match=r"the record at byte 15 is damaged"):
            reader.read({"local": 1}, 10)
        _write(tmp_path, [b"three"])
        records, _ = reader.read({"local": 1}, 10)
    assert [(record.offset, record.payload) for record in records if not record.damage] == [(2, b"three")]
    assert records[0].damage == f"damaged: 14 bytes at byte 15 of {path.name}, where 1 records were"


def test_a_missing_segment_stops_readers_until_it_is_back_or_they_go_on_without_it(tmp_path: Path):
    payloads = [b"%03d" % number for number in range(20)]
    _write(tmp_path, payloads, segment_bytes=80)
    lost = _segments(tmp_path)[1]
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


def test_a_log_without_its_segments_goes_on_where_it_ended(tmp_path: Path):
    _write(tmp_path, [b"one", b"two"])
    _segments(tmp_path)[0].unlink()
    _write(tmp_path, [b"three"])
    with LocalReader(tmp_path) as reader:
        with pytest.raises(PositionLost):
            reader.read({"local": 0}, 10)
        assert [(record.offset, record.payload) for record in reader.read({}, 10)[0]] == [(2, b"three")]


@pytest.mark.parametrize("who", ["trainer", "kafka"])
def test_a_number_that_somebody_has_had_is_never_given_to_another_record(tmp_path: Path, who: str):
    _write(tmp_path, [b"one", b"two", b"three"])
    identity = (tmp_path / "identity").read_text()
    if who == "trainer":
        files.mark_consumed(tmp_path, "trainer", 3)
    else:
        (tmp_path / "shipped.json").write_text(json.dumps({"spool": identity, "shipped": 3}))
    os.truncate(_segments(tmp_path)[0], HEADER.size + 3)  # a disk that forgot what it had said was on it
    (tmp_path / "committed").unlink()
    _write(tmp_path, [b"four"])
    with LocalReader(tmp_path) as reader:
        assert [(record.offset, record.payload) for record in reader.read({"local": 3}, 10)[0]] == [(3, b"four")]


def test_after_a_power_failure_the_count_may_be_low_and_is_made_good(tmp_path: Path):
    _write(tmp_path, [b"one", b"two", b"three"])
    before = CommittedFile(tmp_path, writable=True, boot=b"another boot id ")
    before.write(1)
    before.close()
    with LocalReader(tmp_path) as reader:
        # Before its writer came back, a reader that had read more waits; it does not take the rest for lost.
        assert reader.read({"local": 3}, 10) == ([], {"local": 3})
        _write(tmp_path, [b"four"])
        records, _ = reader.read({"local": 3}, 10)
    assert [record.payload for record in records] == [b"four"]


@pytest.mark.parametrize("content", [b"", bytes(28), b"garbage that is long enough for it"])
def test_a_lost_count_is_found_again_by_the_writer(tmp_path: Path, content: bytes):
    _write(tmp_path, [b"one", b"two"])
    (tmp_path / "committed").write_bytes(content)
    assert _read(tmp_path) == []
    _write(tmp_path, [b"three"])
    assert _read(tmp_path) == [b"one", b"two", b"three"]


# A disk that is full, or fails


def test_a_full_disk_refuses_and_later_takes_again(tmp_path: Path):
    """No file may grow beyond 64 KiB: each segment hits the limit in its turn, and the next one takes appends again."""
    writer = _start_writer(tmp_path, threads=4, COUNT="60", FILE_LIMIT=str(1 << 16), SEGMENT_BYTES=str(1 << 30))
    output, _ = writer.communicate(timeout=120)
    lines = output.decode().splitlines()
    refused = [line.split()[1:] for line in lines if line.startswith("refused")]
    accepted = [line.split() for line in lines if line[0].isdigit()]
    assert writer.returncode == 0
    assert refused and len(accepted) + len(refused) == 240
    first_refusal = next(number for number, line in enumerate(lines) if line.startswith("refused"))
    assert any(line[0].isdigit() for line in lines[first_refusal:])
    read = _read(tmp_path)
    assert sorted(read) == sorted(payload("0", int(thread), int(number)) for thread, number in accepted)
    _write(tmp_path, [b"room again"])
    assert _read(tmp_path) == [*read, b"room again"]


@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC])
def test_a_failed_fsync_is_not_acknowledged_and_its_segment_never_used_again(tmp_path: Path, disk: Disk, error: int):
    with LocalLog(tmp_path, sync=disk) as log:
        log.append(b"one").result(30)
        size = _segments(tmp_path)[0].stat().st_size
        disk.failures = [error, error]
        for _ in range(2):
            with pytest.raises(LogUnavailable, match="not acknowledged"):
                log.append(b"lost").result(30)
        assert log.append(b"two").result(30) == 1
        assert _segments(tmp_path)[0].stat().st_size == size
        assert [path.name for path in _segments(tmp_path)] == [segment_name(0), segment_name(1)]
        assert _read(tmp_path) == [b"one", b"two"]
    _write(tmp_path, [b"three"])
    assert _read(tmp_path) == [b"one", b"two", b"three"]


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
    assert b"not acknowledged" in _segments(tmp_path)[0].read_bytes()
    _write(tmp_path, [b"three"])
    assert _read(tmp_path) == [b"one", b"two", b"three"]


# Writers


def test_a_second_writer_is_refused_and_told_who_holds_the_log(tmp_path: Path):
    writer = _start_writer(tmp_path)
    assert writer.stdout is not None
    assert writer.stdout.readline() == b"ready\n"
    try:
        with pytest.raises(LogLocked, match=rf"pid {writer.pid}\).*stop it"):
            LocalLog(tmp_path)
    finally:
        writer.kill()
        writer.communicate()
    with LocalLog(tmp_path), pytest.raises(LogLocked, match=f"pid {os.getpid()}"):
        LocalLog(tmp_path)


def test_records_that_wait_share_one_fsync(tmp_path: Path, disk: Disk):
    with LocalLog(tmp_path, sync=disk) as log:
        disk.free.clear()
        first = log.append(b"first")
        assert disk.entered.wait(30)
        futures = [log.append(b"%d" % number) for number in range(100)]
        assert not first.done()
        with LocalReader(tmp_path) as reader:
            assert reader.read({}, 10) == ([], {"local": 0})
        disk.free.set()
        assert first.result(30) == 0
        assert [future.result(30) for future in futures] == list(range(1, 101))
        assert log.groups == 2
    assert disk.syncs == 2
    assert _read(tmp_path) == [b"first", *(b"%d" % number for number in range(100))]


def test_sixty_four_threads_are_all_acknowledged_each_in_its_order(tmp_path: Path):
    numbers: dict[int, list[int]] = {}
    with LocalLog(tmp_path, segment_bytes=50_000) as log, LocalReader(tmp_path) as reader:

        def write(thread: int) -> None:
            numbers[thread] = [log.append(payload("t", thread, number)).result(60) for number in range(40)]

        threads = [threading.Thread(target=write, args=(thread,)) for thread in range(64)]
        for thread in threads:
            thread.start()
        tailed: list[bytes] = []
        position: dict[str, int] = {}

        def tail() -> bool:
            nonlocal position
            records, position = reader.read(position, 100)
            tailed.extend(record.payload for record in records)
            return len(tailed) >= 64 * 40

        until(tail, 60, "the reader to see every record while the writers run")
        for thread in threads:
            thread.join()
    assert len(_segments(tmp_path)) > 1
    assert sorted(number for each in numbers.values() for number in each) == list(range(64 * 40))
    for thread, mine in numbers.items():
        assert mine == sorted(mine)
        assert [tailed[number] for number in mine] == [payload("t", thread, number) for number in range(40)]


def test_a_full_queue_refuses_at_once(tmp_path: Path, disk: Disk):
    with LocalLog(tmp_path, queue_bytes=100, sync=disk) as log:
        disk.free.clear()
        first = log.append(b"written at once")
        assert disk.entered.wait(30)
        second = log.append(b"x" * 90)
        with pytest.raises(LogUnavailable, match="90 bytes wait"):
            log.append(b"y" * 20)
        disk.free.set()
        assert (first.result(30), second.result(30)) == (0, 1)
        assert log.append(b"y" * 20).result(30) == 2


def test_a_cancelled_append_is_not_written(tmp_path: Path, disk: Disk):
    with LocalLog(tmp_path, sync=disk) as log:
        disk.free.clear()
        first = log.append(b"first")
        assert disk.entered.wait(30)
        second, third = log.append(b"second"), log.append(b"third")
        assert second.cancel()
        assert not first.cancel()
        disk.free.set()
        assert third.result(30) == 1
    assert _read(tmp_path) == [b"first", b"third"]


def test_close_writes_what_is_queued_and_refuses_what_comes_after(tmp_path: Path, disk: Disk):
    log = LocalLog(tmp_path, sync=disk)
    disk.free.clear()
    futures = [log.append(b"%d" % number) for number in range(10)]
    threading.Timer(0.05, disk.free.set).start()
    log.close()
    log.close()
    assert [future.result(0) for future in futures] == list(range(10))
    with pytest.raises(LogUnavailable, match="closed"):
        log.append(b"late")


def test_records_of_a_wrong_size_are_the_callers_mistake(tmp_path: Path):
    with LocalLog(tmp_path) as log:
        for wrong in (b"", bytes(MAX_RECORD + 1)):
            with pytest.raises(InvalidInput, match=f"this one has {len(wrong)}"):
                log.append(wrong)
        assert log.append(b"x" * MAX_RECORD).result(60) == 0
        assert log.append(bytes(10 << 20)).result(60) == 1
    assert [len(record) for record in _read(tmp_path)] == [MAX_RECORD, 10 << 20]


# Readers


def test_reading_from_any_position_in_any_order(tmp_path: Path):
    rng = random.Random(5)
    payloads = [rng.randbytes(rng.randrange(1, 200)) for _ in range(300)]
    _write(tmp_path, payloads[:150], segment_bytes=2000)
    _write(tmp_path, payloads[150:], segment_bytes=1000)
    with LocalReader(tmp_path) as reader:
        for _ in range(100):
            start, limit = rng.randrange(301), rng.randrange(1, 60)
            records, position = reader.read({"local": start}, limit)
            assert [record.payload for record in records] == payloads[start : start + limit]
            assert position == {"local": min(start + limit, 300)}


def test_a_position_whose_segment_was_removed_is_lost(tmp_path: Path):
    _write(tmp_path, [b"x" * 100] * 20, segment_bytes=500)
    _segments(tmp_path)[0].unlink()
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


def test_two_logs_have_two_identities(tmp_path: Path):
    assert LocalReader(tmp_path / "a").identity() != LocalReader(tmp_path / "b").identity()


@pytest.mark.parametrize("open_", [LocalLog, LocalReader])
def test_a_file_in_the_folders_place_is_named(tmp_path: Path, open_: Callable[[Path], object]):
    place = tmp_path / "log"
    place.write_text("not a folder")
    with pytest.raises(LogUnavailable, match=r"log cannot be used.*must be a folder"):
        open_(place)


@pytest.mark.parametrize("name", ["committed", "lock", "identity", segment_name(0)])
def test_a_folder_in_a_files_place_is_named_and_nothing_is_lost(tmp_path: Path, name: str):
    _write(tmp_path, [b"one"])
    (tmp_path / name).rename(tmp_path / "aside")
    (tmp_path / name).mkdir()
    with pytest.raises(LogUnavailable, match=rf"{name}: Is a directory"):
        LocalLog(tmp_path)
    (tmp_path / name).rmdir()
    (tmp_path / "aside").rename(tmp_path / name)
    assert _read(tmp_path) == [b"one"]


def test_files_of_no_length(tmp_path: Path):
    _write(tmp_path, [b"one"])
    name = (tmp_path / "identity").read_text()
    (tmp_path / "identity").write_text("")
    for open_ in (LocalLog, LocalReader):
        with pytest.raises(LogUnavailable, match="identity is empty: bring back what it held"):
            open_(tmp_path)
    (tmp_path / "identity").write_text(name)
    (tmp_path / "committed").write_bytes(b"")
    (tmp_path / segment_name(1)).write_bytes(b"")
    _write(tmp_path, [b"two"])
    assert _read(tmp_path) == [b"one", b"two"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become nobody")
def test_a_folder_that_nobody_may_write_to_is_named(tmp_path: Path):
    _write(tmp_path, [b"one"])
    code = "import os; from tests.support import log_writer; os.setuid(65534); log_writer.main()"
    for path in (tmp_path, *tmp_path.parents[:-2]):
        path.chmod(0o755)
    ended = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path), "1", "0"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert ended.returncode != 0
    assert f"the log in {tmp_path} cannot be used: {tmp_path}/lock: Permission denied" in ended.stderr
    assert _read(tmp_path) == [b"one"]


def test_a_record_of_ten_mebibytes_is_a_record(tmp_path: Path):
    large = os.urandom(10 << 20)
    _write(tmp_path, [b"before", large, b"after"])
    assert _read(tmp_path) == [b"before", large, b"after"]


def test_where_to_go_on_and_what_is_missing(tmp_path: Path):
    _write(tmp_path, [b"x" * 100] * 20, segment_bytes=500)
    _segments(tmp_path)[0].unlink()
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


# Retention


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
        shipped = 21
        assert log.expire() == [0, 4, 8, 12, 16]


def test_what_is_old_goes_and_the_count_of_records_stays(tmp_path: Path):
    _write(tmp_path, [b"x" * 100] * 10, segment_bytes=500)
    for path in _segments(tmp_path):
        os.utime(path, (1_000_000, 1_000_000))
    with LocalLog(tmp_path, segment_bytes=500, retention=Retention(max_age_s=3600)) as log:
        assert log.expire() == [0, 4, 8], "also the one that was written to last"
        assert _offsets(tmp_path) == []
        assert log.append(b"next").result(30) == 10
    with LocalLog(tmp_path, retention=Retention(max_age_s=3600)) as log:
        assert log.expire() == []
        assert log.append(b"and one more").result(30) == 11
    assert _offsets(tmp_path) == [10, 11]


def test_an_empty_last_segment_survives_a_restart(tmp_path: Path):
    _write(tmp_path, [b"x" * 100] * 3)
    os.utime(_segments(tmp_path)[0], (1_000_000, 1_000_000))
    with LocalLog(tmp_path, retention=Retention(max_age_s=3600)) as log:
        assert log.expire() == [0]
    with LocalLog(tmp_path) as log:
        assert log.append(b"next").result(30) == 3


def test_without_limits_everything_stays(tmp_path: Path):
    with LocalLog(tmp_path, segment_bytes=500) as log:
        for number in range(40):
            log.append(bytes([number]) * 100).result(30)
        for path in _segments(tmp_path):
            os.utime(path, (0, 0))
        assert log.expire() == []
    assert _offsets(tmp_path) == list(range(40))


def test_retention_works_by_itself_while_people_vote(tmp_path: Path):
    with LocalLog(tmp_path, segment_bytes=500, retention=Retention(max_bytes=1000, check_s=0.0)) as log:
        for number in range(200):
            log.append(bytes([number]) * 100).result(30)
        assert len(_segments(tmp_path)) <= 4
    assert _offsets(tmp_path)[-1] == 199
