"""Records that cannot be used: kept until they are written, and counted by reason."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import structlog

from rlhf_online.eventlog.base import DeadLetter, Record
from rlhf_online.events import Envelope, Feedback
from rlhf_online.training.ledger import Ledger
from rlhf_online.wire import encode

MAX_BYTES = 16 << 20
"""Payloads in memory beyond which they should be written."""


class DeadLetters:
    """An event becomes one once: the ledger knows it from then on. Orphans are written with them, and not counted."""

    def __init__(self, ledger: Ledger) -> None:
        self.unsaved: list[DeadLetter] = []
        """Those that are not written yet."""
        self.counts: Counter[str] = Counter()
        """By reason: those of UnusableVote, damaged, undecodable."""
        self._ledger = ledger
        self._log = structlog.get_logger()

    @property
    def full(self) -> bool:
        return sum(len(dead_letter.payload) for dead_letter in self.unsaved) > MAX_BYTES

    def add(self, event_id: str, reason: str, why: str, record: Record, person: str | None = None) -> None:
        """`record`, or an event that it completed, cannot be used; `person` is whose vote it is, if it is one."""
        if not self._ledger.take(event_id, "dead_lettered"):
            return
        if person is not None:
            self._ledger.tell(event_id, person, "dead_lettered", why)
        self.counts[reason] += 1
        self.unsaved.append(
            DeadLetter(
                partition=record.partition,
                offset=record.offset,
                event_id=event_id,
                reason=why,
                payload=record.payload,
            )
        )
        place = f"{record.partition}:{record.offset}"
        self._log.warning("dead letter", event_id=event_id, place=place, reason=reason, why=why)

    def add_orphan(self, envelope: Envelope) -> None:
        """Feedback whose answer did not come. Its place is not known any more: its payload is the whole event."""
        if self._ledger.take(envelope.event_id, "orphaned"):
            why = "its answer did not come in time"
            if isinstance(envelope.event, Feedback):
                self._ledger.tell(envelope.event_id, envelope.event.person, "orphaned")
            self.unsaved.append(
                DeadLetter(
                    partition="",
                    offset=-1,
                    event_id=envelope.event_id,
                    reason=why,
                    payload=encode(envelope),
                    orphan=True,
                )
            )

    def to_json(self) -> dict[str, Any]:
        """What `restore` takes. All of `unsaved` must be written before."""
        return {"dead_letters": self.counts}

    def restore(self, values: Mapping[str, Any]) -> None:
        self.counts = Counter(values["dead_letters"])
