"""What every event log offers. A position is opaque to callers: partition → next offset, `{"local": 17}`.

`{}` is the beginning. Positions are compared only by `has_reached`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

Position = dict[str, int]
PARTITION = "local"
"""The one partition of a log on this machine."""


class Record(NamedTuple):
    """One record as it stands in the log; `offset` counts records of its partition from 0.

    `damage` says why a record that was acknowledged is none any more; `payload` then is what is left of it. `origin`
    is the spool that it was shipped from and its number there, where it was shipped: the same record sent again has
    the same.
    """

    partition: str
    offset: int
    payload: bytes
    damage: str = ""
    origin: tuple[str, int] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Shipping:
    """How far the records of a local log have been shipped to Kafka; a log that is shipped nowhere has no backlog.

    `backlog`: records that Kafka has not confirmed; `oldest_ms`: time of the oldest of them, 0 without any;
    `failures`: deliveries that failed and were retried; `refused`: records that Kafka will never take; `confirmed`:
    those that it has, ever since the log began.
    """

    backlog: int = 0
    oldest_ms: int = 0
    failures: int = 0
    refused: int = 0
    confirmed: int = 0


class Sink(Protocol):
    """Where events are made durable."""

    def append(self, payload: bytes) -> "AppendFuture":
        """Queue a record. Raises LogUnavailable at once if the log takes none."""
        ...

    def shipping(self) -> Shipping:
        """From any thread."""
        ...

    def close(self) -> None:
        """Write what is queued, and stop."""
        ...


class Writer(Sink, Protocol):
    """A sink that also takes records by the thousand."""

    def append_all(self, payloads: Sequence[bytes]) -> "AppendFuture":
        """Queue records that are written together: all of them, or none. The future is that of the first.

        Raises what `append` does, InvalidInput for more than 16 MiB.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """A record that a reader cannot use, kept for inspection: where it stood, what it held, and why.

    `orphan`: feedback whose answer never came; otherwise it cannot be read, or contradicts its answer.
    """

    partition: str
    offset: int
    event_id: str
    reason: str
    payload: bytes
    orphan: bool = False


class AppendFuture(Protocol):
    """Resolves to the record's offset after the fsync that covers it; raises LogUnavailable otherwise."""

    def result(self, timeout: float | None = None) -> int: ...


class Source(Protocol):
    """Where the trainer reads."""

    def read(self, position: Mapping[str, int], limit: int) -> tuple[list[Record], Position]:
        """Up to `limit` records from `position` on, and the position after them. Does not wait for more.

        A record that is damaged comes as one that says so. Raises PositionLost, which is final, and LogUnavailable,
        after which it may be asked again.
        """
        ...

    def end(self) -> Position:
        """The position after the last record."""
        ...

    def mark_consumed(self, reader: str, position: Mapping[str, int]) -> None:
        """`reader` will not read anything before `position` again: it may be removed. Raises LogUnavailable."""
        ...

    def write_dead_letters(self, dead_letters: Sequence[DeadLetter]) -> None:
        """Keep them durably. After a restart the same one may be written twice. Raises LogUnavailable."""
        ...

    def resume_position(self, identity: str, position: Mapping[str, int]) -> tuple[Position, list[str]]:
        """Where to resume after `position` of the log `identity`, and a sentence for each range that is missing.

        `position` itself where nothing is missing. Raises LogUnavailable.
        """
        ...

    def identity(self) -> str:
        """Names this log for good: another log, or the same name made anew, has another identity."""
        ...

    def close(self) -> None: ...


def has_reached(position: Mapping[str, int], target: Mapping[str, int]) -> bool:
    """True if `position` is at `target` or past it, in every partition."""
    return all(position.get(partition, 0) >= offset for partition, offset in target.items())
