"""The votes that this machine's log holds, to be looked up by id, person, conversation and completion.

The log is the record, and this an index of it (SQLite, beside the log's segments): it follows the log by its position,
which is stored with what was read, so that nothing is missed over restarts and kills. It holds as much as the log does:
what the log's retention removes goes from here too, and so does what its person erased. If it is lost or damaged it is
made anew.
"""

import asyncio
import sqlite3
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import structlog

from rlhf_online.errors import LogError, PositionLost, UndecodableEvent
from rlhf_online.eventlog import folder as files
from rlhf_online.eventlog.base import PARTITION, Record
from rlhf_online.eventlog.tail import LocalReader
from rlhf_online.events import Completion, Erasure, Feedback
from rlhf_online.wire import decode, peek

FILE = "votes.sqlite"
FOLLOW_S = 1.0
READ_RECORDS = 1000
SCHEMA = """
CREATE TABLE IF NOT EXISTS progress (log TEXT, number INTEGER);
CREATE TABLE IF NOT EXISTS votes (
  number INTEGER PRIMARY KEY, event_id TEXT UNIQUE, person TEXT, conversation TEXT, replaces TEXT, record BLOB
);
CREATE INDEX IF NOT EXISTS by_person ON votes (person, number);
CREATE INDEX IF NOT EXISTS by_replaces ON votes (replaces) WHERE replaces != '';
CREATE TABLE IF NOT EXISTS judged (completion TEXT, number INTEGER, PRIMARY KEY (completion, number)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS judged_by_vote ON judged (number);
CREATE TABLE IF NOT EXISTS completions (completion TEXT PRIMARY KEY, conversation TEXT, number INTEGER) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS by_conversation ON completions (conversation);
CREATE INDEX IF NOT EXISTS completions_by_number ON completions (number);
"""
COLUMNS = """
SELECT v.record, (SELECT b.event_id FROM votes b WHERE b.replaces = v.event_id AND b.replaces != ''
                  AND b.person = v.person ORDER BY b.number DESC LIMIT 1)
FROM votes v
"""


@dataclass(frozen=True, slots=True)
class RecordedVote:
    """A vote of the log; `replaced_by` is the last one of the same person that names it, "" without."""

    event_id: str
    vote: Feedback
    replaced_by: str


