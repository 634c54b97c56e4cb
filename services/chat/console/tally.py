"""Votes, thumbs and swaps counted while the log is read, so that nothing is counted when somebody looks.

    log ──▶ a vote ──────────────────▶ its minute, all votes, those that wait (until `fates` says otherwise)
        ──▶ a thumb, and its answer ─▶ `thumbs` of the version that wrote it
        ──▶ a swap ──────────────────▶ what happened

A database that follows the log (`read_model`), which counts by record, once. The thumbs of a version, of minutes and of
votes in all stay when retention lets go of what they were counted from; made anew, it counts what the log holds.

It counts what this service's log holds: each pod what it took itself. What became of votes is read from the store of
versions, and so is right wherever the trainer runs.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from rlhf_online import sqlite
from rlhf_online.eventlog.base import Record
from rlhf_online.eventlog.read_model import ReadModel
from rlhf_online.events import Completion, Erasure, Feedback, Thumb, VersionChange, Withdrawal, now_ms
from rlhf_online.feedback.outcomes import vote_key
from rlhf_online.wire import Header, decode
from services.chat.console.thumbs import Thumbs

if TYPE_CHECKING:
    from rlhf_online.keystore.keyring import Keyring

NAME = "console.sqlite"
MINUTE_MS = 60_000
MINUTES = 60
KEPT_MINUTES = 24 * 60
KEPT_CHANGES = 10_000
WAITING, SETTLED, TRAINED, LIVE = range(4)
"""States of a vote: TRAINED in a reward version that no live policy has learned from yet."""


class Tally(ReadModel):
    """The database beside the log in `log`."""

    tables: ClassVar[str] = f"""
