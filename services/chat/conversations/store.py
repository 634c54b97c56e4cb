"""Conversations and votes by person, in a database that follows the log (`read_model`).

It is needed since the log is in the order of time and does not last, and so that a person can have what is theirs
removed from it.

With people's keys what was said is sealed here too, so that a copy of the file says nothing once a key is deleted.

What nobody's name stands under is not kept: nobody could ask for it. An erased exchange leaves its id and the time, so
that a vote on it is not kept either, and nothing else. The oldest goes, whosesoever, once it is older than `keep_days`,
or once all is larger than `keep_gib`.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import orjson

from rlhf_online.eventlog.base import Record
from rlhf_online.eventlog.read_model import BATCH, ReadModel
from rlhf_online.events import Completion, Erasure, Feedback, now_ms
from rlhf_online.wire import Header, decode
from services.chat.conversations.rows import exchange_row, opened, opened_title, sealed, titled, vote_row

if TYPE_CHECKING:
    from rlhf_online.keystore.keyring import Keyring

DAY_MS = 86_400_000
AT_ONCE = 64
"""Exchanges and votes that go before the size is looked at again."""
ROUNDS = 400
"""So many times at most before others get at the database."""
NAME = "conversations.sqlite"
NOTHING = b'{"messages":[],"answers":[]}'
"""What an exchange says that was erased meanwhile."""


class ConversationStore(ReadModel):
    """The database in `folder`, and the log in `log`. 0 as `keep_days` or `keep_gib` is no limit."""

    tables: ClassVar[str] = """
