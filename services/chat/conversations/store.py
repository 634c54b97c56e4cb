"""Conversations and votes by person, in a database beside the log, which it follows.

    log ──▶ follow: read on from where the last transaction stood ──▶ one transaction: rows and the new place

The log is what is true: it has what was acknowledged, and retention keeps what was not read here yet (`READER`). What a
transaction lacks after a crash is read again. The database is needed since the log is in the order of time and does
not last, and so that a person can have what is theirs removed from it.

What nobody's name stands under is not kept: nobody could ask for it. An erased exchange leaves its id, so that a vote
on it is not kept either, and nothing else; SQLite overwrites what is deleted (`secure_delete`).
"""

import os
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import orjson

from rlhf_online.durable import make_folder
from rlhf_online.errors import FileDamaged, UndecodableEvent
from rlhf_online.eventlog.base import PARTITION, Position, Record, has_reached
from rlhf_online.eventlog.tail import LocalReader
from rlhf_online.events import Completion, Envelope, Erasure, Feedback, now_ms
from rlhf_online.wire import decode
from services.chat.conversations.rows import exchange_row, vote_row

READER = "conversations"
BATCH = 256
"""Records of a transaction."""
MARK_S = 10.0
"""How often the log is told what was taken in."""
DAY_MS = 86_400_000
NAME = "conversations.sqlite"
SCHEMA = """
CREATE TABLE IF NOT EXISTS place (only_row INTEGER PRIMARY KEY CHECK (only_row = 0), log TEXT, position INTEGER);
CREATE TABLE IF NOT EXISTS exchange (
    completion_id TEXT PRIMARY KEY, person TEXT, conversation_id TEXT, started_ms INTEGER, finished_ms INTEGER,
    comparison_id TEXT, title TEXT, said BLOB
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS exchange_of ON exchange (person, conversation_id, started_ms);
CREATE TABLE IF NOT EXISTS vote (
    event_id TEXT PRIMARY KEY, person TEXT, completion_id TEXT, comparison_id TEXT, compares INTEGER,
    created_ms INTEGER, said BLOB
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS vote_of ON vote (person, completion_id);
CREATE INDEX IF NOT EXISTS vote_on ON vote (comparison_id) WHERE comparison_id != '';
CREATE TABLE IF NOT EXISTS erased (
    person TEXT, conversation_id TEXT, erased_ms INTEGER, PRIMARY KEY (person, conversation_id)
) WITHOUT ROWID;
"""