class VoteHistory:
    """The index of the log in `folder`. From any thread."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._log = LocalReader(folder)
        self._database = self._open()

    def close(self) -> None:
        with self._lock:
            self._database.close()
            self._log.close()

    async def follow(self) -> None:
        """Keep up with the log, until cancelled."""
        while True:
            await asyncio.to_thread(self.catch_up)
            await asyncio.sleep(FOLLOW_S)

    def catch_up(self, within_s: float = FOLLOW_S) -> None:
        """Read what the log holds by now, as far as that goes in time. A log that cannot be read is read later."""
        until = time.monotonic() + within_s
        try:
            with self._lock:
                while self._read() and time.monotonic() < until:
                    pass
        except (LogError, OSError, sqlite3.Error) as error:
            structlog.get_logger().warning("the log's votes cannot be looked up", why=str(error))

    def find(self, event_id: str, person: str) -> RecordedVote | None:
        """The person's vote of that id."""
        self.catch_up()
        with self._lock:
            rows = self._database.execute(f"{COLUMNS} WHERE v.event_id = ? AND v.person = ?", (event_id, person))
            return next((_recorded(*row) for row in rows), None)

    def page(
        self, person: str, *, conversation: str = "", completion: str = "", after: str = "", limit: int
    ) -> list[RecordedVote]:
        """The person's votes, newest first, behind the vote `after`; of one conversation or completion, if given."""
        self.catch_up()
        where, values = "WHERE v.person = :person", {"person": person, "limit": limit}
        if conversation:
            where += """ AND (v.conversation = :conversation OR v.number IN (
                SELECT j.number FROM completions c JOIN judged j USING (completion) WHERE c.conversation = :conversation
            ))"""
            values["conversation"] = conversation
        if completion:
            where += " AND v.number IN (SELECT number FROM judged WHERE completion = :completion)"
            values["completion"] = completion
        if after:
            where += " AND v.number < (SELECT number FROM votes WHERE event_id = :after AND person = :person)"
            values["after"] = after
        with self._lock:
            rows = self._database.execute(f"{COLUMNS} {where} ORDER BY v.number DESC LIMIT :limit", values)
            return [_recorded(*row) for row in rows]

    def _open(self) -> sqlite3.Connection:
        path = self._folder / FILE
        for _ in range(2):
            database = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
            try:
                database.execute("PRAGMA journal_mode = WAL")
                database.execute("PRAGMA secure_delete = ON")
                database.execute("PRAGMA synchronous = NORMAL")
                database.executescript(SCHEMA)
                return database
            except sqlite3.DatabaseError as error:
                structlog.get_logger().warning("the index of votes is made anew", why=str(error))
                database.close()
                for suffix in ("", "-wal", "-shm"):
                    path.with_name(path.name + suffix).unlink(missing_ok=True)
        raise LogError(f"{path} cannot be written: look at the disk")

    def _read(self) -> bool:
        """Take in some records and the position after them, at once; False if there were none."""
        identity = self._log.identity()
        stored = self._database.execute("SELECT log, number FROM progress").fetchone()
        first = next(iter(files.segments(self._folder)), 0)
        number = stored[1] if stored and stored[0] == identity else -1
        if number > self._log.end()[PARTITION]:
            number = -1  # the log was put back to an earlier state
        try:
            records, position = self._log.read({PARTITION: number} if number >= 0 else {}, READ_RECORDS)
        except PositionLost:
            records, position = self._log.read({}, READ_RECORDS)
        if not records and number == position[PARTITION]:
            return False
        with self._database:
            self._database.execute("BEGIN")
            gone = "1" if number < 0 else "number < ?"
            for table in ("votes", "judged", "completions"):
                self._database.execute(f"DELETE FROM {table} WHERE {gone}", () if number < 0 else (first,))
            for record in records:
                self._take_in(record)
            self._database.execute("DELETE FROM progress")
            self._database.execute("INSERT INTO progress VALUES (?, ?)", (identity, position[PARTITION]))
        return bool(records)

    def _take_in(self, record: Record) -> None:
        if record.damage:
            return
        try:
            header = peek(record.payload)
            if header.kind is Completion:
                row = (header.event_id, header.key, record.offset)
                self._database.execute("INSERT OR IGNORE INTO completions VALUES (?, ?, ?)", row)
            if header.kind not in (Feedback, Erasure):
                return
            vote = decode(record.payload).event
        except UndecodableEvent:
            return
        if isinstance(vote, Erasure):
            self._erase(vote)
            return
        assert isinstance(vote, Feedback)
        row = (record.offset, header.event_id, vote.person, vote.conversation_id, vote.replaces, record.payload)
        if self._database.execute("INSERT OR IGNORE INTO votes VALUES (?, ?, ?, ?, ?, ?)", row).rowcount:
            for completion in {ref.completion_id for ref in vote.answers()}:
                self._database.execute("INSERT OR IGNORE INTO judged VALUES (?, ?)", (completion, record.offset))

    def _erase(self, erasure: Erasure) -> None:
        """Forget the person's votes in the conversation that they erased."""
        votes = """SELECT number FROM votes WHERE person = ? AND (conversation = ? OR number IN (
            SELECT j.number FROM completions c JOIN judged j USING (completion) WHERE c.conversation = ?
        ))"""
        whose = (erasure.person, erasure.conversation_id, erasure.conversation_id)
        gone = self._database.execute(votes, whose).fetchall()
        for table in ("votes", "judged"):
            self._database.executemany(f"DELETE FROM {table} WHERE number = ?", gone)


def _recorded(record: bytes, replaced_by: str | None) -> RecordedVote:
    envelope = decode(record)
    assert isinstance(envelope.event, Feedback)
    return RecordedVote(envelope.event_id, envelope.event, replaced_by or "")
