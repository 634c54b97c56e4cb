"""The reading end of the trainer: records of the log become votes, live rollouts, prompts and reference answers.

    source ──▶ decode ──▶ join ──▶ preference ──▶ votes          (or held out, by the conversation's hash)
                  │         └──▶ orphaned, dead-lettered
                  └─ completions ──▶ rollout buffer · recent prompts · reference answers

Invariants: `position` is the log position up to which everything was read. An event id that the ledger knows is passed
over, whoever sends it again; `take` gives a vote its disposition in the ledger, once. What was read and not taken is in
memory alone, so a commit is made only when nothing is waiting here: what waits is read again from `position`.
"""

import hashlib
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import structlog

from rlhf_online.errors import InvalidInput, UndecodableEvent
from rlhf_online.eventlog.base import Letter, Position, Record, Source
from rlhf_online.events import Completion, Envelope, Feedback
from rlhf_online.feedback.join import Join, Joined
from rlhf_online.feedback.preferences import Preference, is_held_out, to_preference
from rlhf_online.rollout.buffer import Rollout, RolloutBuffer
from rlhf_online.rollout.live import rollouts_of
from rlhf_online.training.ledger import Ledger
from rlhf_online.wire import decode, encode

Tokens = tuple[int, ...]
READER = "trainer"
READ_RECORDS = 1000
MAX_VOTES = 8192
"""Votes of one cycle; more of them wait in the log."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IntakeSettings:
    """What the intake keeps.

    Feedback waits `window_ms` for its answers; `held_out` is a share of the conversations; `context` is the model's, in
    tokens; `check` raises InvalidInput for a vote that the models cannot read.
    """

    window_ms: int
    held_out: float
    prompts: int
    reference_answers: int
    eos_ids: Collection[int]
    context: int
    check: Callable[[Preference], None]


class Intake:
    """Reads `source` from `position` on. Use from one thread."""

    def __init__(self, source: Source, ledger: Ledger, buffer: RolloutBuffer, settings: IntakeSettings) -> None:
        self.join = Join(settings.window_ms)
        self.buffer = buffer
        self.position: Position = {}
        self.votes: list[Preference] = []
        self.held_out: list[Preference] = []
        self.reference: list[tuple[Tokens, Tokens]] = []
        """The first answers of the log: what scores are normalised on."""
        self.letters: list[Letter] = []
        """What cannot be used, until `set_aside` has put it away."""
        self.duplicates = 0
        self._source = source
        self._ledger = ledger
        self._settings = settings
        self._prompts: dict[Tokens, None] = {}
        self._log = structlog.get_logger()

    @property
    def prompts(self) -> list[Tokens]:
        """Different prompts, those asked most recently last."""
        return list(self._prompts)

    @property
    def pending(self) -> int:
        """Votes read that have no disposition yet: waiting for their answers, or for a cycle."""
        return self.join.pending + len(self.votes) + len(self.held_out)

    @property
    def lag(self) -> int:
        """Records in the log that were not read yet. Raises LogUnavailable."""
        return sum(offset - self.position.get(partition, 0) for partition, offset in self._source.end().items())

    def read(self) -> int:
        """Read what the log holds now, or until MAX_VOTES wait; returns the number of records.

        Raises PositionLost, LogUnavailable.
        """
        count = 0
        while len(self.votes) < MAX_VOTES:
            records, position = self._source.read(self.position, READ_RECORDS)
            for record in records:
                self._take_in(record)
            self.position = position
            count += len(records)
            if not records:
                break
        if count:
            for orphan in self.join.expire():
                if self._ledger.take(orphan.event_id, "orphaned"):
                    self.letters.append(_orphan(orphan))
        return count

    def set_aside(self) -> None:
        """Put away, durably, what cannot be used: before the commit whose ledger says so. Raises LogUnavailable."""
        self._source.set_aside(self.letters)
        self.letters = []

    def reconcile(self, identity: str, position: Position) -> tuple[Position, list[str]]:
        """See `Source.reconcile`."""
        return self._source.reconcile(identity, position)

    def release(self, position: Position) -> None:
        """The trainer will never again read what stands before `position`. Raises LogUnavailable."""
        self._source.consumed(READER, position)

    def take(self) -> tuple[list[Preference], list[Preference]]:
        """The votes to learn from and those held out, each with its disposition in the ledger from now on."""
        votes = [vote for vote in self.votes if self._ledger.take(vote.event_id, "trained")]
        held_out = [vote for vote in self.held_out if self._ledger.take(vote.event_id, "held_out")]
        self.votes, self.held_out = [], []
        return votes, held_out

    def to_json(self) -> dict[str, Any]:
        """What `restore` takes, all but the buffer. Nothing may be waiting: call it right after `take`."""
        assert not self.votes and not self.held_out, "votes that were read and not taken would be lost"
        return {
            "position": self.position,
            "join": self.join.to_json(),
            "prompts": list(self._prompts),
            "reference": self.reference,
            "duplicates": self.duplicates,
        }

    def restore(self, values: dict[str, Any]) -> None:
        """Become the intake that `to_json` described; the buffer is restored apart."""
        self.position = dict(values["position"])
        self.join = Join.from_json(values["join"], self._settings.window_ms)
        self._prompts = dict.fromkeys(tuple(ids) for ids in values["prompts"])
        self.reference = [(tuple(prompt), tuple(answer)) for prompt, answer in values["reference"]]
        self.duplicates = values["duplicates"]
        self.votes, self.held_out = [], []

    def _take_in(self, record: Record) -> None:
        if record.damage:
            self._dead_letter(f"damaged:{record.partition}:{record.offset}", record.damage, record)
            return
        try:
            envelope = decode(record.payload)
        except UndecodableEvent as error:
            self._dead_letter(f"undecodable:{hashlib.sha256(record.payload).hexdigest()}", str(error), record)
            return
        match envelope.event:
            case Feedback() if self._ledger.known(envelope.event_id):
                self.duplicates += 1
                return
            case Completion() as completion:
                self._remember(completion)
        self._join(envelope, record)

    def _join(self, envelope: Envelope, record: Record) -> None:
        for joined in self.join.add(envelope):
            try:
                self._sort(joined)
            except InvalidInput as error:
                self._dead_letter(joined.event_id, str(error), record)
        while self.join.dead_lettered:
            self._dead_letter(*self.join.dead_lettered.pop(), record)

    def _sort(self, joined: Joined) -> None:
        preference = to_preference(joined)
        self._settings.check(preference)
        if is_held_out(preference.conversation_id, self._settings.held_out):
            self.held_out.append(preference)
        else:
            self.votes.append(preference)

    def _remember(self, completion: Completion) -> None:
        """Keep a completion's prompt and answers for the policy update."""
        rollouts = [rollout for rollout in rollouts_of(completion, self._settings.eos_ids) if self._fits(rollout)]
        if not rollouts:
            return
        self.buffer.add(rollouts)
        prompt = completion.prompt_token_ids
        self._prompts.pop(prompt, None)
        self._prompts[prompt] = None
        if len(self._prompts) > self._settings.prompts:
            del self._prompts[next(iter(self._prompts))]
        room = self._settings.reference_answers - len(self.reference)
        self.reference += [(rollout.prompt_token_ids, rollout.token_ids) for rollout in rollouts[:room]]

    def _fits(self, rollout: Rollout) -> bool:
        return len(rollout.prompt_token_ids) + len(rollout.token_ids) <= self._settings.context

    def _dead_letter(self, event_id: str, why: str, record: Record) -> None:
        if self._ledger.take(event_id, "dead_lettered"):
            place = f"{record.partition}:{record.offset}"
            self.letters.append(
                Letter(
                    partition=record.partition,
                    offset=record.offset,
                    event_id=event_id,
                    reason=why,
                    payload=record.payload,
                )
            )
            self._log.warning("dead letter", event_id=event_id, place=place, why=why)


def _orphan(envelope: Envelope) -> Letter:
    """Its place is not known any more: its payload is the whole event."""
    why = "its answer did not come in time"
    return Letter(
        partition="", offset=-1, event_id=envelope.event_id, reason=why, payload=encode(envelope), orphan=True
    )
