"""Reads the log from a position on, and sorts what it holds.

Invariants: `position` is the log position up to which everything was read, and `to_json` says all that came of it. A
record that a forwarder sent again is known by its spool and number, an event that a client sent again by its id: both
are passed over.
"""

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlhf_online.canary.settings import CanarySettings
from rlhf_online.canary.tally import Tally
from rlhf_online.errors import UndecodableEvent, UnusableVote
from rlhf_online.eventlog.base import Position, Record, Source
from rlhf_online.events import Completion, Envelope, Erasure, Feedback, Shredded, Withdrawal
from rlhf_online.feedback.answer_store import AnswerStore
from rlhf_online.feedback.conversion import AnswerIds, PromptIds, to_vote
from rlhf_online.feedback.delivered import DeliveredOffsets
from rlhf_online.feedback.held_out import use_of
from rlhf_online.feedback.join import SHREDDED, Join
from rlhf_online.feedback.known_votes import KnownVotes, content
from rlhf_online.feedback.limits import VoteLimits, check_vote
from rlhf_online.rollout.buffer import RolloutBuffer
from rlhf_online.training.intake.dead_letters import DeadLetters
from rlhf_online.training.intake.joined_votes import JoinedVotes
from rlhf_online.training.intake.policy_inputs import PolicyInputs
from rlhf_online.training.ledger import Ledger
from rlhf_online.versions.manifest import Kind
from rlhf_online.wire import decode

if TYPE_CHECKING:
    from rlhf_online.keystore.keyring import Keyring

