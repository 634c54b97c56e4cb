"""The files of a local log beside its segments, and what a process must know to read or write them.

<20 digits>.log   segments (`segments`)
identity          a random name, made once with the folder: a folder made anew is another log
committed         how many records are acknowledged: what a reader may see (`committed`)
readers/NAME      {"consumed": n}: this reader needs no record before the n-th; without the file it holds nothing back
shipped.json      {"spool": identity, "shipped": n}: Kafka needs none before the n-th (`spool`)
lock              held (flock) by the one writer; holds its process id, for people
"""

import bisect
import json
import os
import uuid
from pathlib import Path

from rlhf_online import locks
from rlhf_online.durable import make_folder, write_json, write_once
from rlhf_online.errors import LogLocked, LogUnavailable
from rlhf_online.eventlog.segments import parse_name, segment_name


def segments(folder: Path) -> list[int]:
    """First sequence numbers of the folder's segments, ascending."""
    return sorted(first for entry in os.listdir(folder) if (first := parse_name(entry)) is not None)


def segment_of(folder: Path, number: int) -> str:
    """Name of the segment that holds the record of that number; "" if it is gone. Raises OSError."""
    firsts = segments(folder)
    at = bisect.bisect_right(firsts, number) - 1
    return segment_name(firsts[at]) if at >= 0 else ""


def mark_consumed(folder: Path, reader: str, number: int) -> None:
    """Note that `reader` needs no record before `number`. Raises OSError."""
    write_json(folder / "readers" / reader, {"consumed": number})


def first_needed(folder: Path) -> int | None:
    """The first record that some reader of the folder still needs; None without readers.

    One whose file cannot be read needs everything.
    """
    positions = []
    try:
        names = [name for name in os.listdir(folder / "readers") if not name.startswith(".")]
    except FileNotFoundError:
        return None
    for name in names:
        try:
            positions.append(int(json.loads((folder / "readers" / name).read_text())["consumed"]))
        except FileNotFoundError:
            continue
        except (OSError, ValueError, KeyError, TypeError):
            positions.append(0)
    return min(positions, default=None)


def highest_consumed(folder: Path, identity: str) -> int:
    """How many records a reader, or Kafka, has had. Their numbers must never be given to other records."""
    positions = [0]
    shipped = folder / "shipped.json"
    for path in (shipped, *(folder / "readers").glob("[!.]*")):
        try:
            values = json.loads(path.read_text())
            if path == shipped and values["spool"] == identity:
                positions.append(int(values["shipped"]))
            elif path != shipped:
                positions.append(int(values["consumed"]))
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return max(positions)


def identity(folder: Path) -> str:
    """The log's name; made, with the folder, by whoever comes first.

    Raises LogUnavailable.
    """
    path = folder / "identity"
    try:
        try:
            found = path.read_text().strip()
        except FileNotFoundError:
            make_folder(folder, mode=0o700)  # people's conversations
            found = write_once(path, str(uuid.uuid4()), mode=0o666)
    except (OSError, ValueError) as error:
        raise unusable(folder, error) from error
    if not found:
        raise LogUnavailable(
            f"{path} is empty: bring back what it held; without it (removed), readers take this for another log"
        )
    return found


def take_lock(folder: Path) -> locks.FileLock:
    """The folder's writer lock. Raises LogLocked, naming the holder; OSError."""
    path = folder / "lock"
    if (lock := locks.try_acquire(path, signed=True)) is None:
        raise LogLocked(
            f"another process (pid {locks.holder(path)}) writes to the log in {folder}: stop it, or give this one "
            "another folder"
        )
    return lock


def unusable(folder: Path, error: Exception) -> LogUnavailable:
    """The error that says that the folder can't serve as a log, and why."""
    what = f"{error.filename or folder}: {error.strerror or error}" if isinstance(error, OSError) else f"{error}"
    return LogUnavailable(
        f"the log in {folder} cannot be used: {what}; it must be a folder that this user may write to, with nothing "
        "but the log's own files, on a file system with space left"
    )
