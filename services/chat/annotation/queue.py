"""Who is asked about which item: each is reserved for as many people as it wants, one item a person at a time.

    add ──▶ next: held for half an hour, or until ──▶ a vote on its answers settles it
                                                  └─▶ skip leaves it to others; so does the end of the half hour

Who has judged or skipped an item never gets it again, unless they take the skip back before others have the item. Who
let it expire gets it again only when nothing else is left, so that one person alone can finish a queue; their vote
counts also if it comes late.
"""

import hashlib
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from random import SystemRandom
from typing import Any

import orjson
import structlog

from rlhf_online.errors import ReadModelUnavailable
from rlhf_online.events import SHOWN, WITHHELD, AnswerRef, Feedback, Pairwise, Ranking, Thumb, now_ms
from rlhf_online.feedback.agreement import Tiers
from services.chat.annotation.database import QueueDatabase, settle
from services.chat.annotation.items import ItemNote
from services.chat.annotation.votes import LEASE_MS, name
from services.chat.comparisons.replies import ComparedAnswer

CHANCE = SystemRandom()
HOLDS = """
SELECT item_id FROM given JOIN item USING (item_id) WHERE person = :person AND state = 'held' AND until_ms > :now
ORDER BY until_ms DESC LIMIT 1
"""
WANTED = """people > (
    SELECT COUNT(*) FROM given WHERE given.item_id = item.item_id
    AND (state = 'done' OR state = 'held' AND until_ms > :now)
)"""
FREE = f"SELECT item_id FROM item WHERE NOT finished AND {{seen}} AND {WANTED} ORDER BY number LIMIT 1"
OWN = "EXISTS (SELECT 1 FROM given WHERE given.item_id = item.item_id AND person = :person {state})"
NEVER_SEEN = FREE.format(seen="NOT " + OWN.format(state=""))
EXPIRED = FREE.format(seen=OWN.format(state="AND state = 'held'"))
MAY_HAVE = f"""
SELECT state = 'held' AND until_ms > :now OR {WANTED} FROM item JOIN given USING (item_id)
WHERE item_id = :item_id AND person = :person AND state != 'done'
"""
TAKE_BACK = """
UPDATE given SET state = 'held', reason = '', until_ms = MAX(:until, 1 + (
    SELECT MAX(until_ms) FROM given WHERE person = :person
)) WHERE item_id = :item_id AND person = :person
"""
MARKS = """
SELECT item_id, shown, tells, item.said FROM item JOIN given USING (item_id)
WHERE answers = ? AND person = ? AND state != 'skipped' ORDER BY state = 'done', until_ms DESC LIMIT 1
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """`messages` and `answers` are what is shown; `notes` are a critic's, which half of the people see.

    `origins`: whose conversations it shows, and when that was asked. `tells`: an answer names who wrote it.
    """

    item_id: str
    people: int
    messages: list[dict[str, Any]]
    answers: list[ComparedAnswer]
    origins: frozenset[tuple[str, int]]
    tells: bool = False
    notes: Sequence[ItemNote] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """An item for one person: `answers` in the order in which they see them, `notes` if they are to see any."""

    item_id: str
    messages: list[dict[str, Any]]
    answers: list[ComparedAnswer]
    notes: list[ItemNote]
    expires_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """Of all items; `people`: (hash, judged, skipped), those who judged most first."""

    items: int
    finished: int
    in_progress: int
    wanted: int
    people: list[tuple[str, int, int]]


class Erased(Exception):
    """A conversation that the item shows was erased."""


class OtherItem(Exception):
    """There is an item of that name, with other answers."""


class Taken(Exception):
    """As many people have the item as it wants."""


class Queue:
    """Of one service: another one with a log of its own has another queue."""

    def __init__(self, database: QueueDatabase, clock: Callable[[], int] = now_ms) -> None:
        self._database = database
        self._clock = clock

    def add(self, item: Item) -> None:
        """Keep it; of one that is there only the number of people changes. Raises Erased, OtherItem."""
        answers = " ".join(sorted(_name(answer) for answer in item.answers))
        with self._database.transaction() as database:
            query = "SELECT answers FROM item WHERE item_id = ?"
            if found := database.execute(query, (item.item_id,)).fetchone():
                if found != (answers,):
                    raise OtherItem
                database.execute("UPDATE item SET people = ? WHERE item_id = ?", (item.people, item.item_id))
            else:
                for origin, asked_ms in item.origins:
                    query = "SELECT 1 FROM erased WHERE origin = ? AND erased_ms >= ?"
                    if database.execute(query, (origin, asked_ms)).fetchone():
                        raise Erased
                    database.execute("INSERT INTO stems_from VALUES (?, ?, ?)", (item.item_id, origin, asked_ms))
                _forget_others(database, item.item_id, answers)
                notes = {"notes": item.notes} if item.notes else {}
                said = orjson.dumps({"messages": item.messages, "answers": item.answers, **notes})
                row = (item.item_id, answers, item.people, False, item.tells, said)
                database.execute("INSERT INTO item VALUES (NULL, ?, ?, ?, ?, ?, ?)", row)
            settle(database, item.item_id)

    def wanted(self, item_id: str, people: int) -> bool:
        """From now on so many people are to judge the item; False if there is none of that name."""
        with self._database.transaction() as database:
            query = "UPDATE item SET people = ? WHERE item_id = ?"
            found = database.execute(query, (people, item_id)).rowcount > 0
            settle(database, item_id)
            return found

    def next(self, person: str) -> Held | None:
        """What the person holds, the last first, or an item that waits, reserved from now on; None if there is none."""
        now = self._clock()
        values = {"now": now, "person": person}
        with self._database.transaction() as database:
            found = (database.execute(query, values).fetchone() for query in (HOLDS, NEVER_SEEN, EXPIRED))
            [item_id] = next(filter(None, found), [None])
            if item_id is None:
                return None
            [said] = database.execute("SELECT said FROM item WHERE item_id = ?", (item_id,)).fetchone()
            item = orjson.loads(said)
            answers = {_name(answer): answer for answer in item["answers"]}
            CHANCE.shuffle(drawn := list(answers))
            query = """INSERT INTO given VALUES (?, ?, 'held', ?, ?, '', '', '')
                ON CONFLICT DO UPDATE SET until_ms = excluded.until_ms RETURNING shown"""
            row = (item_id, person, now + LEASE_MS, orjson.dumps(drawn).decode())
            [shown] = database.execute(query, row).fetchone()
        return Held(
            item_id=item_id,
            messages=item["messages"],
            answers=[answers[each] for each in orjson.loads(shown)],
            notes=item.get("notes", []) if sees_notes(item_id, person) else [],
            expires_ms=now + LEASE_MS,
        )

    def skip(self, item_id: str, person: str, reason: str) -> bool:
        """Leave it to others; again it is the same. False if the person was not given it, or has judged it."""
        query = "UPDATE given SET state = 'skipped', reason = ? WHERE item_id = ? AND person = ? AND state != 'done'"
        with self._database.transaction() as database:
            return database.execute(query, (reason, item_id, person)).rowcount > 0

    def take_back(self, item_id: str, person: str) -> bool:
        """What the person skipped is what they hold, before anything else; again it is the same. False if they were
        not given it, or have judged it. Raises Taken."""
        now = self._clock()
        values = {"item_id": item_id, "person": person, "now": now, "until": now + LEASE_MS}
        with self._database.transaction() as database:
            if (found := database.execute(MAY_HAVE, values).fetchone()) is None:
                return False
            if found == (False,):
                raise Taken
            database.execute(TAKE_BACK, values)
            return True

    def marked(self, vote: Feedback) -> Feedback:
        """The vote, and the item that it settles, if its person was given one of just these answers."""
        if not vote.person or not isinstance(vote.kind, Thumb | Ranking | Pairwise):
            return vote
        answers = " ".join(sorted(name(ref) for ref in vote.answers()))
        try:
            found = self._database.rows(MARKS, answers, vote.person)
        except ReadModelUnavailable as error:  # the vote counts all the same
            structlog.get_logger().warning("the annotators' queue cannot be looked up", why=str(error))
            return vote
        for item_id, shown, tells, said in found:
            by_name = {name(ref): ref for ref in vote.answers()}
            refs = tuple(by_name[each] for each in orjson.loads(shown))
            notes = (SHOWN if sees_notes(item_id, vote.person) else WITHHELD) if "notes" in orjson.loads(said) else ""
            could_know = vote.could_know or bool(tells)
            return replace(vote, annotation_item=item_id, shown=refs, could_know=could_know, notes=notes)
        return vote

    def counts(self) -> Counts:
        of_items = "SELECT COUNT(*), SUM(finished), SUM(people) FROM item"
        [(items, finished, wanted)] = self._database.rows(of_items)
        held = (
            "SELECT COUNT(DISTINCT item_id) FROM given JOIN item USING (item_id) WHERE state = 'held' AND until_ms > ?"
        )
        [(in_progress,)] = self._database.rows(held, self._clock())
        of_people = """SELECT person, SUM(state = 'done') AS judged, SUM(state = 'skipped') FROM given
            JOIN item USING (item_id) GROUP BY person ORDER BY judged DESC, person"""
        return Counts(
            items=items,
            finished=finished or 0,
            wanted=wanted or 0,
            in_progress=in_progress,
            people=[(person, judged, skipped) for person, judged, skipped in self._database.rows(of_people)],
        )

    def judgements(self) -> Iterator[tuple[str, bool | Tiers]]:
        """(item, good or bad, or the order of its answers), of each person who has judged one."""
        query = "SELECT item_id, given.said FROM given JOIN item USING (item_id) WHERE state = 'done'"
        return ((item_id, orjson.loads(said)) for item_id, said in self._database.rows(query))


def _forget_others(database: sqlite3.Connection, item_id: str, answers: str) -> None:
    """Votes on an item of that name that was lost with an earlier database, and had other answers."""
    query = "SELECT person, shown FROM given WHERE item_id = ?"
    for person, shown in database.execute(query, (item_id,)).fetchall():
        if " ".join(sorted(orjson.loads(shown))) != answers:
            database.execute("DELETE FROM given WHERE item_id = ? AND person = ?", (item_id, person))


def sees_notes(item_id: str, person: str) -> bool:
    """A fair draw for each item and person, the same whenever it is asked: no restart changes it."""
    return bool(hashlib.blake2b(f"{item_id} {person}".encode(), digest_size=1).digest()[0] % 2)


def made_of(answers: list[ComparedAnswer]) -> str:
    """The name of an item that was given none: the same answers are the same item."""
    named = " ".join(sorted(_name(answer) for answer in answers))
    return f"item-{hashlib.blake2b(named.encode(), digest_size=12).hexdigest()}"


def _name(answer: ComparedAnswer) -> str:
    return name(AnswerRef(**answer["answer"]))
