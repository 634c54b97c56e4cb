"""What people say of versions, by person: thumbs on a version's answers, and blind pairs of two versions.

    log ──▶ answers: who alone wrote them ─┐
        ──▶ votes ─────────────────────────┴─▶ opinions: of (version, other version or none) by a person, 0 … 1

A database that follows the log (`read_model`). An opinion of a pair is of the newer version over the older one, ½ for a
tie; pairs count where the answers stood in one comparison and their person could not know who wrote which. Of each
person the last word on the same answers counts. Where the log lets go of what a person said, it is added to the sums of
`closed`, which name nobody.
"""

import json
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from rlhf_online.eventlog.base import Record
from rlhf_online.eventlog.read_model import ReadModel
from rlhf_online.events import Completion, Erasure, Feedback, Pairwise, Ranking, Thumb
from rlhf_online.prediction import Counts
from rlhf_online.wire import Header, decode

if TYPE_CHECKING:
    from rlhf_online.keystore.keyring import Keyring

NAME = "opinions.sqlite"
SUMS = """SELECT COUNT(*), TOTAL(n), TOTAL(mean) FROM (
    SELECT COUNT(*) AS n, AVG(value) AS mean FROM opinion WHERE version = ? AND other = ? GROUP BY person)"""
Judged = list[tuple[str, int, int]]
"""(completion, index, tier) of each answer that a vote judges; of a thumb the tier is 0 for down and 1 for up."""


