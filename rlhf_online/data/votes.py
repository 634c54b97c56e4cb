"""The votes that count in a log, each with the exchanges that it judges. The log is read twice, as a stream.

First what no longer counts is gathered: votes that were replaced or taken back, conversations that were erased, a
person's earlier votes on the same answers. Then answers and votes are joined as the trainer joins them. In memory are
ids and what waits; answers are on disk.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from rlhf_online import wire
from rlhf_online.errors import UndecodableEvent
from rlhf_online.eventlog.base import Position, Source, has_reached
from rlhf_online.events import Envelope, Erasure, Feedback, Imported, Shredded, Withdrawal
from rlhf_online.feedback.answer_store import AnswerStore
from rlhf_online.feedback.erasures import Erasures
from rlhf_online.feedback.join import SHREDDED, Join, Joined
from rlhf_online.feedback.known_votes import KnownVotes
from rlhf_online.feedback.revisions import Revisions

if TYPE_CHECKING:
    from rlhf_online.keystore.keyring import Keyring

READ_RECORDS = 1000
_EVERY = 1 << 62


@dataclass(frozen=True, slots=True)
class LoggedVote:
    """A vote, with its answers; `imported` is where it came from, None for what was given here."""

    joined: Joined
    imported: Imported | None


class LoggedVotes:
    """The votes of `source` up to where it ended when this was made. `keys` open what is sealed; `left_out` counts
    those that do not count.

    Raises LogUnavailable, PositionLost, KeysUnavailable.
    """

    def __init__(self, source: Source, keys: "Keyring | None" = None) -> None:
        self.left_out: Counter[str] = Counter()
        self._source = source
        self._keys = keys
        self._end = source.end()
        self._erasures = Erasures(_EVERY)
        self._revisions = Revisions(_EVERY)
        self._latest: dict[tuple[object, ...], str] = {}
        """Event id of each person's latest vote on a subject."""
        self._gather()

    def __iter__(self) -> Iterator[LoggedVote]:
        with TemporaryDirectory() as folder:
            yield from self._joined(Path(folder))

    def _envelopes(self) -> Iterator[Envelope]:
        position: Position = {}
        while not has_reached(position, self._end):
            records, position = self._source.read(position, READ_RECORDS)
            for record in records:
                try:
                    if not record.damage:
                        yield wire.decode(record.payload, self._keys)
                except UndecodableEvent:
                    self.left_out["undecodable"] += 1

    def _gather(self) -> None:
        for envelope in self._envelopes():
            match envelope.event:
                case Erasure() as erasure if erasure.origin:
                    self._erasures.add(erasure)
                case Feedback() as vote:
                    if vote.replaces:
                        self._revisions.replace(envelope.event_id, vote.person, vote.replaces)
                    if vote.person:
                        self._latest[_subject(vote)] = envelope.event_id
                case _:
                    pass
        self.left_out.clear()  # the second reading counts

    def _joined(self, folder: Path) -> Iterator[LoggedVote]:
        join, known, seen = Join(AnswerStore(folder, keys=self._keys), _EVERY), KnownVotes(), set[str]()
        origins: dict[str, Imported] = {}
        for envelope in self._envelopes():
            if isinstance(vote := envelope.event, Feedback):
                if envelope.event_id in seen:
                    continue
                if why := self._why_not(envelope.event_id, vote, known):
                    self.left_out[why] += 1
                    continue
                known.add(envelope.event_id, vote)
                seen.add(envelope.event_id)
                if envelope.imported is not None:
                    origins[envelope.event_id] = envelope.imported
            elif isinstance(vote, Shredded) and vote.kind is Feedback:
                self.left_out["erased"] += 1
            for joined in join.add(envelope):
                asked = (completion for completion, _ in joined.answers.values())
                if self._erasures.cover_vote(joined.feedback) or any(map(self._erasures.cover, asked)):
                    self.left_out["erased"] += 1
                else:
                    yield LoggedVote(joined, origins.pop(joined.event_id, None))
            if join.answers.full:
                join.answers.seal()
        erased = sum(error is SHREDDED for _, _, error in join.dead_lettered)
        self.left_out["erased"] += erased
        self.left_out["no_answer"] += join.pending + len(join.dead_lettered) - erased

    def _why_not(self, event_id: str, vote: Feedback, known: KnownVotes) -> str:
        """Why a vote does not count; "" if it does."""
        if isinstance(vote.kind, Withdrawal) or self._revisions.by(event_id, vote.person):
            return "withdrawn"
        if known.is_another(event_id, vote) or known.is_somebody_elses(vote.replaces, vote.person):
            return "refused"
        if vote.person and self._latest[_subject(vote)] != event_id:
            return "superseded"
        return ""


def _subject(vote: Feedback) -> tuple[object, ...]:
    """What it judges: of two votes of one person on the same subject the later one counts."""
    judged = sorted((ref.completion_id, ref.index) for ref in vote.answers())
    return (vote.person, vote.objective, vote.kind_name, *judged)
