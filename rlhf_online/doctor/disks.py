"""Disks: whether a folder can be written, how fast what is written is durable, and whether it outlives the machine."""

import errno
import math
import os
import shutil
import statistics
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rlhf_online import locks
from rlhf_online.doctor.finding import Finding, ok, refuse, warn

GIB = 1 << 30
FSYNCS, RECORD = 20, 4096
STRIPE, STRIPES, ROOMY = 1 << 20, 16, 32
SLOW_FSYNC_S = 0.05
"""A vote is acknowledged after one: beyond that people wait for their thumbs."""
SLOW_BYTES_S = 20e6
PASSING = {"tmpfs": "memory", "ramfs": "memory", "overlay": "the container's own layer"}
"""File systems that go with the machine or the container, and what they are."""


def folders(paths: Iterable[Path], needed: int) -> list[Finding]:
    """Each disk that the folders are on, once; `needed` is in bytes. What is not there yet will be made."""
    found: list[Finding] = []
    seen: set[int] = set()
    for path in paths:
        place = _existing(path)
        device = place.stat().st_dev
        if device in seen and place == path:  # the same disk: whether this folder of it may be written is left
            found += _refusals(path)
        elif device not in seen:
            seen.add(device)
            found += disk(path, needed)
    return found


def disk(folder: Path, needed: int) -> list[Finding]:
    """The folder, and the disk that it is on. `needed` is what it should have free, in bytes."""
    about, place = f"disk of {folder}", _existing(folder)
    found: list[Finding] = []
    free = shutil.disk_usage(place).free
    if free < needed:
        todo = "make room, or a larger volume; the trainer pauses and votes are refused once it is full"
        found.append(
            refuse(
                about, f"has {free / GIB:.2f} GiB free, and {needed / GIB:.1f} are needed to go on for a while", todo
            )
        )
    kind = _kind(place)
    if kind in PASSING:
        todo = "put the state, log and checkpoints with it, on a volume that stays (a PersistentVolumeClaim, a mount)"
        found.append(warn(about, f"is {PASSING[kind]} ({kind}): all in it goes with it", todo))
    if refused := _refusals(folder):
        return found + refused
    if place == folder:
        found += _measured(about, folder)
    return found or [ok(about, f"{free / GIB:.1f} GiB free")]


def _refusals(folder: Path) -> list[Finding]:
    """Why nothing can be written into the folder, or made in the place of one that is not there."""
    about, place = f"disk of {folder}", _existing(folder)
    if not place.is_dir():
        return [refuse(about, f"{place} is no folder", "name another state_dir, or remove the file")]
    if place != folder:
        if os.access(place, os.W_OK | os.X_OK) and not os.statvfs(place).f_flag & os.ST_RDONLY:
            return []
        return [refuse(about, f"is not there and cannot be made in {place}", "make it, or name another state_dir")]
    try:
        with _scratch(folder) as path, path.open("wb") as file:
            file.write(bytes(RECORD))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        return [refuse(about, *_why(error, folder))]
    owner = folder.stat().st_uid
    if owner != os.geteuid():
        todo = f"run this as user {owner}, as the service does, or give the folder to the service's user"
        return [warn(about, f"belongs to user {owner}, and this was tried as user {os.geteuid()}", todo)]
    return []


def _measured(about: str, folder: Path) -> list[Finding]:
    """Speed, and whether locks hold. The folder can be written; it may become full meanwhile."""
    try:
        with _scratch(folder) as path:
            room = shutil.disk_usage(folder).free > ROOMY * STRIPE * STRIPES  # the services live on it
            fsync_s, bytes_s = _fsync_s(path), _bytes_s(path) if room else math.inf
            with locks.acquire(path):
                held = locks.try_acquire(path) is None
    except OSError as error:
        return [refuse(about, *_why(error, folder))]
    found: list[Finding] = []
    if not held:
        todo = "use a file system whose locks hold (local disks, NFS 4), or trainer.lease.kind = 'kubernetes'"
        found.append(refuse(about, "lets two processes hold one lock", todo))
    told = f"fsync {1000 * fsync_s:.2g} ms" + (f", {bytes_s / 1e6:.0f} MB/s written" if room else "")
    if fsync_s > SLOW_FSYNC_S:
        found.append(warn(about, f"is slow ({told}): each vote waits for an fsync", "a faster disk for the log"))
    elif bytes_s < SLOW_BYTES_S:
        found.append(warn(about, f"is slow ({told})", "a faster disk: a checkpoint takes minutes on this one"))
    return found or [ok(about, f"{shutil.disk_usage(folder).free / GIB:.1f} GiB free, {told}")]


def _fsync_s(path: Path) -> float:
    """Median seconds until a small record that is appended is durable."""
    times = []
    with path.open("ab", buffering=0) as file:
        for _ in range(FSYNCS):
            begun = time.perf_counter()
            file.write(os.urandom(RECORD))
            os.fsync(file.fileno())
            times.append(time.perf_counter() - begun)
    return statistics.median(times)


def _bytes_s(path: Path) -> float:
    """Bytes a second that become durable, written one after another."""
    stripe = os.urandom(STRIPE)
    begun = time.perf_counter()
    with path.open("ab", buffering=0) as file:
        for _ in range(STRIPES):
            file.write(stripe)
        os.fsync(file.fileno())
    return STRIPE * STRIPES / (time.perf_counter() - begun)


@contextmanager
def _scratch(folder: Path) -> Iterator[Path]:
    """A file's path of our own, in a folder whose other files are somebody's; removed in the end."""
    path = folder / f".doctor-{uuid.uuid4().hex}"
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


def _why(error: OSError, folder: Path) -> tuple[str, str]:
    """What is wrong and what to do."""
    match error.errno:
        case errno.EROFS:
            return (
                "is read-only",
                "mount it for reading and writing; after an error of the disk Linux remounts it: see dmesg",
            )
        case errno.ENOSPC | errno.EDQUOT:
            return "is full", "make room, or a larger volume: nothing is learned and no vote is taken meanwhile"
        case errno.EACCES | errno.EPERM:
            return (
                f"may not be written by user {os.geteuid()}",
                f"chown -R {os.geteuid()} {folder}, or fsGroup in the pod's securityContext",
            )
        case _:
            return f"cannot be written ({error.strerror or error})", "mend the disk"


def _existing(path: Path) -> Path:
    """The path, or the nearest above it that is there."""
    path = path.absolute()
    while not path.exists() and path != path.parent:
        path = path.parent
    return path


def _kind(path: Path) -> str:
    """The file system's name as Linux mounts it, "" where that cannot be told."""
    best, kind = "", ""
    try:
        for line in Path("/proc/self/mounts").read_text().splitlines():
            mounted, name = line.split()[1:3]
            point = mounted.encode().decode("unicode_escape")
            if path.is_relative_to(point) and len(point) >= len(best):
                best, kind = point, name
    except (OSError, ValueError):
        return ""
    return kind
