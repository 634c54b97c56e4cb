"""A read model: a SQLite database that follows the log, for questions that the log itself cannot answer.

    log ──▶ read on from where the last transaction stood ──▶ one transaction: what `apply` does, and the new place

A subclass says its `tables`, what a record changes in them (`apply`) and what need not be kept any more (`trim`), and
asks with `rows`; its erasures are its own to apply. The rest is here, once:

- The log is the truth. What a transaction lacks after a crash is read again, and each record is applied once. A record
  that is damaged, or that nobody can read, is passed over: the trainer sets it aside.
- Retention keeps what was not taken in (`log/readers/NAME`, told after SQLite's own fsync), so that a database may
  hold what the log has let go of.
- One that has other tables than `tables`, or follows another log or one that was put back, is made anew from what the
  log holds; so is a damaged one if the log still holds everything.
- Whoever asks calls `catch_up` first, and so sees all that was acknowledged before. Until the log was read once, which
  may take a while at a start, that is refused, and nothing else waits for it.
- What is deleted is overwritten in the file (`secure_delete`), and SQLite's journal emptied within TIDY_S. Where rows
  moved between pages copies are left all the same (2 of 960 in a trial). So who erases what nobody may find again asks
  for the file to be written anew (`scrub`): within TIDY_S, at most once in SCRUB_S, and not forgotten over a restart.
"""

import asyncio
import sqlite3
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import structlog

from rlhf_online import sqlite
from rlhf_online.durable import make_folder
from rlhf_online.errors import FileDamaged, LogError, PositionLost, ReadModelUnavailable, UndecodableEvent
from rlhf_online.eventlog import folder as files
from rlhf_online.eventlog.base import PARTITION, Record
from rlhf_online.eventlog.tail import LocalReader
from rlhf_online.wire import Header, peek

if TYPE_CHECKING:
    from rlhf_online.keystore.keyring import Keyring

BATCH = 256
"""Records of a transaction, for whoever waits for it and for a model that is far behind."""
FEW, PAUSE_S = 32, 0.02
"""Of one that keeps up, and how long it lets others work then: a thread that computes holds an event loop up."""
FOLLOW_S = 1.0
WAIT_S = 5.0
"""How long somebody waits for another's transaction, or for the file that is written anew."""
TIDY_S = 10.0
SCRUB_S = 3600.0
BEGINNING = -1
PLACE = """
CREATE TABLE IF NOT EXISTS place (only_row INTEGER PRIMARY KEY CHECK (only_row = 0), log TEXT, position INTEGER);
"""