class Opinions(ReadModel):
    """The database beside the log in `log`."""

    tables: ClassVar[str] = """
CREATE TABLE IF NOT EXISTS answer (
    completion TEXT, place INTEGER, number INTEGER, version TEXT, origin TEXT, comparison TEXT,
    PRIMARY KEY (completion, place)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS answer_by_number ON answer (number);
CREATE INDEX IF NOT EXISTS answer_of ON answer (origin) WHERE origin != '';
CREATE TABLE IF NOT EXISTS vote (
    event_id TEXT PRIMARY KEY, number INTEGER, subject TEXT UNIQUE, person TEXT, blind INTEGER, thumb INTEGER, said TEXT
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS vote_by_number ON vote (number);
CREATE TABLE IF NOT EXISTS judged (completion TEXT, event_id TEXT, PRIMARY KEY (completion, event_id)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS judged_by ON judged (event_id);
CREATE TABLE IF NOT EXISTS opinion (
    event_id TEXT, number INTEGER, version TEXT, other TEXT, person TEXT, value REAL
);
CREATE INDEX IF NOT EXISTS opinion_of ON opinion (version, other, person, value);
CREATE INDEX IF NOT EXISTS opinion_by_event ON opinion (event_id);
CREATE INDEX IF NOT EXISTS opinion_by_number ON opinion (number);
CREATE TABLE IF NOT EXISTS closed (
    version TEXT, other TEXT, people INTEGER, opinions INTEGER, means REAL, PRIMARY KEY (version, other)
) WITHOUT ROWID;
"""

    def __init__(self, log: Path, keys: "Keyring | None" = None) -> None:
        super().__init__(log / NAME, log, keys)
        self._changed: set[str] = set()

    # What is asked

    def of(self, version: str, other: str = "") -> Counts:
        """Opinions of the version over `other`, an older one; without one, thumbs. Raises ReadModelUnavailable."""
        closed = "SELECT people, opinions, means FROM closed WHERE version = ? AND other = ?"
        total = Counts()
        for people, n, means in self.rows(SUMS, (version, other)) + self.rows(closed, (version, other)):
            total += Counts(people=people, opinions=int(n), means=means)
        return total

    def pairs(self, most: int) -> list[tuple[str, str, str, float]]:
        """(person, version, older version, value) of the newest blind pairs. Raises ReadModelUnavailable."""
        asked = "SELECT person, version, other, value FROM opinion WHERE other != '' ORDER BY number DESC LIMIT ?"
        return self.rows(asked, (most,))

    def take_changed(self) -> set[str]:
        """The versions of which people have said something since the last time."""
        with self._at_work():
            changed, self._changed = self._changed, set()
        return changed

    # The log

    def apply(self, record: Record, header: Header) -> None:
        match decode(record.payload, self.keys).event:
            case Completion() as completion:
                self._add_answers(record.offset, completion)
            case Feedback() as vote:
                self._add_vote(record.offset, header.event_id, vote)
            case Erasure(whole=True, person=person) if person:
                said = "SELECT event_id FROM vote WHERE person = ?"
                for (event_id,) in self.execute(said, (person,)).fetchall():
                    self._drop(event_id)
                self.scrub()
            case Erasure(origin=origin) if origin:
                said = "SELECT DISTINCT event_id FROM answer JOIN judged USING (completion) WHERE origin = ?"
                for (event_id,) in self.execute(said, (origin,)).fetchall():
                    self._drop(event_id)
                self.execute("DELETE FROM answer WHERE origin = ?", (origin,))
                self.scrub()

    def trim(self, first: int) -> None:
        gone = """SELECT version, other, person, COUNT(*), AVG(value) FROM opinion
            WHERE (version, other, person) IN (SELECT version, other, person FROM opinion WHERE number < ?)
            GROUP BY version, other, person HAVING MAX(number) < ?"""
        add = """INSERT INTO closed VALUES (?1, ?2, 1, ?3, ?4) ON CONFLICT (version, other)
            DO UPDATE SET people = people + 1, opinions = opinions + ?3, means = means + ?4"""
        for version, other, person, n, mean in self.execute(gone, (first, first)).fetchall():
            self.execute(add, (version, other, n, mean))
            self.execute("DELETE FROM opinion WHERE version = ? AND other = ? AND person = ?", (version, other, person))
        old = "DELETE FROM judged WHERE event_id IN (SELECT event_id FROM vote WHERE number < ?)"
        self.execute(old, (first,))
        for table in ("vote", "answer"):
            self.execute(f"DELETE FROM {table} WHERE number < ?", (first,))

    def _add_answers(self, number: int, completion: Completion) -> None:
        for answer in completion.answers:
            place, version = (completion.completion_id, answer.index), answer.sole_version
            row = (*place, number, version, completion.origin, completion.comparison_id)
            self.execute("INSERT OR IGNORE INTO answer VALUES (?, ?, ?, ?, ?, ?)", row)
        said = "SELECT event_id FROM judged WHERE completion = ?"
        for (event_id,) in self.execute(said, (completion.completion_id,)).fetchall():
            self._weigh(event_id)  # a vote that came before its answer

    def _add_vote(self, number: int, event_id: str, vote: Feedback) -> None:
        """A person's."""
        if vote.by_ai:
            return
        if vote.replaces:
            owned = "SELECT 1 FROM vote WHERE event_id = ? AND person = ?"
            if self.execute(owned, (vote.replaces, vote.person or vote.replaces)).fetchone():
                self._drop(vote.replaces)
        match vote.kind:
            case Thumb(answer=ref, up=up):
                tiers = {ref: int(up)}
            case Pairwise() | Ranking():
                tiers = vote.kind.ranks()
            case _:
                return
        said: Judged = [(ref.completion_id, ref.index, tier) for ref, tier in tiers.items()]
        thumb = isinstance(vote.kind, Thumb)
        about = json.dumps([vote.person, vote.objective, thumb, sorted(item[:2] for item in said)])
        subject = about if vote.person else event_id  # people who gave no name are not one person
        for (before,) in self.execute("SELECT event_id FROM vote WHERE subject = ?", (subject,)).fetchall():
            if before != event_id:
                self._drop(before)
        person = vote.person or event_id
        row = (event_id, number, subject, person, not vote.could_know, thumb, json.dumps(said))
        if self.execute("INSERT OR IGNORE INTO vote VALUES (?, ?, ?, ?, ?, ?, ?)", row).rowcount:
            for completion in {item[0] for item in said}:
                self.execute("INSERT OR IGNORE INTO judged VALUES (?, ?)", (completion, event_id))
            self._weigh(event_id)

    def _weigh(self, event_id: str) -> None:
        """Make opinions of the vote, as far as its answers are known."""
        query = "SELECT number, person, blind, thumb, said FROM vote WHERE event_id = ?"
        number, person, blind, thumb, text = self.execute(query, (event_id,)).fetchone()
        self._forget(event_id)
        who: dict[tuple[str, int], tuple[str, str]] = {}
        said: Judged = [tuple(item) for item in json.loads(text)]
        for completion, place, _ in said:
            asked = "SELECT version, comparison FROM answer WHERE completion = ? AND place = ?"
            who[completion, place] = self.execute(asked, (completion, place)).fetchone() or ("", "")
        found = _of_thumb(said, who) if thumb else _of_pairs(said, who) if blind else ()
        for version, other, value in found:
            row = (event_id, number, version, other, person, value)
            self.execute("INSERT INTO opinion VALUES (?, ?, ?, ?, ?, ?)", row)
            self._changed.add(version)

    def _drop(self, event_id: str) -> None:
        """The vote counts no more."""
        self._forget(event_id)
        for table in ("vote", "judged"):
            self.execute(f"DELETE FROM {table} WHERE event_id = ?", (event_id,))

    def _forget(self, event_id: str) -> None:
        said = self.execute("SELECT version FROM opinion WHERE event_id = ?", (event_id,)).fetchall()
        self._changed |= {version for (version,) in said}
        self.execute("DELETE FROM opinion WHERE event_id = ?", (event_id,))


def _of_thumb(said: Judged, who: dict[tuple[str, int], tuple[str, str]]) -> Iterator[tuple[str, str, float]]:
    for completion, place, up in said:
        if version := who[completion, place][0]:
            yield version, "", float(up)


def _of_pairs(said: Judged, who: dict[tuple[str, int], tuple[str, str]]) -> Iterator[tuple[str, str, float]]:
    """The newer version over the older one, of each two answers of one comparison."""
    named = [(*who[completion, place], tier) for completion, place, tier in said]
    for one, two in combinations(named, 2):
        newer, older = max(one, two), min(one, two)
        if older[0] and newer[0] != older[0] and newer[1] and newer[1] == older[1]:
            value = 0.5 if newer[2] == older[2] else float(newer[2] < older[2])
            yield newer[0], older[0], value
