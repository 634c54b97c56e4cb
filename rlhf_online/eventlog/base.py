"""What every event log offers. A position is opaque to callers: partition → next offset, `{"local": 17}`.

`{}` is the beginning. Positions are compared with `covers` alone.
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
    """How the records of a local log fare on their way to Kafka; a log that is shipped nowhere has none waiting.

    `backlog`: records that Kafka has not confirmed; `oldest_ms`: when the first of them happened, 0 without any;
    `failures`: times that deliveries failed and were made again; `refused`: records that Kafka will never take.
    """

    backlog: int = 0
    oldest_ms: int = 0
    failures: int = 0
    refused: int = 0


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


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """A record that a reader cannot use, for people to look at: where it stood, what it held, and why.

    `orphan`: feedback whose answer never came; otherwise nobody can read it, or it contradicts its answer.
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

    def consumed(self, reader: str, position: Mapping[str, int]) -> None:
        """`reader` will never ask for anything before `position` again. Raises LogUnavailable."""
        ...

    def set_aside(self, letters: Sequence[DeadLetter]) -> None:
        """Keep durably what cannot be used. After a restart the same may come twice. Raises LogUnavailable."""
        ...

    def reconcile(self, identity: str, position: Mapping[str, int]) -> tuple[Position, list[str]]:
        """Where to go on from `position` in what was the log `identity`, and a sentence for each thing that is missing.

        Nothing is missing: `position` as it is. Raises LogUnavailable.
        """
        ...

    def identity(self) -> str:
        """Names this log for good: another log, or the same name made anew, has another identity."""
        ...

    def close(self) -> None: ...


def covers(position: Mapping[str, int], other: Mapping[str, int]) -> bool:
    """True if everything before `other` is before `position` too."""
    return all(position.get(partition, 0) >= offset for partition, offset in other.items())
