"""Files → the log, each row once: what is there already is passed over, and what cannot be used is counted, with why.

Invariants: rows = imported + already there + refused, of each file and at any time, but for rows that hold several
things (Langfuse's), of which each that cannot be used is counted; a row is in the log as a whole or not at all, so that
where the process dies the next import of the file goes on.
"""

import contextlib
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlhf_online import wire
from rlhf_online.data.exchanges import PREFIX, Place, to_records
from rlhf_online.data.fields import CIRCUMSTANCES
from rlhf_online.data.files import read_rows
from rlhf_online.data.formats import Format
from rlhf_online.errors import InvalidInput, RowRefused, UndecodableEvent
from rlhf_online.eventlog.base import AppendFuture, Sink, Source, Writer, has_reached
from rlhf_online.eventlog.segments import MAX_RECORD
from rlhf_online.events import Feedback, now_ms

if TYPE_CHECKING:
    from rlhf_online.keystore.keyring import Keyring

BATCH_RECORDS, BATCH_BYTES = 1000, 1 << 20
"""What is appended together: at least a row."""
WAITING = 4
"""Batches that wait for the disk at most."""
TELL_EVERY = 1000
SHOWN = 3
"""Rows that are named for each reason."""
SHIPS_WITHIN_S = 30.0
"""How long Kafka may take no record before it is waited for no more."""
_READ = 10_000


@dataclass(slots=True)
class ImportReport:
    """What became of a file's rows. `refused` and `notes` count reasons (`errors.RowRefused`) and oddities, `examples`
    name the first rows of each reason and say what is wrong; `passed_over` counts rows by fields that nobody reads."""

    rows: int = 0
    imported: int = 0
    already: int = 0
    exchanges: int = 0
    votes: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)
    notes: Counter[str] = field(default_factory=Counter)
    passed_over: Counter[str] = field(default_factory=Counter)

    def figures(self, seconds: float) -> dict[str, Any]:
        """All of it in JSON's types, the most frequent first."""
        counts = {"refused": self.refused, "notes": self.notes, "passed_over": self.passed_over}
        return {
            **{name: getattr(self, name) for name in ("rows", "imported", "already", "exchanges", "votes")},
            **{name: dict(counter.most_common()) for name, counter in counts.items()},
            "examples": self.examples,
            "seconds": round(seconds, 2),
        }

    def refuse(self, number: int, error: RowRefused) -> None:
        self.refused[error.reason] += 1
        if len(shown := self.examples.setdefault(error.reason, [])) < SHOWN:
            shown.append(f"row {number}: {error}")


class Importer:
    """Writes to `log`; `known` are the ids of the events that are there (`imported_ids`); `keys` seal what is new."""

    def __init__(self, log: Writer, known: set[str], keys: "Keyring | None" = None) -> None:
        self._log = log
        self._keys = keys
        self._known = known
        self._batch: list[bytes] = []
        self._bytes = 0
        self._waiting: deque[AppendFuture] = deque()

    def add(
        self, path: Path, form: Format, place: Place, progress: Callable[[ImportReport], object] | None = None
    ) -> ImportReport:
        """Import a file; what it holds is durable when this returns.

        Raises InvalidInput for a file that cannot be read, or not to its end, LogUnavailable: what was imported before
        stays.
        """
        report = ImportReport()
        try:
            for number, values in read_rows(path, is_csv=form.is_csv):
                report.rows += 1
                try:
                    self._take(number, values, form, place, report)
                except RowRefused as error:
                    report.refuse(number, error)
                if progress is not None and report.rows % TELL_EVERY == 0:
                    progress(report)
        finally:
            self._append()
            self._settle(0)
        if not report.rows:
            raise InvalidInput(f"{path} holds no row")
        return report

    def _take(self, number: int, values: object, form: Format, place: Place, report: ImportReport) -> None:
        """Raises RowRefused."""
        if isinstance(values, RowRefused):
            raise values
        if not isinstance(values, dict):
            raise RowRefused("shape", "a row is an object with fields")
        if not values.keys() <= form.known:
            report.passed_over.update(_unread(values, form))
        new: dict[str, bytes] = {}
        notes: list[str] = []
        refused = votes = 0
        now = now_ms()
        for row in form.read(values):
            if isinstance(row, RowRefused):
                report.refuse(number, row)
                refused += 1
                continue
            if row.judgements and all(each.id in self._known for each in row.judgements):
                continue  # the log's own votes, exported
            notes += row.notes
            for record in to_records(row, number, place, now):
                if (name := record.event_id) not in self._known and name not in new:
                    new[name] = wire.written(record, now, self._keys)
                    votes += record.HasField("feedback")
        if new:
            self._put(new)
            report.imported += 1
            if notes:
                report.notes.update(notes)
            report.votes += votes
            report.exchanges += len(new) - votes
        elif not refused:
            report.already += 1

    def _put(self, new: dict[str, bytes]) -> None:
        """Raises RowRefused for more than the log holds in a piece."""
        size = sum(map(len, new.values()))
        if size > MAX_RECORD // 2:
            raise RowRefused("large", f"its {size} bytes are more than the {MAX_RECORD >> 21} MiB of a row")
        self._batch += new.values()
        self._bytes += size
        self._known.update(new)
        if len(self._batch) >= BATCH_RECORDS or self._bytes >= BATCH_BYTES:
            self._append()

    def _append(self) -> None:
        if self._batch:
            self._settle(WAITING - 1)
            self._waiting.append(self._log.append_all(self._batch))
            self._batch, self._bytes = [], 0

    def _settle(self, most: int) -> None:
        """Wait until at most that many batches are not durable. Raises LogUnavailable."""
        while len(self._waiting) > most:
            self._waiting.popleft().result()


def _unread(values: dict[str, Any], form: Format) -> Iterator[str]:
    """The fields that nobody looks at."""
    for name in values.keys() - form.known:
        if not (name in CIRCUMSTANCES and form.takes_circumstances):
            yield name


def wait_shipped(log: Sink, *, within_s: float = SHIPS_WITHIN_S, pause_s: float = 0.1) -> int:
    """Wait while Kafka takes what the log on this machine holds for it; how many records it has not taken."""
    left, since = log.shipping().backlog, time.monotonic()
    while left and time.monotonic() < since + within_s:
        time.sleep(pause_s)
        if (now := log.shipping().backlog) < left:
            left, since = now, time.monotonic()
    return left


def imported_ids(source: Source) -> set[str]:
    """The ids of the imported events, and of all votes, that the log holds. Raises LogUnavailable, PositionLost."""
    known: set[str] = set()
    position, end = {}, source.end()
    while not has_reached(position, end):
        records, position = source.read(position, _READ)
        for record in records:
            with contextlib.suppress(UndecodableEvent):
                if record.damage:
                    continue
                header = wire.peek(record.payload)
                if header.event_id.startswith(PREFIX) or header.kind is Feedback:
                    known.add(header.event_id)
    return known
