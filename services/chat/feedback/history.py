"""The votes that this machine's log holds, to be looked up by id, person, conversation and completion.

The log is the record, and this an index of it (`read_model`): it holds as much as the log does. What the log's
retention removes goes from here too, and so does what its person erased.
"""

from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from rlhf_online.attribution.search import Found, FoundVote, Place
from rlhf_online.errors import KeysUnavailable, LogError, ReadModelUnavailable, UndecodableEvent
from rlhf_online.eventlog import folder as files
from rlhf_online.eventlog.base import PARTITION, Record
from rlhf_online.eventlog.read_model import ReadModel
from rlhf_online.eventlog.tail import LocalReader
from rlhf_online.events import Completion, Erasure, Feedback
from rlhf_online.wire import Header, decode

if TYPE_CHECKING:
    from rlhf_online.keystore.keyring import Keyring

FILE = "votes.sqlite"
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


class VoteHistory(ReadModel):
    """The index of the log in `folder`, beside its segments."""

    tables: ClassVar[str] = """
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

    def __init__(self, folder: Path, keys: "Keyring | None" = None) -> None:
        super().__init__(folder / FILE, folder, keys)

    def find(self, event_id: str, person: str) -> RecordedVote | None:
        """The person's vote of that id."""
        self.catch_up()
        rows = self.rows(f"{COLUMNS} WHERE v.event_id = ? AND v.person = ?", (event_id, person))
        return next(self._recorded(rows), None)

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
        rows = self.rows(f"{COLUMNS} {where} ORDER BY v.number DESC LIMIT :limit", values)
        return list(self._recorded(rows))

    def unvoted(self, before: str, limit: int) -> list[str]:
        """Completions that nobody has voted on, newest first, behind the completion `before`, if given."""
        self.catch_up()
        where = "AND number < (SELECT number FROM completions WHERE completion = :before)" if before else ""
        query = f"""SELECT completion FROM completions c WHERE NOT EXISTS
            (SELECT 1 FROM judged j WHERE j.completion = c.completion) {where} ORDER BY number DESC LIMIT :limit"""
        return [completion for (completion,) in self.rows(query, {"before": before, "limit": limit})]

    def found(self, completion_id: str) -> Found:
        """The completion and the votes on it, with their places: what the log holds, and nobody erased."""
        self.catch_up()
        found = Found(first={PARTITION: next(iter(files.segments(self._folder)), 0)})
        query = "SELECT number FROM completions WHERE completion = ?"
        for (number,) in self.rows(query, (completion_id,)):
            for completion in self.exchanges([completion_id]):
                found.completion, found.place = completion, Place(PARTITION, number)
        query = COLUMNS.replace("SELECT v.record", "SELECT v.number, v.record")
        where = "WHERE v.number IN (SELECT number FROM judged WHERE completion = ?) ORDER BY v.number"
        for number, record, replaced_by in self.rows(f"{query} {where}", (completion_id,)):
            for vote in self._recorded([(record, replaced_by)]):
                found.votes[vote.event_id] = FoundVote(vote.event_id, vote.vote, Place(PARTITION, number))
                if vote.replaced_by:
                    found.replaced[vote.event_id, vote.vote.person] = vote.replaced_by
        return found

    def segment(self, number: int) -> str:
        """The log's file that holds the record; "" if it is gone. Raises OSError."""
        return files.segment_of(self._folder, number)

    def exchanges(self, completions: Collection[str]) -> Iterator[Completion]:
        """Those of these ids that the log holds, in its order."""
        self.catch_up()
        query = "SELECT number FROM completions WHERE completion = ?"
        found = sorted(row for each in set(completions) for row in self.rows(query, (each,)))
        with LocalReader(self._folder) as log:
            for (number,) in found:
                with suppress(LogError, UndecodableEvent):
                    records, _ = log.read({PARTITION: number}, 1)
                    event = decode(records[0].payload, self.keys).event
                    if isinstance(event, Completion):  # and is not shredded
                        yield event

    def apply(self, record: Record, header: Header) -> None:
        if header.kind is Completion:
            row = (header.event_id, header.key, record.offset)
            self.execute("INSERT OR IGNORE INTO completions VALUES (?, ?, ?)", row)
        if header.kind in (Feedback, Erasure):
            event = decode(record.payload, self.keys).event
            if isinstance(event, Erasure):
                self._erase(event)
            elif isinstance(event, Feedback):
                self._add(record, header.event_id, event)

    def trim(self, first: int) -> None:
        for table in ("votes", "judged", "completions"):
            self.execute(f"DELETE FROM {table} WHERE number < ?", (first,))

    def _add(self, record: Record, event_id: str, vote: Feedback) -> None:
        row = (record.offset, event_id, vote.person, vote.conversation_id, vote.replaces, record.payload)
        if self.execute("INSERT OR IGNORE INTO votes VALUES (?, ?, ?, ?, ?, ?)", row).rowcount:
            for completion in {ref.completion_id for ref in vote.answers()}:
                self.execute("INSERT OR IGNORE INTO judged VALUES (?, ?)", (completion, record.offset))

    def _erase(self, erasure: Erasure) -> None:
        """Forget the person's votes in the conversation that they erased, or all of them."""
        votes = """SELECT number FROM votes WHERE person = ? AND (conversation = ? OR number IN (
            SELECT j.number FROM completions c JOIN judged j USING (completion) WHERE c.conversation = ?
        ))"""
        whose = (erasure.person, erasure.conversation_id, erasure.conversation_id)
        if erasure.whole:
            votes, whose = "SELECT number FROM votes WHERE person = ?", whose[:1]
        self.scrub()
        for gone in self.execute(votes, whose).fetchall():
            for table in ("votes", "judged"):
                self.execute(f"DELETE FROM {table} WHERE number = ?", gone)

    def _recorded(self, rows: Iterable[tuple[Any, ...]]) -> Iterator[RecordedVote]:
        """Of (record, what replaced it), without those that are shredded. Raises ReadModelUnavailable."""
        for record, replaced_by in rows:
            try:
                envelope = decode(record, self.keys)
            except KeysUnavailable as error:
                raise ReadModelUnavailable(str(error)) from error
            if isinstance(envelope.event, Feedback):
                yield RecordedVote(envelope.event_id, envelope.event, replaced_by or "")
