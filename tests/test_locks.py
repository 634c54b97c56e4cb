"""Locks between processes: another open file of the same process stands for another process, as it does for flock."""

import os
import subprocess
import sys
import threading

from rlhf_online import locks


def test_one_holds_it_until_it_is_released(tmp_path):
    path = tmp_path / "lock"
    first = locks.try_acquire(path)
    assert first is not None and locks.try_acquire(path) is None
    first.release()
    first.release()
    second = locks.try_acquire(path)
    assert second is not None
    with second:
        assert locks.try_acquire(path) is None
    with locks.acquire(path):
        assert locks.try_acquire(path) is None


def test_acquire_waits_for_the_holder(tmp_path):
    path, order = tmp_path / "lock", []

    def wait_for_it() -> None:
        with locks.acquire(path):
            order.append("second")

    with locks.acquire(path):
        waiting = threading.Thread(target=wait_for_it)
        waiting.start()
        order.append("first")
    waiting.join(60)
    assert order == ["first", "second"]


def test_a_signed_lock_names_its_holder(tmp_path):
    path = tmp_path / "lock"
    with locks.acquire(path):
        assert locks.holder(path) == "unknown"
    path.write_text("4194304 and more")
    lock = locks.try_acquire(path, signed=True)
    assert lock is not None
    with lock:
        assert locks.try_acquire(path, signed=True) is None
        assert locks.holder(path) == str(os.getpid())


def test_a_lock_ends_with_the_process_that_holds_it(tmp_path):
    path = tmp_path / "lock"
    program = f"from pathlib import Path; from rlhf_online import locks; held = locks.acquire(Path({str(path)!r})); "
    holder = subprocess.Popen(
        [sys.executable, "-c", program + "print('held', flush=True); input()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with holder:
        assert holder.stdout is not None and holder.stdout.readline() == b"held\n"
        assert locks.try_acquire(path) is None
        holder.kill()
    lock = locks.try_acquire(path)
    assert lock is not None
    lock.release()
