"""An answer, and what was said of it, in the log: one pass over all that it holds, since a log has no index.

A local log is read at some 80 MB, or 90,000 records of 1 KB, a second of CPU; Kafka's topics as fast as the brokers
deliver. Records that cannot be read are passed over: the trainer sets them aside.
"""

from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rlhf_online.errors import UndecodableEvent
from rlhf_online.eventlog.base import Position, Source, has_reached
from rlhf_online.events import Completion, Erasure, Feedback, Shredded
from rlhf_online.wire import decode, peek

if TYPE_CHECKING:
    from rlhf_online.keystore.keyring import Keyring

AT_ONCE = 1000


@dataclass(frozen=True, slots=True)
class Place:
    """Where a record stands: "local", or a Kafka topic and partition ("rlhf.feedback/3"), and its number there."""

    partition: str
    offset: int


@dataclass(frozen=True, slots=True)
class FoundVote:
    event_id: str
    vote: Feedback
    place: Place


@dataclass(slots=True, kw_only=True)
class Found:
    """What the log holds of a completion. `completion` and `place` are None where it has none of that id.

    A completion whose person's key was deleted has a `place`, and nothing besides.
    `votes` in their order, none twice; `replaced`: by the (event id, person) of a vote, the one that took its place;
    `erased_ms`: when its person erased the conversation, 0 if they did not; `first`: the first record of each
    partition.
    """

    completion: Completion | None = None
    place: Place | None = None
    votes: dict[str, FoundVote] = field(default_factory=dict)
    replaced: dict[tuple[str, str], str] = field(default_factory=dict)
    erased_ms: int = 0
    first: Position = field(default_factory=dict)

    @property
    def cut(self) -> bool:
        """Whether retention has removed records."""
        return any(self.first.values())


def search(source: Source, completion_id: str, keys: "Keyring | None" = None) -> Found:
    """Read the log from its beginning to where it ends now. `keys` open what is sealed.

    Raises LogUnavailable, PositionLost.
    """
    found, erased, shredded = Found(), list[Erasure](), None
    position, end = Position(), source.end()
    while not has_reached(position, end):
        records, position = source.read(position, AT_ONCE)
        if not records:
            break
        for record in records:
            found.first.setdefault(record.partition, record.offset)
            with suppress(UndecodableEvent):
                if record.damage:
                    continue
                header, place = peek(record.payload), Place(record.partition, record.offset)
                if header.kind is Completion:
                    if header.event_id == completion_id and found.place is None:
                        event, found.place = decode(record.payload, keys).event, place
                        if isinstance(event, Completion):
                            found.completion = event
                        elif isinstance(event, Shredded):
                            found.erased_ms = event.at_ms  # or later: the log says when, below
                            shredded = event
                elif header.kind in (Feedback, Erasure):
                    _take_in(found, erased, completion_id, header.event_id, decode(record.payload, keys).event, place)
    if (whose := found.completion or shredded) is not None:
        times = (each.erased_ms for each in erased if each.covers(whose.conversation_id, whose.person))
        since = whose.started_ms if isinstance(whose, Completion) else whose.at_ms
        found.erased_ms = max((ms for ms in times if ms >= since), default=found.erased_ms)
    return found


def _take_in(
    found: Found, erased: list[Erasure], completion_id: str, event_id: str, event: object, place: Place
) -> None:
    match event:
        case Erasure():
            erased.append(event)
        case Feedback():
            if event.replaces:
                found.replaced[event.replaces, event.person] = event_id
            if completion_id in {ref.completion_id for ref in event.answers()}:
                found.votes.setdefault(event_id, FoundVote(event_id, event, place))
