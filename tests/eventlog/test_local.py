"""The writer of the local log: many threads, shared fsyncs, a full or failing disk, a second writer, bad folders."""

import errno
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from rlhf_online.errors import InvalidInput, LogLocked, LogUnavailable
from rlhf_online.eventlog.base import Shipping
from rlhf_online.eventlog.local import LocalLog
from rlhf_online.eventlog.segments import MAX_RECORD, segment_name
from rlhf_online.eventlog.tail import LocalReader
from tests.support.local_log import Disk, append_all, read_all, segment_files, start_writer
from tests.support.log_writer import payload
from tests.support.waiting import until

ROOT = Path(__file__).parents[2]


def test_a_full_disk_refuses_and_later_takes_again(tmp_path: Path):
    """No file may grow beyond 64 KiB: each segment hits the limit in its turn, and the next one takes appends again."""
    writer = start_writer(tmp_path, threads=4, COUNT="60", FILE_LIMIT=str(1 << 16), SEGMENT_BYTES=str(1 << 30))
    output, _ = writer.communicate(timeout=120)
    lines = output.decode().splitlines()
    refused = [line.split()[1:] for line in lines if line.startswith("refused")]
    accepted = [line.split() for line in lines if line[0].isdigit()]
    assert writer.returncode == 0
    assert refused and len(accepted) + len(refused) == 240
    first_refusal = next(number for number, line in enumerate(lines) if line.startswith("refused"))
    assert any(line[0].isdigit() for line in lines[first_refusal:])
    read = read_all(tmp_path)
    assert sorted(read) == sorted(payload("0", int(thread), int(number)) for thread, number in accepted)
    append_all(tmp_path, [b"room again"])
    assert read_all(tmp_path) == [*read, b"room again"]


@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC])
def test_a_failed_fsync_is_not_acknowledged_and_its_segment_never_used_again(tmp_path: Path, disk: Disk, error: int):
    with LocalLog(tmp_path, sync=disk) as log:
        log.append(b"one").result(30)
        size = segment_files(tmp_path)[0].stat().st_size
        disk.failures = [error, error]
        for _ in range(2):
            with pytest.raises(LogUnavailable, match="not acknowledged"):
                log.append(b"lost").result(30)
        assert log.append(b"two").result(30) == 1
        assert segment_files(tmp_path)[0].stat().st_size == size
        assert [path.name for path in segment_files(tmp_path)] == [segment_name(0), segment_name(1)]
        assert read_all(tmp_path) == [b"one", b"two"]
    append_all(tmp_path, [b"three"])
    assert read_all(tmp_path) == [b"one", b"two", b"three"]


def test_a_second_writer_is_refused_and_told_who_holds_the_log(tmp_path: Path):
    writer = start_writer(tmp_path)
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
    assert read_all(tmp_path) == [b"first", *(b"%d" % number for number in range(100))]


def test_records_that_are_appended_together_are_there_all_or_none(tmp_path: Path, disk: Disk):
    with LocalLog(tmp_path, sync=disk) as log:
        assert log.append_all([b"a", b"b", b"c"]).result(30) == 0
        disk.failures = [errno.EIO]
        with pytest.raises(LogUnavailable, match="not acknowledged"):
            log.append_all([b"d", b"e"]).result(30)
        assert log.append_all([b"f", b"g"]).result(30) == 3
        for wrong in ([], [b"x", b""], [bytes(9 << 20)] * 2):
            with pytest.raises(InvalidInput):
                log.append_all(wrong)
    assert read_all(tmp_path) == [b"a", b"b", b"c", b"f", b"g"]


def test_a_segment_is_no_larger_than_it_may_be_however_many_records_wait(tmp_path: Path, disk: Disk):
    with LocalLog(tmp_path, segment_bytes=200, sync=disk) as log:
        disk.free.clear()
        futures = [log.append(b"x" * 50) for _ in range(20)]
        assert disk.entered.wait(30)
        disk.free.set()
        assert [future.result(30) for future in futures] == list(range(20))
    assert max(path.stat().st_size for path in segment_files(tmp_path)) <= 200


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_where_the_writer_ends_by_a_mistake_of_its_own_nobody_waits_for_ever(tmp_path: Path):
    entered, go = threading.Event(), threading.Event()

    def mistaken(descriptor: int) -> None:
        entered.set()
        assert go.wait(60)
        raise RuntimeError("no error of the disk")

    with LocalLog(tmp_path, sync=mistaken) as log:
        log.append(b"being written")
        assert entered.wait(30)
        waiting = log.append(b"waits")
        go.set()
        with pytest.raises(LogUnavailable, match=r"the writer of the log in .* stopped"):
            waiting.result(30)
        with pytest.raises(LogUnavailable, match="is closed"):
            log.append(b"late")


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
    assert len(segment_files(tmp_path)) > 1
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
    assert read_all(tmp_path) == [b"first", b"third"]


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
    assert [len(record) for record in read_all(tmp_path)] == [MAX_RECORD, 10 << 20]


