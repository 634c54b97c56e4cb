"""Small files and names that outlive a power loss: all that the product promises to keep is written through these.

A file's content is on disk once the file was fsynced, and its name once the folder was that it stands in. Hence: a file
is written aside, fsynced, renamed over the old one, and the folder is fsynced; a folder that is made is a name too, in
the folder above it. Until a call returns, a power loss leaves what was there before, or what is there afterwards.

A small file that cannot be read all the same (emptied, cut, overwritten, not permitted) is named by who reads it, with
what to do (`read_text`, `read_json`).

What writes raises OSError. `tests/test_durability.py` tries a power loss at every step of every writer.
"""

import contextlib
import errno
import hashlib
import json
import os
import uuid
from pathlib import Path
from typing import Any, BinaryIO

from rlhf_online.errors import FileDamaged

_PASSING = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EINTR, errno.EAGAIN)
"""Errors that say nothing of the file: the next try may succeed."""


def read_text(path: Path, remedy: str) -> str | None:
    """What a small file holds, without the blanks around it; None if there is none.

    Raises FileDamaged for one that is empty or cannot be read; `remedy` says what to do about it.
    """
    try:
        text = path.read_text(errors="replace").strip()
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno in _PASSING:
            raise
        raise FileDamaged(f"{path} cannot be read ({error.strerror}): {remedy}") from error
    if not text:
        raise FileDamaged(f"{path} is empty: {remedy}")
    return text


def read_json(path: Path, remedy: str) -> Any:
    """The values of a small JSON file; None if there is none. Raises FileDamaged."""
    if (text := read_text(path, remedy)) is None:
        return None
    try:
        return json.loads(text)
    except ValueError as error:
        raise FileDamaged(f"{path} holds no JSON ({error}): {remedy}") from error


def make_folder(path: Path, *, mode: int = 0o777) -> None:
    """Make the folder, and those above it that are missing (they get `mode` too).

    Whoever made one that is there may have been killed before its name was durable: it is made so again.
    """
    if made := not path.is_dir():
        make_folder(path.parent, mode=mode)
        with contextlib.suppress(FileExistsError):  # another process was quicker
            path.mkdir(mode)
    try:
        fsync_folder(path.parent)
    except PermissionError:  # a folder that others have given to this process, in one of theirs
        if made:
            raise


def write_json(path: Path, values: Any) -> None:
    """Replace `path` by the values as JSON."""
    write_bytes(path, json.dumps(values).encode())


def write_bytes(path: Path, data: bytes, *, mode: int | None = None) -> None:
    """Replace `path`; its folder is made if there is none."""
    make_folder(path.parent)
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    with aside.open("wb") as file:
        if mode is not None:
            os.fchmod(file.fileno(), mode)
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    aside.rename(path)
    fsync_folder(path.parent)


def write_once(path: Path, text: str, *, mode: int) -> str:
    """Make `path` hold `text` unless it is there already; returns what it holds. Its folder must exist.

    Written aside and linked into place: of two that write at the same time one wins, and both read the same.
    """
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with os.fdopen(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.link(aside, path)
    except FileExistsError:
        pass
    finally:
        aside.unlink(missing_ok=True)
    fsync_folder(path.parent)
    return path.read_text().strip()


def append_lines(path: Path, lines: bytes) -> None:
    """Append whole lines to a file that nobody else appends to; half a line that a power loss left there is cut off."""
    with path.open("ab+") as file:
        file.truncate(_end_of_last_line(file))
        file.write(lines)
        file.flush()
        os.fsync(file.fileno())
    fsync_folder(path.parent)  # also where it was there before: who made it may not have lived to do this


def fsync_file(path: Path) -> None:
    """Make a file's content durable, whoever wrote it."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def fsync_folder(path: Path) -> None:
    """Make the names in the folder durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def fsync_tree(path: Path) -> None:
    """Make all that is in the folder durable, whoever wrote it; the folder's own name is not."""
    for below in path.iterdir():
        if below.is_dir():
            fsync_tree(below)
        else:
            fsync_file(below)
    fsync_folder(path)


def content_name(stem: str, data: bytes, suffix: str) -> str:
    """The name of a sealed file: one that holds `data` for good, and says so by the first digits of its SHA-256."""
    return f"{stem}-{hashlib.sha256(data).hexdigest()[:16]}{suffix}"


def file_sha256(path: Path) -> str:
    """Of a file's content, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _end_of_last_line(file: BinaryIO, piece: int = 64 << 10) -> int:
    begin = file.seek(0, os.SEEK_END)
    while begin > 0:
        end, begin = begin, max(0, begin - piece)
        file.seek(begin)
        if (found := file.read(end - begin).rfind(b"\n")) >= 0:
            return begin + found + 1
    return 0
