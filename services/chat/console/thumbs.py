"""Thumbs by the version that alone wrote the answer: of each person the last one on an answer counts."""

from collections.abc import Sequence
from typing import Any, Protocol

from rlhf_online.events import Completion, Feedback, Thumb


class Rows(Protocol):
    """The tally's database."""

    def execute(self, query: str, values: Sequence[Any] = ()) -> Any: ...

    def rows(self, query: str, values: Any = ()) -> list[tuple[Any, ...]]: ...


class Thumbs:
    """In the tally's tables `answer`, `thumb` and `liked`. What changes them does so in the tally's transactions."""

    def __init__(self, rows: Rows) -> None:
        self._execute = rows.execute
        self._rows = rows.rows
        self._changed: set[str] = set()

    def of(self, version: str) -> tuple[int, int]:
        """Up and down on answers that the version alone wrote."""
        found = self._rows("SELECT up, down FROM liked WHERE version = ?", (version,))
        return found[0] if found else (0, 0)

    def take_changed(self) -> set[str]:
        """The versions whose thumbs have changed since the last time."""
        changed, self._changed = self._changed, set()
        return changed

    def add_answers(self, number: int, completion: Completion) -> None:
        """Who wrote them, for the thumbs that came before them and those to come."""
        for answer in completion.answers:
            version = answer.sole_version
            row = (completion.completion_id, answer.index, number, version, completion.origin)
            self._execute("INSERT OR IGNORE INTO answer VALUES (?, ?, ?, ?, ?)", row)
            said = "SELECT subject, up FROM thumb WHERE completion = ? AND place = ? AND version = ''"
            for subject, up in self._execute(said, row[:2]).fetchall() if version else ():
                self._execute("UPDATE thumb SET version = ? WHERE subject = ?", (version, subject))
                self._like(version, up, 1)

    def add(self, number: int, event_id: str, vote: Feedback, thumb: Thumb) -> None:
        """Of a person the last one on an answer counts; nobody's count each."""
        on = (thumb.answer.completion_id, thumb.answer.index)
        subject = f"{vote.person} {vote.objective} {on[1]} {on[0]}" if vote.person else event_id
        self._drop("subject = ?", (subject,))
        found = self._execute("SELECT version FROM answer WHERE completion = ? AND place = ?", on).fetchone()
        version = found[0] if found else ""
        row = (subject, number, event_id, vote.person, *on, thumb.up, version)
        self._execute("INSERT INTO thumb VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)
        if version:
            self._like(version, thumb.up, 1)

    def take_back(self, event_id: str, person: str) -> None:
        """The person's thumb under that id, if it is one, counts no more."""
        self._drop("event_id = ? AND person = ?", (event_id, person))

    def erase(self, origin: str) -> None:
        """Forget the answers of that conversation and all thumbs on them."""
        said = "SELECT DISTINCT completion FROM answer WHERE origin = ?"
        for (completion,) in self._execute(said, (origin,)).fetchall():
            self._drop("completion = ?", (completion,))
        self._execute("DELETE FROM answer WHERE origin = ?", (origin,))

    def erase_of(self, person: str) -> None:
        """Forget the person's thumbs."""
        self._drop("person = ?", (person,))

    def _drop(self, which: str, values: Sequence[object]) -> None:
        for version, up in self._execute(f"SELECT version, up FROM thumb WHERE {which}", values).fetchall():
            if version:
                self._like(version, up, -1)
        self._execute(f"DELETE FROM thumb WHERE {which}", values)

    def _like(self, version: str, up: int, by: int) -> None:
        change = """INSERT INTO liked VALUES (?1, ?2, ?3)
            ON CONFLICT (version) DO UPDATE SET up = up + ?2, down = down + ?3"""
        self._execute(change, (version, by if up else 0, 0 if up else by))
        self._changed.add(version)
