"""SQLite files of the product: closed to other users, with a journal beside, and what is deleted is overwritten."""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from rlhf_online.errors import ReadModelUnavailable


def connect(path: Path, *, synchronous: Literal["NORMAL", "FULL"]) -> sqlite3.Connection:
    """The database at `path`, made if it is not there, for any thread; it begins no `transaction` by itself.

    `synchronous`: NORMAL syncs when the journal is emptied, FULL each transaction. Raises OSError, sqlite3.Error.
    """
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))  # SQLite's other files get the same mode
    database = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
    try:
        for pragma in ("secure_delete = ON", "journal_mode = WAL", f"synchronous = {synchronous}"):
            database.execute(f"PRAGMA {pragma}")
    except sqlite3.Error:
        database.close()
        raise
    return database


def remove(path: Path) -> None:
    """The database, if it is there; the journal first: it must not meet another database."""
    for suffix in ("-wal", "-shm", ""):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


@contextmanager
def transaction(database: sqlite3.Connection) -> Iterator[None]:
    """All or nothing."""
    with database:
        database.execute("BEGIN IMMEDIATE")
        yield


@contextmanager
def usable(path: Path) -> Iterator[None]:
    """Turns what SQLite says of the database at `path` into ReadModelUnavailable."""
    try:
        yield
    except sqlite3.Error as error:
        message = f"{path} cannot be used: {error}; look at the disk and at the file's owner"
        raise ReadModelUnavailable(message) from error