def test_a_log_says_how_much_is_acknowledged_and_ships_nowhere(tmp_path: Path):
    append_all(tmp_path, [b"one", b"two"])
    with LocalLog(tmp_path) as log:
        assert (log.end, log.groups, log.shipping()) == (2, 0, Shipping())
        log.append(b"three").result(30)
        assert (log.end, log.groups) == (3, 1)


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="Linux tells what a process has open")
def test_a_writer_leaves_no_file_open_behind_it(tmp_path: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch):
    """Neither the segments that it has filled, or given up, nor anything once it is closed, or could not be opened."""
    begun = len(os.listdir("/proc/self/fd"))
    with LocalLog(tmp_path, segment_bytes=80, sync=disk) as log:
        log.append(b"first").result(30)
        held = len(os.listdir("/proc/self/fd"))
        for number in range(20):
            log.append(b"%d" % number).result(30)
        disk.failures = [errno.EIO]
        with pytest.raises(LogUnavailable):
            log.append(b"lost").result(30)
        log.append(b"next").result(30)
        assert len(os.listdir("/proc/self/fd")) == held
        with pytest.raises(LogLocked):
            LocalLog(tmp_path)
        assert len(os.listdir("/proc/self/fd")) == held
    assert len(os.listdir("/proc/self/fd")) == begun
    (tmp_path / "committed").unlink()
    (tmp_path / "committed").mkdir()
    with pytest.raises(LogUnavailable):
        LocalLog(tmp_path)
    (tmp_path / "committed").rmdir()
    segment_files(tmp_path)[-1].unlink()
    segment_files(tmp_path)[-1].with_name(segment_name(10**6)).mkdir()
    with pytest.raises(LogUnavailable):
        LocalLog(tmp_path)
    segment_files(tmp_path)[-1].rmdir()
    monkeypatch.setattr(os, "fsync", _refuse)
    with pytest.raises(LogUnavailable, match="the disk failed"):
        LocalLog(tmp_path)
    assert len(os.listdir("/proc/self/fd")) == begun


def _refuse(descriptor: int) -> None:
    raise OSError(errno.EIO, "the disk failed")


def test_a_process_that_does_not_close_its_log_ends_all_the_same(tmp_path: Path):
    append = f"LocalLog(Path({str(tmp_path)!r})).append(b'one').result()"
    code = f"from rlhf_online.eventlog.local import LocalLog, Path; {append}"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=60)
    assert done.returncode == 0 and read_all(tmp_path) == [b"one"]


def test_a_logs_files_are_its_owners_to_write(tmp_path: Path):
    before = os.umask(0)
    try:
        append_all(tmp_path / "log", [b"one"])
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o7777 for path in (tmp_path / "log").iterdir()}
    assert (modes["committed"], modes[segment_name(0)], modes["identity"]) == (0o644, 0o644, 0o666)


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
    append_all(tmp_path, [b"one"])
    (tmp_path / name).rename(tmp_path / "aside")
    (tmp_path / name).mkdir()
    with pytest.raises(LogUnavailable, match=rf"{name}: Is a directory"):
        LocalLog(tmp_path)
    (tmp_path / name).rmdir()
    (tmp_path / "aside").rename(tmp_path / name)
    assert read_all(tmp_path) == [b"one"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become nobody")
def test_a_folder_that_nobody_may_write_to_is_named(tmp_path: Path):
    append_all(tmp_path, [b"one"])
    code = "import os; from tests.support import log_writer; os.setuid(65534); log_writer.main()"
    for path in (tmp_path, *tmp_path.parents[:-2]):
        path.chmod(0o755)
    ended = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path), "1", "0"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert ended.returncode != 0
    assert f"the log in {tmp_path} cannot be used: {tmp_path}/lock: Permission denied" in ended.stderr
    assert read_all(tmp_path) == [b"one"]


def test_a_record_of_ten_mebibytes_is_a_record(tmp_path: Path):
    large = os.urandom(10 << 20)
    append_all(tmp_path, [b"before", large, b"after"])
    assert read_all(tmp_path) == [b"before", large, b"after"]