class ConversationStore:
    """The database in `folder`, which is made, and the log in `log`. From any thread.

    `keep_days`: what is older goes; 0 keeps all. Raises FileDamaged for a database that cannot be read.
    """

    def __init__(self, folder: Path, log: Path, keep_days: float = 0.0) -> None:
        self._keep_ms = int(keep_days * DAY_MS)
        self._lock = threading.Lock()
        make_folder(folder, mode=0o700)
        path = folder / NAME
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))  # SQLite's other files get the same mode
        try:
            self._database = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
            for pragma in ("journal_mode = WAL", "synchronous = FULL", "secure_delete = ON"):
                self._database.execute(f"PRAGMA {pragma}")
            self._database.executescript(SCHEMA)
        except sqlite3.DatabaseError as error:
            remedy = "bring it back from a backup, or remove it: it is made anew from what the log still holds"
            raise FileDamaged(f"{path} cannot be read ({error}): {remedy}") from error
        self._log = LocalReader(log)
        self._at: Position | None = None
        self._marked_s = 0.0

    def close(self) -> None:
        with self._lock:
            self._log.close()
            self._database.close()

    def end(self) -> Position:
        """Where the log stands. Raises LogUnavailable."""
        with self._lock:
            return self._log.end()

    def follow(self) -> Position:
        """Take in the log's next records, as many as one transaction holds; the place reached.

        Raises LogError, sqlite3.Error: it may be called again.
        """
        with self._lock:
            if self._at is None:
                self._at = self._resumed()
            records, reached = self._log.read(self._at, BATCH)
            if records:
                self._commit(records, reached)
            self._at = reached
            if time.monotonic() > self._marked_s + MARK_S:
                self._log.mark_consumed(READER, reached)
                self._marked_s = time.monotonic()
            return reached

    def follow_to(self, end: Position) -> bool:
        """Follow until `end` was taken in; False if the log gives no more before that."""
        before: Position = {}
        while not has_reached(reached := self.follow(), end):
            if reached == before:
                return False
            before = reached
        return True

    def conversations(self, person: str, after: str, limit: int) -> list[tuple[Any, ...]]:
        """(id, title, begun, changed, exchanges) of the person's, the last changed first, behind the one `after`."""
        return self._rows(
            """
            WITH own AS (
                SELECT conversation_id AS id, MIN(started_ms) AS begun, MAX(finished_ms) AS changed, COUNT(*) AS count
                FROM exchange WHERE person = ? GROUP BY conversation_id
            )
            SELECT id, (SELECT title FROM exchange WHERE person = ? AND conversation_id = id
                        ORDER BY started_ms, completion_id LIMIT 1), begun, changed, count
            FROM own WHERE ? = '' OR (changed, id) < (SELECT changed, id FROM own WHERE id = ?)
            ORDER BY changed DESC, id DESC LIMIT ?
            """,
            (person, person, after, after, limit),
        )

    def exchanges(self, person: str, conversation_id: str, after: str, limit: int) -> list[dict[str, Any]]:
        """Of one of the person's conversations, in the order in which they were asked, behind the one `after`.

        Who wrote the answers of a comparison is left out before its person has compared them.
        """
        rows = self._rows(
            """
            SELECT said, comparison_id != '' AND NOT EXISTS (
                SELECT 1 FROM vote WHERE vote.comparison_id = exchange.comparison_id AND compares
                AND vote.person = exchange.person
            ) FROM exchange
            WHERE person = ? AND conversation_id = ? AND (? = '' OR (started_ms, completion_id) > (
                SELECT started_ms, completion_id FROM exchange WHERE completion_id = ? AND person = ?
            ))
            ORDER BY started_ms, completion_id LIMIT ?
            """,
            (person, conversation_id, after, after, person, limit),
        )
        exchanges = [_blind(orjson.loads(said)) if blind else orjson.loads(said) for said, blind in rows]
        votes = "SELECT said FROM vote WHERE person = ? AND completion_id = ? ORDER BY created_ms, event_id"
        for exchange in exchanges:
            found = self._rows(votes, (person, exchange["completion_id"]))
            exchange["votes"] = [orjson.loads(said) for (said,) in found]
        return exchanges

    def votes(self, person: str) -> Iterator[dict[str, Any]]:
        """All of the person's votes, the oldest first, whoever asked for the answers."""
        after = (-1, "")
        query = """
            SELECT created_ms, event_id, said FROM vote WHERE person = ? AND (created_ms, event_id) > (?, ?)
            ORDER BY created_ms, event_id LIMIT ?
            """
        while rows := self._rows(query, (person, *after, BATCH)):
            yield from (orjson.loads(said) for _, _, said in rows)
            after = rows[-1][:2]

    def prompts(self, person: str, limit: int) -> list[list[dict[str, Any]]]:
        """The messages of what the person asked last."""
        query = "SELECT said FROM exchange WHERE person = ? ORDER BY finished_ms DESC LIMIT ?"
        return [orjson.loads(said)["messages"] for (said,) in self._rows(query, (person, limit))]

    def _rows(self, query: str, values: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        with self._lock:
            return self._database.execute(query, values).fetchall()

    def _commit(self, records: Sequence[Record], reached: Position) -> None:
        with self._database:
            self._database.execute("BEGIN IMMEDIATE")
            for record in records:
                try:
                    self._take_in(decode(record.payload))
                except UndecodableEvent:  # the trainer sets it aside
                    continue
            place = (self._log.identity(), reached[PARTITION])
            self._database.execute("INSERT OR REPLACE INTO place VALUES (0, ?, ?)", place)
            if self._keep_ms:
                limit = (now_ms() - self._keep_ms,)
                self._database.execute("DELETE FROM exchange WHERE person != '' AND finished_ms < ?", limit)
                self._database.execute("DELETE FROM vote WHERE created_ms < ?", limit)

    def _resumed(self) -> Position:
        """Where to read on: in another log, or behind a gap, from what there is."""
        found = self._database.execute("SELECT log, position FROM place").fetchone()
        if found is None:
            return {}
        log, position = found
        return self._log.resume_position(log, {PARTITION: position})[0]

    def _take_in(self, envelope: Envelope) -> None:
        match envelope.event:
            case Completion() as exchange if exchange.person:
                self._add_exchange(exchange)
            case Feedback() as vote if vote.person and vote.answers():
                erased = "SELECT 1 FROM exchange WHERE completion_id = ? AND person = ''"
                if not self._database.execute(erased, (vote.answers()[0].completion_id,)).fetchone():
                    row = vote_row(envelope.event_id, vote)
                    self._database.execute("INSERT OR IGNORE INTO vote VALUES (?, ?, ?, ?, ?, ?, ?)", row)
            case Erasure() as erasure if erasure.person:
                self._erase(erasure)

    def _add_exchange(self, exchange: Completion) -> None:
        said = "SELECT erased_ms FROM erased WHERE person = ? AND conversation_id = ?"
        erased = self._database.execute(said, (exchange.person, exchange.conversation_id)).fetchone()
        row = exchange_row(exchange)
        if erased is not None and exchange.started_ms <= erased[0]:
            row = (exchange.completion_id, "", "", 0, 0, "", "", b"")
        self._database.execute("INSERT OR IGNORE INTO exchange VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)

    def _erase(self, erasure: Erasure) -> None:
        whose = (erasure.person, erasure.conversation_id)
        covered = (*whose, erasure.erased_ms)
        self._database.execute(
            """
            DELETE FROM vote WHERE completion_id IN (
                SELECT completion_id FROM exchange WHERE person = ? AND conversation_id = ? AND started_ms <= ?
            )
            """,
            covered,
        )
        self._database.execute(
            """
            UPDATE exchange SET person = '', conversation_id = '', started_ms = 0, finished_ms = 0,
                comparison_id = '', title = '', said = x''
            WHERE person = ? AND conversation_id = ? AND started_ms <= ?
            """,
            covered,
        )
        self._database.execute("INSERT OR REPLACE INTO erased VALUES (?, ?, ?)", covered)


def _blind(exchange: dict[str, Any]) -> dict[str, Any]:
    for answer in exchange["answers"]:
        answer["versions"] = []
    return exchange