class ReadModel(ABC):
    """The database at `path`, which is made with its folder, and the log in `log`. From any thread.

    Raises FileDamaged for a database that cannot be read and holds what the log does not.
    """

    tables: ClassVar[str]
    """SQL that makes them and their indices where they are missing (IF NOT EXISTS)."""

    def __init__(self, path: Path, log: Path, keys: "Keyring | None" = None) -> None:
        self.keys = keys
        """By which `apply` opens what is sealed; KeysUnavailable has it asked again."""
        self._path = path
        self._folder = log
        self._lock = threading.RLock()
        self._log = LocalReader(log)
        make_folder(path.parent, mode=0o700)
        self._database = _open(path, self.tables, log)
        self._at: int | None = None
        """The next record; None until the log was asked where to read on."""
        self._told = BEGINNING
        self._scrubbed_s = -SCRUB_S

    @abstractmethod
    def apply(self, record: Record, header: Header) -> None:
        """Change the tables as the record says, in a transaction. Raises UndecodableEvent, having changed nothing."""

    @abstractmethod
    def trim(self, first: int) -> None:
        """Remove what need not be kept any more, in a transaction; `first` is the first record that the log holds."""

    def close(self) -> None:
        with self._lock:
            self._log.close()
            self._database.close()

    def execute(self, query: str, values: Sequence[Any] = ()) -> sqlite3.Cursor:
        """For `apply` and `trim`."""
        return self._database.execute(query, values)

    def scrub(self) -> None:
        """For `apply`: what it deletes shall be found nowhere in the file."""
        self.execute("PRAGMA user_version = 1")

    def rows(self, query: str, values: Any = ()) -> list[tuple[Any, ...]]:
        """What the query finds in what was taken in so far. Raises ReadModelUnavailable."""
        with self._at_work():
            return self._database.execute(query, values).fetchall()

    def catch_up(self, within_s: float = FOLLOW_S) -> None:
        """Take in all that was acknowledged by now. Raises ReadModelUnavailable, also if that takes longer."""
        until = time.monotonic() + within_s
        with self._at_work():
            end = self._log.end()[PARTITION]
        while (self._at is None or self._at < end) and self.advance() and time.monotonic() < until:
            pass
        if self._at is None or self._at < end:
            raise ReadModelUnavailable(
                f"{self._path.stem} are still being read from the log, {self._at or 0} of {end} records; try again soon"
            )

    async def follow(self, turn: asyncio.Lock) -> None:
        """Keep up with the log, and the file in order, until cancelled. What cannot be done now is tried again.

        Models that share a `turn` take it for each transaction, so that one of their threads computes at a time.
        """
        failing, tidied_s, left = False, 0.0, 0
        while True:
            behind = left >= BATCH
            try:
                async with turn:
                    left = await asyncio.to_thread(self.advance, BATCH if behind else FEW)
                if time.monotonic() > tidied_s + TIDY_S:
                    await asyncio.to_thread(self.tidy)
                    tidied_s = time.monotonic()
                failing = False
            except ReadModelUnavailable as error:
                if not failing:
                    structlog.get_logger().warning("a read model does not follow the log", why=str(error))
                failing, left = True, 0
            await asyncio.sleep(0 if behind else PAUSE_S if left else FOLLOW_S)

    def advance(self, limit: int | None = None) -> int:
        """Take in the log's next records, at most `limit` (BATCH), in one transaction; how many are left.

        Raises ReadModelUnavailable: it may be called again.
        """
        with self._at_work():
            at = self._resumed() if self._at is None else self._at
            try:
                records, position = self._log.read({PARTITION: at}, limit or BATCH)
            except PositionLost:
                self._at = None
                raise
            if records:
                self._commit(records, position[PARTITION])
            self._at = position[PARTITION]
            return self._log.end()[PARTITION] - self._at

    def tidy(self) -> None:
        """Trim, make durable what was taken in, and only then let the log's retention have it.

        Raises ReadModelUnavailable: it may be called again.
        """
        with self._at_work():
            with sqlite.transaction(self._database):
                self.trim(_first(self._folder))
            self._checkpoint()
            [(asked,)] = self.execute("PRAGMA user_version").fetchall()
            if asked and time.monotonic() >= self._scrubbed_s + SCRUB_S:
                self._scrubbed_s = time.monotonic()
                self.execute("VACUUM")
                self.execute("PRAGMA user_version = 0")
                self._checkpoint()

    def _checkpoint(self) -> None:
        self.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        if self._at is not None and self._at > self._told:
            self._log.mark_consumed(self._path.stem, {PARTITION: self._at})
            self._told = self._at

    @contextmanager
    def _at_work(self) -> Iterator[None]:
        if not self._lock.acquire(timeout=WAIT_S):
            raise ReadModelUnavailable(f"{self._path.stem} are being put in order; try again soon")
        try:
            with sqlite.usable(self._path):
                yield
        except LogError as error:
            raise ReadModelUnavailable(str(error)) from error
        finally:
            self._lock.release()

    def _commit(self, records: Sequence[Record], reached: int) -> None:
        with sqlite.transaction(self._database):
            for record in records:
                if record.damage:
                    continue
                try:
                    self.apply(record, peek(record.payload))
                except UndecodableEvent:
                    continue
            self.execute("INSERT OR REPLACE INTO place VALUES (0, ?, ?)", (self._log.identity(), reached))

    def _resumed(self) -> int:
        """Where to read on: behind a gap, from what there is; in another log, from its beginning."""
        found = self.execute("SELECT log, position FROM place").fetchone()
        if found is None:
            return BEGINNING
        log, number = found
        position, missing = self._log.resume_position(log, {PARTITION: number})
        if missing:
            structlog.get_logger().warning("a read model lacks records", file=self._path.name, why="; ".join(missing))
        if log == self._log.identity() and position[PARTITION] >= number:
            return position[PARTITION]
        self._database.close()
        _remove(self._path)
        self._database = _open(self._path, self.tables, self._folder)
        return BEGINNING


def _open(path: Path, tables: str, log: Path) -> sqlite3.Connection:
    """The database with these tables, made anew where it has others, or is damaged and the log holds everything."""
    try:
        with ExitStack() as opened:
            database = sqlite.connect(path, synchronous="NORMAL")
            opened.callback(database.close)
            with closing(sqlite3.connect(":memory:")) as wanted:
                wanted.executescript(PLACE + tables)
                if _tables(database) in ([], _tables(wanted)):
                    database.executescript(PLACE + tables)
                    opened.pop_all()
                    return database
    except sqlite3.DatabaseError as error:
        damaged = error.sqlite_errorcode in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT)
        if not damaged or _first(log) > 0:
            remedy = "bring it back from a backup, or remove it: it is made anew from what the log still holds"
            raise FileDamaged(f"{path} cannot be read ({error}): {remedy}") from error
    _remove(path)
    return _open(path, tables, log)


def _tables(database: sqlite3.Connection) -> list[str]:
    found = database.execute("SELECT sql FROM sqlite_master WHERE type = 'table'")
    return sorted(" ".join(sql.split()) for (sql,) in found)


def _remove(path: Path) -> None:
    structlog.get_logger().warning("a read model is made anew from the log", file=path.name)
    sqlite.remove(path)


def _first(log: Path) -> int:
    """The first record that the log holds."""
    return next(iter(files.segments(log)), 0)