READER = "trainer"
READ_RECORDS = 1000
MAX_VOTES = 8192
"""Votes of one cycle; more of them wait in the log."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IntakeSettings:
    """What the intake keeps. `answers` is the folder of the answers' sealed files.

    Feedback waits `window_ms` for its answers; `held_out` and `held_back` are shares of the conversations
    (`feedback.held_out`); `limits` say what the models can learn from; `answer_ids` and `prompt_ids` tokenise what was
    logged as text. `keys` open what is sealed: a call of them may wait for a store that is away.
    """

    answers: Path
    window_ms: int
    held_out: float
    prompts: int
    reference_answers: int
    eos_ids: Collection[int]
    limits: VoteLimits
    answer_ids: AnswerIds
    prompt_ids: PromptIds | None = None
    held_back: float = 0.0
    canary: CanarySettings = field(default_factory=CanarySettings)
    keys: "Keyring | None" = None


class Intake:
    """Reads `source` from `position` on. Use from one thread. `canaries` is what is counted of each, by its kind.
    Large because every record passes here, to each of those that keep something of it."""

    def __init__(self, source: Source, ledger: Ledger, buffer: RolloutBuffer, settings: IntakeSettings) -> None:
        self.join = Join(AnswerStore(settings.answers, keys=settings.keys), settings.window_ms)
        self.votes = JoinedVotes(ledger, settings.held_out, settings.held_back)
        self.policy_inputs = PolicyInputs(
            buffer,
            limits=settings.limits.models,
            eos_ids=settings.eos_ids,
            max_prompts=settings.prompts,
            max_reference_answers=settings.reference_answers,
        )
        self.dead_letters = DeadLetters(ledger)
        self.canaries: dict[Kind, Tally] = {}
        self.joined_ms: list[int] = []
        """When the votes were given that were joined since the last time that somebody took them from here."""
        self.position: Position = {}
        self.uncommitted = 0
        """Records read since the last `to_json`."""
        self.duplicates = 0
        self._delivered = DeliveredOffsets()
        self._known = KnownVotes()
        self._source = source
        self._ledger = ledger
        self._settings = settings

    @property
    def pending(self) -> int:
        """Votes read that have no disposition yet: waiting for their answers, or for a cycle."""
        return self.join.pending + len(self.votes)

    @property
    def full(self) -> bool:
        """True if no more is read before a cycle has taken the votes that wait."""
        return len(self.votes) >= MAX_VOTES

    @property
    def lag(self) -> int:
        """Records in the log that were not read yet. Raises LogUnavailable."""
        return sum(offset - self.position.get(partition, 0) for partition, offset in self._source.end().items())

    def read(self) -> int:
        """Read what the log holds now, or until MAX_VOTES wait; returns the number of records.

        Raises PositionLost; LogUnavailable and CheckpointError, after which it may be called again; StateLost.
        """
        count = 0
        while not self.full:
            self._spill()
            records, position = self._source.read(self.position, READ_RECORDS)
            for record in records:
                self._take_in(record)
            self.position = position
            count += len(records)
            self.uncommitted += len(records)
            if not records:
                # All partitions are read to their ends: before that time says nothing, since after an outage votes,
                # which are few, are read days ahead of their answers.
                for orphan in self.join.expire():
                    self.dead_letters.add_orphan(orphan)
                break
        return count

    def _spill(self) -> None:
        """Bound memory between two commits. Dead letters written here may be written again after a restart."""
        if self.join.answers.full:
            self.join.answers.seal()
        if self.dead_letters.full:
            self.write_dead_letters()

    def write_dead_letters(self) -> None:
        """Make dead letters durable: before the commit whose ledger says so. Raises LogUnavailable."""
        self._source.write_dead_letters(self.dead_letters.unsaved)
        self.dead_letters.unsaved = []

    def resume_position(self, identity: str, position: Position) -> tuple[Position, list[str]]:
        """See `Source.resume_position`."""
        return self._source.resume_position(identity, position)

    def mark_consumed(self, position: Position) -> None:
        """Tell the log that no checkpoint needs what stands before `position`. Raises LogUnavailable."""
        self._source.mark_consumed(READER, position)

    def to_json(self) -> dict[str, Any]:
        """What `restore` takes, all but the rollout buffer and the answers, which the join has sealed."""
        self.uncommitted = 0
        return {
            "position": self.position,
            "join": self.join.to_json(),
            "delivered": self._delivered.to_json(),
            "known": self._known.to_json(),
            "duplicates": self.duplicates,
            "news": dict(self._ledger.news),
            **self.votes.to_json(),
            **self.policy_inputs.to_json(),
            **self.dead_letters.to_json(),
            "canaries": {kind: tally.to_json() for kind, tally in self.canaries.items()},
        }

    def restore(self, values: dict[str, Any], answers: Sequence[str]) -> None:
        """Become the intake that `to_json` described; the buffer is restored apart. `answers` names the sealed files.

        Raises CheckpointError.
        """
        first, came = values["join"]["answers"]["first"], values["join"]["answers"]["came"]
        store = AnswerStore.load(self._settings.answers, answers, first, came, keys=self._settings.keys)
        self.join = Join.from_json(values["join"], store, self._settings.window_ms)
        for event_id, person, _ in self.join.dead_lettered:  # whose key was deleted since
            self._ledger.erase(event_id, person)
        self.join.dead_lettered.clear()
        self.position = dict(values["position"])
        self._delivered = DeliveredOffsets.from_json(values["delivered"])
        self._known = KnownVotes.from_json(values.get("known", ()))  # which earlier releases did not keep
        self.duplicates = values["duplicates"]
        self._ledger.news = dict(values.get("news", {}))  # which earlier releases did not tell
        for part in (self.votes, self.policy_inputs, self.dead_letters):
            part.restore(values)
        alone = values.get("canary", {})  # of a release that had everybody's alone
        earlier = {"policy": alone} if alone.get("version") else {}
        self.canaries = {kind: Tally.from_json(told) for kind, told in values.get("canaries", earlier).items()}
        self.uncommitted = 0

    # A record

    def _take_in(self, record: Record) -> None:
        if record.origin is not None and not self._delivered.add(*record.origin):
            self.duplicates += 1
            return
        if record.damage:
            name = f"damaged:{record.partition}:{record.offset}"
            self.dead_letters.add(name, "damaged", record.damage, record)
            return
        try:
            envelope = decode(record.payload, self._settings.keys)
        except UndecodableEvent as error:
            name = f"undecodable:{hashlib.sha256(record.payload).hexdigest()}"
            self.dead_letters.add(name, "undecodable", str(error), record)
            return
        match envelope.event:
            case Shredded(kind=kind, person=person) if kind is Feedback:
                self._ledger.erase(envelope.event_id, person)
                return
            case Feedback() as feedback if self.votes.erasures.cover_vote(feedback):
                self._ledger.erase(envelope.event_id, feedback.person)
                return
            case Feedback() as feedback:
                if self._refused(envelope.event_id, feedback, record):
                    return
                self._known.add(envelope.event_id, feedback)
                if envelope.event_id in self.votes or self._ledger.known(envelope.event_id):
                    self.duplicates += 1
                    return
                if self.votes.revise(envelope.event_id, feedback, self.join):
                    if isinstance(feedback.kind, Withdrawal):
                        for tally in self.canaries.values():
                            tally.withdraw(feedback)
                    return
            case Completion() as completion if not self.votes.erasures.cover(completion):
                shares = {"held_out": self._settings.held_out, "held_back": self._settings.held_back}
                unseen = use_of(completion.conversation_id, **shares) != "learned"
                self.policy_inputs.add(completion, held_out=unseen)
                for tally in self.canaries.values():
                    tally.add_completion(completion, self._settings.canary.guardrails.slow_s)
            case Erasure() as erasure:
                self._erase(erasure)
                return
        self._join(envelope, record)

    def _erase(self, erasure: Erasure) -> None:
        """Nothing that was not learned from yet stays of a conversation, or of all of a person's. Nobody's cannot be
        erased."""
        if erasure.origin:
            if erasure.whole and self._settings.keys is not None:
                self._settings.keys.forget(erasure.person)
            self.votes.erase(erasure)
            for tally in self.canaries.values():
                tally.erase(erasure)
            self.policy_inputs.erase(erasure)

    def _refused(self, event_id: str, feedback: Feedback, record: Record) -> bool:
        """Whether it is another vote under the id of one that is known, or would replace somebody else's."""
        if self._known.is_another(event_id, feedback):
            why = f"another vote was sent under the idempotency key of {event_id}, which counts"
            self.dead_letters.add(f"{event_id}#{content(feedback)}", "reused_key", why, record)
            return True
        if self._known.is_somebody_elses(feedback.replaces, feedback.person):
            why = f"it would replace {feedback.replaces}, which is somebody else's"
            self.dead_letters.add(event_id, "stranger", why, record, feedback.person)
            return True
        return False

    def _join(self, envelope: Envelope, record: Record) -> None:
        """What the event completes becomes votes that wait, or dead letters."""
        for joined in self.join.add(envelope):
            erasures = self.votes.erasures
            asked = (completion for completion, _ in joined.answers.values())
            if erasures.cover_vote(joined.feedback) or any(map(erasures.cover, asked)):
                self._ledger.erase(joined.event_id, joined.feedback.person)
                continue
            for tally in self.canaries.values():
                tally.add_vote(joined.feedback, joined.answers, self._settings.canary.look)
            try:
                vote = to_vote(joined, self._settings.answer_ids, self._settings.prompt_ids)
                check_vote(vote, self._settings.limits)
            except UnusableVote as error:
                self.dead_letters.add(joined.event_id, error.reason, str(error), record, joined.feedback.person)
            else:
                self.votes.add(vote, joined.traceparent)
                self.joined_ms.append(vote.created_ms)
        while self.join.dead_lettered:
            event_id, person, error = self.join.dead_lettered.pop()
            if error is SHREDDED:
                self._ledger.erase(event_id, person)
            else:
                self.dead_letters.add(event_id, error.reason, str(error), record, person)