CREATE TABLE IF NOT EXISTS vote (
    number INTEGER PRIMARY KEY, key TEXT UNIQUE, accepted_ms INTEGER, state INTEGER, reward TEXT
);
CREATE INDEX IF NOT EXISTS waiting ON vote (accepted_ms) WHERE state = {WAITING};
CREATE INDEX IF NOT EXISTS trained ON vote (reward, accepted_ms) WHERE state = {TRAINED};
CREATE TABLE IF NOT EXISTS total (name TEXT PRIMARY KEY, n INTEGER) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS minute (minute INTEGER PRIMARY KEY, votes INTEGER);
CREATE TABLE IF NOT EXISTS answer (
    completion TEXT, place INTEGER, number INTEGER, version TEXT, origin TEXT, PRIMARY KEY (completion, place)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS answer_by_number ON answer (number);
CREATE INDEX IF NOT EXISTS answer_of ON answer (origin) WHERE origin != '';
CREATE TABLE IF NOT EXISTS thumb (
    subject TEXT PRIMARY KEY, number INTEGER, event_id TEXT, person TEXT, completion TEXT, place INTEGER, up INTEGER,
    version TEXT
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS thumb_by_number ON thumb (number);
CREATE INDEX IF NOT EXISTS thumb_by_event ON thumb (event_id);
CREATE INDEX IF NOT EXISTS thumb_on ON thumb (completion, place);
CREATE TABLE IF NOT EXISTS liked (version TEXT PRIMARY KEY, up INTEGER, down INTEGER) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS taught (reward TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS click (n INTEGER PRIMARY KEY, seconds REAL);
CREATE TABLE IF NOT EXISTS change (
    number INTEGER PRIMARY KEY, at_ms INTEGER, version TEXT, state TEXT, previous TEXT, reason TEXT
);
CREATE INDEX IF NOT EXISTS change_at ON change (at_ms);
CREATE TABLE IF NOT EXISTS board (only_row INTEGER PRIMARY KEY CHECK (only_row = 0), number INTEGER, read INTEGER);
"""

    def __init__(self, log: Path, keys: "Keyring | None" = None) -> None:
        super().__init__(log / NAME, log, keys)
        self.thumbs = Thumbs(self)

    # The log

    def apply(self, record: Record, header: Header) -> None:
        match decode(record.payload, self.keys).event:
            case Completion() as completion:
                self.thumbs.add_answers(record.offset, completion)
            case Feedback() as vote:
                self._add_vote(record.offset, header.event_id, vote)
            case Erasure(whole=True, person=person) if person:
                self.thumbs.erase_of(person)
            case Erasure(origin=origin) if origin:
                self.thumbs.erase(origin)
            case VersionChange() as change:
                row = (record.offset, change.changed_ms, change.version, change.state, change.previous, change.reason)
                self.execute("INSERT OR IGNORE INTO change VALUES (?, ?, ?, ?, ?, ?)", row)

    def trim(self, first: int) -> None:
        [(gone,)] = self.execute(
            f"SELECT COUNT(*) FROM vote WHERE number < ? AND state = {WAITING}", (first,)
        ).fetchall()
        self.count("waiting", -gone)
        for table in ("vote", "answer", "thumb"):
            self.execute(f"DELETE FROM {table} WHERE number < ?", (first,))
        self.execute("DELETE FROM minute WHERE minute < ?", (now_ms() // MINUTE_MS - KEPT_MINUTES,))
        kept = "(SELECT number FROM change ORDER BY number DESC LIMIT 1 OFFSET ?)"
        self.execute(f"DELETE FROM change WHERE number <= {kept}", (KEPT_CHANGES,))

    def _add_vote(self, number: int, event_id: str, vote: Feedback) -> None:
        if vote.replaces:
            self.thumbs.take_back(vote.replaces, vote.person)
        if isinstance(vote.kind, Withdrawal):
            return
        row = (number, vote_key(event_id, vote.person), vote.created_ms)
        if not self.execute(f"INSERT OR IGNORE INTO vote VALUES (?, ?, ?, {WAITING}, '')", row).rowcount:
            return  # it was sent twice: the first one counts
        self.count("votes", 1)
        self.count("waiting", 1)
        added = "INSERT INTO minute VALUES (?, 1) ON CONFLICT (minute) DO UPDATE SET votes = votes + 1"
        self.execute(added, (vote.created_ms // MINUTE_MS,))
        if isinstance(vote.kind, Thumb) and not vote.by_ai:
            self.thumbs.add(number, event_id, vote, vote.kind)

    def count(self, name: str, by: int) -> None:
        change = "INSERT INTO total VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET n = n + ?2"
        self.execute(change, (name, by))

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """For what is taken in from elsewhere than the log. Raises ReadModelUnavailable."""
        with self._at_work(), sqlite.transaction(self._database):
            yield

    # What is asked

    def total(self) -> int:
        """Votes that were taken."""
        return self._total("votes")

    def waiting(self) -> tuple[int, int]:
        """Votes of which nothing has become yet, and when the oldest of them was taken."""
        found = self.rows(f"SELECT accepted_ms FROM vote WHERE state = {WAITING} ORDER BY accepted_ms LIMIT 1")
        return self._total("waiting"), found[0][0] if found else 0

    def minutes(self, last: int) -> list[int]:
        """Votes of the MINUTES up to the minute `last`."""
        query = "SELECT minute, votes FROM minute WHERE minute > ? AND minute <= ?"
        found = dict(self.rows(query, (last - MINUTES, last)))
        return [found.get(minute, 0) for minute in range(last - MINUTES + 1, last + 1)]

    def take_liked(self) -> set[str]:
        """The versions whose thumbs have changed since the last time."""
        with self._at_work():
            return self.thumbs.take_changed()

    def changes(self, before_ms: int, limit: int) -> list[tuple[int, str, str, str, str]]:
        """(time, version, state, previous, reason) of what the engine began to serve or refused, the newest first."""
        query = "SELECT at_ms, version, state, previous, reason FROM change WHERE at_ms < ? ORDER BY at_ms DESC LIMIT ?"
        return self.rows(query, (before_ms, limit))

    def served_ms(self, version: str) -> int:
        """When the engine here began to serve the version; 0 if it did not."""
        [[found]] = self.rows(
            "SELECT COALESCE(MIN(at_ms), 0) FROM change WHERE version = ? AND state = 'live'", (version,)
        )
        return found

    def last_change_ms(self) -> int:
        """When the newest of them was; 0 before the first."""
        [[found]] = self.rows("SELECT COALESCE(MAX(at_ms), 0) FROM change", ())
        return found

    def _total(self, name: str) -> int:
        found = self.rows("SELECT n FROM total WHERE name = ?", (name,))
        return found[0][0] if found else 0