CREATE TABLE IF NOT EXISTS exchange (
    completion_id TEXT PRIMARY KEY, person TEXT, conversation_id TEXT, started_ms INTEGER, finished_ms INTEGER,
    comparison_id TEXT, title TEXT, said BLOB
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS exchange_of ON exchange (person, conversation_id, started_ms);
CREATE INDEX IF NOT EXISTS exchange_age ON exchange (finished_ms);
CREATE TABLE IF NOT EXISTS vote (
    event_id TEXT PRIMARY KEY, person TEXT, completion_id TEXT, comparison_id TEXT, compares INTEGER,
    created_ms INTEGER, said BLOB
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS vote_of ON vote (person, completion_id);
CREATE INDEX IF NOT EXISTS vote_age ON vote (created_ms);
CREATE INDEX IF NOT EXISTS vote_on ON vote (comparison_id) WHERE comparison_id != '';
CREATE TABLE IF NOT EXISTS erased (
    person TEXT, conversation_id TEXT, erased_ms INTEGER, PRIMARY KEY (person, conversation_id)
) WITHOUT ROWID;
"""

    def __init__(
        self,
        folder: Path,
        log: Path,
        *,
        keep_days: float = 0.0,
        keep_gib: float = 0.0,
        keys: "Keyring | None" = None,
    ) -> None:
        self._keep_ms = int(keep_days * DAY_MS)
        self._keep_bytes = int(keep_gib * 2**30)
        super().__init__(folder / NAME, log, keys)

    def apply(self, record: Record, header: Header) -> None:
        match decode(record.payload, self.keys).event:
            case Completion() as exchange if exchange.person:
                self._add_exchange(exchange)
            case Feedback() as vote if vote.person and vote.answers():
                erased = "SELECT 1 FROM exchange WHERE completion_id = ? AND person = ''"
                if not self.execute(erased, (vote.answers()[0].completion_id,)).fetchone():
                    *row, said = vote_row(header.event_id, vote)
                    if (said := sealed(self.keys, vote.person, said, header.event_id)) is not None:
                        self.execute("INSERT OR IGNORE INTO vote VALUES (?, ?, ?, ?, ?, ?, ?)", (*row, said))
            case Erasure() as erasure if erasure.person:
                self._erase(erasure)

    def trim(self, first: int) -> None:
        if self._keep_ms:
            self._drop(now_ms() - self._keep_ms)
        for _ in range(ROUNDS):
            if not self._keep_bytes or self._size() <= self._keep_bytes:
                break
            ages = "SELECT finished_ms AS at_ms FROM exchange UNION ALL SELECT created_ms FROM vote"
            oldest = self.execute(f"{ages} ORDER BY at_ms LIMIT 1 OFFSET ?", (AT_ONCE - 1,)).fetchone()
            self._drop(oldest[0] if oldest else now_ms())

    def _size(self) -> int:
        """Bytes in use; what was freed is written to before the file grows."""
        pages, free, size = (
            self.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count", "page_size")
        )
        return (pages - free) * size

    def _drop(self, until_ms: int) -> None:
        for table, at_ms in (("exchange", "finished_ms"), ("vote", "created_ms"), ("erased", "erased_ms")):
            self.execute(f"DELETE FROM {table} WHERE {at_ms} <= ?", (until_ms,))

    def conversations(self, person: str, after: str, limit: int) -> list[tuple[Any, ...]]:
        """(id, title, begun, changed, exchanges) of the person's, the last changed first, behind the one `after`."""
        rows = self.rows(
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
        return [(name, opened_title(self.keys, person, name, title), *rest) for name, title, *rest in rows]

    def names(self, person: str) -> list[str]:
        """Of all of the person's conversations."""
        query = "SELECT DISTINCT conversation_id FROM exchange WHERE person = ?"
        return [name for (name,) in self.rows(query, (person,))]

    def exchanges(self, person: str, conversation_id: str, after: str, limit: int) -> list[dict[str, Any]]:
        """Of one of the person's conversations, in the order in which they were asked, behind the one `after`.

        Who wrote the answers of a comparison is left out before its person has compared them.
        """
        rows = self.rows(
            """
            SELECT completion_id, said, comparison_id != '' AND NOT EXISTS (
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
        exchanges: list[dict[str, Any]] = []
        votes = "SELECT event_id, said FROM vote WHERE person = ? AND completion_id = ? ORDER BY created_ms, event_id"
        for completion_id, kept, blind in rows:
            if (said := opened(self.keys, person, kept, completion_id)) is None:
                continue
            exchange = _blind(orjson.loads(said)) if blind else orjson.loads(said)
            exchange["votes"] = list(self._said(person, self.rows(votes, (person, completion_id))))
            exchanges.append(exchange)
        return exchanges

    def erased_ms(self, person: str, conversation_id: str) -> int:
        """When the person erased their conversation last; 0 if they did not, or long ago."""
        query = "SELECT erased_ms FROM erased WHERE person = ? AND conversation_id IN (?, '')"
        return max((ms for (ms,) in self.rows(query, (person, conversation_id))), default=0)

    def newest(self, before: tuple[int, str], limit: int) -> list[tuple[Any, ...]]:
        """(ended, completion, person, conversation, said) of whosesoever, those that ended last first, behind the one
        that ended at that time and has that id."""
        query = """
            SELECT finished_ms, completion_id, person, conversation_id, said FROM exchange
            WHERE person != '' AND (finished_ms, completion_id) < (?, ?)
            ORDER BY finished_ms DESC, completion_id DESC LIMIT ?
            """
        return [
            (*row, person, conversation, opened(self.keys, person, said, row[1]) or NOTHING)
            for *row, person, conversation, said in self.rows(query, (*before, limit))
        ]

    def votes(self, person: str) -> Iterator[dict[str, Any]]:
        """All of the person's votes, the oldest first, whoever asked for the answers."""
        after = (-1, "")
        query = """
            SELECT created_ms, event_id, said FROM vote WHERE person = ? AND (created_ms, event_id) > (?, ?)
            ORDER BY created_ms, event_id LIMIT ?
            """
        while rows := self.rows(query, (person, *after, BATCH)):
            yield from self._said(person, (row[1:] for row in rows))
            after = rows[-1][:2]

    def prompts(self, person: str, limit: int) -> list[list[dict[str, Any]]]:
        """The messages of what the person asked last."""
        query = "SELECT completion_id, said FROM exchange WHERE person = ? ORDER BY finished_ms DESC LIMIT ?"
        return [exchange["messages"] for exchange in self._said(person, self.rows(query, (person, limit)))]

    def _said(self, person: str, rows: Iterable[tuple[Any, ...]]) -> Iterator[dict[str, Any]]:
        """Of (id, said), what is not erased meanwhile."""
        for name, kept in rows:
            if (said := opened(self.keys, person, kept, name)) is not None:
                yield orjson.loads(said)

    def _add_exchange(self, exchange: Completion) -> None:
        query = "SELECT MAX(erased_ms) FROM erased WHERE person = ? AND conversation_id IN (?, '')"
        [(erased_ms,)] = self.execute(query, (exchange.person, exchange.conversation_id)).fetchall()
        *row, title, said = exchange_row(exchange)
        title = sealed(self.keys, exchange.person, title.encode(), titled(exchange.conversation_id))
        said = sealed(self.keys, exchange.person, said, exchange.completion_id)
        if said is None or title is None or (erased_ms is not None and exchange.started_ms <= erased_ms):
            gone_ms = exchange.finished_ms if erased_ms is None else erased_ms
            row, title, said = (exchange.completion_id, "", "", 0, gone_ms, ""), b"", b""
        kept = title if self.keys is not None else title.decode()
        self.execute("INSERT OR IGNORE INTO exchange VALUES (?, ?, ?, ?, ?, ?, ?, ?)", (*row, kept, said))

    def _erase(self, erasure: Erasure) -> None:
        covered = (erasure.person, erasure.conversation_id, erasure.erased_ms)
        which = "person = ?1 AND (conversation_id = ?2 OR ?2 = '') AND started_ms <= ?3"
        self.scrub()
        of_these = f"completion_id IN (SELECT completion_id FROM exchange WHERE {which})"
        self.execute(f"DELETE FROM vote WHERE {of_these} OR (?2 = '' AND person = ?1 AND created_ms <= ?3)", covered)
        self.execute(
            f"""
            UPDATE exchange SET person = '', conversation_id = '', started_ms = 0, finished_ms = ?3,
                comparison_id = '', title = '', said = x'' WHERE {which}
            """,
            covered,
        )
        self.execute("INSERT OR REPLACE INTO erased VALUES (?, ?, ?)", covered)


def _blind(exchange: dict[str, Any]) -> dict[str, Any]:
    for answer in exchange["answers"]:
        answer["versions"] = []
    return exchange
