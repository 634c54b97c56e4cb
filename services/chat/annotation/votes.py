"""What the log says of the annotators' queue: votes that settle an item or are taken back, and erasures."""

import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import orjson

from rlhf_online import sqlite
from rlhf_online.eventlog.base import Record
from rlhf_online.eventlog.read_model import ReadModel
from rlhf_online.events import AnswerRef, Erasure, Feedback, Pairwise, Ranking, Thumb
from rlhf_online.wire import Header, decode
from services.chat.annotation.database import ERASED, QueueDatabase, settle

if TYPE_CHECKING:
    from rlhf_online.keystore.keyring import Keyring

FILE = "annotation.sqlite"
LEASE_MS = 30 * 60_000
"""How long an item stays with a person who does not come back."""


class QueueVotes(ReadModel):
    """Follows the log in `log` into the queue's database. From any thread.

    Its own file holds the place in the log alone, and is written after the rows: what is read again after a crash
    changes nothing. Beside a queue that is new it begins anew.
    """

    tables: ClassVar[str] = ""

    def __init__(self, database: QueueDatabase, log: Path, keys: "Keyring | None" = None) -> None:
        if database.is_new:
            sqlite.remove(database.path.with_name(FILE))
        super().__init__(database.path.with_name(FILE), log, keys)
        self._queue = database
        self.taken = 0
        """Changes with every vote that was taken in."""

    def close(self) -> None:
        """And the queue's database."""
        super().close()
        self._queue.close()

    def apply(self, record: Record, header: Header) -> None:
        if header.kind not in (Feedback, Erasure):
            return
        event = decode(record.payload, self.keys).event
        if isinstance(event, Erasure):
            with self._queue.transaction() as database:
                erase(database, event)
        elif isinstance(event, Feedback) and (event.annotation_item or event.replaces):
            with self._queue.transaction() as database:
                self.taken += take_vote(database, header.event_id, event)

    def trim(self, first: int) -> None:
        """What was judged stays judged; of what was erased nothing stays in the file."""
        self._queue.scrub()


def take_vote(database: sqlite3.Connection, event_id: str, vote: Feedback) -> bool:
    """A vote settles the item that it names; once it is taken back the item is its person's again for a while.

    False if it has nothing to do with the queue. An item that is not there has its votes all the same: it may be added
    again.
    """
    changed = False
    if vote.replaces:
        query = """UPDATE given SET state = 'held', until_ms = ?, event_id = '', said = ''
            WHERE event_id = ? AND person = ? RETURNING item_id"""
        for (item_id,) in database.execute(query, (vote.created_ms + LEASE_MS, vote.replaces, vote.person)).fetchall():
            settle(database, item_id)
            changed = True
    if vote.annotation_item:
        row = (vote.annotation_item, vote.person, names(vote.shown), event_id, orjson.dumps(judgement(vote)).decode())
        database.execute(
            """INSERT INTO given VALUES (?, ?, 'done', 0, ?, '', ?, ?) ON CONFLICT DO UPDATE SET
            state = 'done', event_id = excluded.event_id, said = excluded.said""",
            row,
        )
        settle(database, vote.annotation_item)
        changed = True
    return changed


def erase(database: sqlite3.Connection, erasure: Erasure) -> None:
    """The items that show something of a conversation, as far as it was asked before, and whom they were given to; of
    who erased everything also what they were given, made of it, and said when they left it to others."""
    covered = "item_id IN (SELECT item_id FROM stems_from WHERE origin = ? AND asked_ms <= ?)"
    for table in ("given", "item", "stems_from"):
        deleted = database.execute(f"DELETE FROM {table} WHERE {covered}", (erasure.origin, erasure.erased_ms)).rowcount
        if deleted:
            database.execute(f"PRAGMA user_version = {ERASED}")
    if erasure.whole:
        query = "DELETE FROM given WHERE person = ? RETURNING item_id"
        for (item_id,) in database.execute(query, (erasure.person,)).fetchall():
            settle(database, item_id)
            database.execute(f"PRAGMA user_version = {ERASED}")
    database.execute("INSERT OR REPLACE INTO erased VALUES (?, ?)", (erasure.origin, erasure.erased_ms))


def judgement(vote: Feedback) -> bool | list[list[str]]:
    """What the vote says of its item: good or bad, or an order of its answers, empty if the person was unsure."""
    match vote.kind:
        case Thumb(up=up):
            return up
        case Pairwise(chosen=chosen, rejected=rejected, tie=tie, unsure=unsure):
            tiers = [] if unsure else [[chosen, rejected]] if tie else [[chosen], [rejected]]
        case Ranking(tiers=ranked):
            tiers = [list(tier) for tier in ranked]
        case _:
            tiers = []
    return [[name(ref) for ref in tier] for tier in tiers]


def name(ref: AnswerRef) -> str:
    """An answer's name in the database."""
    return f"{ref.index} {ref.completion_id}"


def names(refs: Sequence[AnswerRef]) -> str:
    """Several, as they were shown."""
    return orjson.dumps([name(ref) for ref in refs]).decode()
