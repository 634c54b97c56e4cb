"""The reading end of the trainer: records of the log become votes, live rollouts, prompts and reference answers.

    source ──▶ decode ──▶ join ──▶ preference ──▶ votes          (or held out, by the conversation's hash)
                  │         └──▶ orphaned, dead-lettered
                  └─ completions ──▶ rollout buffer · recent prompts · reference answers

Invariants: `position` is the log position up to which everything was read, and `to_json` says all that came of it. A
record that a forwarder sent again is known by its spool and number, an event that a client sent again by its id: both
are passed over. Every vote gets its disposition in the ledger once: when it is taken, withdrawn or set aside.
"""

import hashlib
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from rlhf_online.errors import UndecodableEvent, UnusableVote
from rlhf_online.eventlog.base import DeadLetter, Position, Record, Source
from rlhf_online.events import Completion, Envelope, Feedback, Withdrawal
from rlhf_online.feedback.answer_store import AnswerStore
from rlhf_online.feedback.conversion import AnswerIds, to_vote
from rlhf_online.feedback.delivered import DeliveredOffsets
from rlhf_online.feedback.held_out import is_held_out
from rlhf_online.feedback.join import Join, Joined
from rlhf_online.feedback.limits import VoteLimits, check_vote
from rlhf_online.feedback.revisions import Revisions
from rlhf_online.feedback.votes import Vote, from_json, to_json
from rlhf_online.rollout.buffer import RolloutBuffer
from rlhf_online.rollout.eligibility import eligible_rollouts
from rlhf_online.training.ledger import Ledger
from rlhf_online.wire import decode, encode

Tokens = tuple[int, ...]
READER = "trainer"
READ_RECORDS = 1000
MAX_VOTES = 8192
"""Votes of one cycle; more of them wait in the log."""
MAX_LETTER_BYTES = 16 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class IntakeSettings:
    """What the intake keeps. `answers` is the folder of the answers' sealed files.

    Feedback waits `window_ms` for its answers; `held_out` is a share of the conversations; `limits` say what the
    models can learn from; `answer_ids` tokenises an answer that was logged as text.
    """

    answers: Path
    window_ms: int
    held_out: float
    prompts: int
    reference_answers: int
    eos_ids: Collection[int]
    limits: VoteLimits
    answer_ids: AnswerIds


class Intake:
    """Reads `source` from `position` on. Use from one thread."""

    def __init__(self, source: Source, ledger: Ledger, buffer: RolloutBuffer, settings: IntakeSettings) -> None:
        self.join = Join(AnswerStore(settings.answers), settings.window_ms)
        self.buffer = buffer
        self.position: Position = {}
        self.uncommitted = 0
        """Records read since the last `to_json`."""
        self.revoked: list[tuple[str, str]] = []
        """(event id, person) of votes taken back after they were taken in, if they are that person's."""
        self.reference: list[tuple[Tokens, Tokens]] = []
        """The first answers of the log: what scores are normalised on."""
        self.letters: list[DeadLetter] = []
        """What cannot be used, until `set_aside` has put it away."""
        self.duplicates = 0
        self.left_out: Counter[str] = Counter()
        """Answers that may not train the policy, or that the models cannot read, by reason."""
        self.dead_letters: Counter[str] = Counter()
        """What was set aside because nobody can use it, by reason: those of UnusableVote, damaged, undecodable."""
        self._source = source
        self._ledger = ledger
        self._settings = settings
        self._prompts: dict[Tokens, None] = {}
        self._taken = DeliveredOffsets()
        self._revisions = Revisions()
        # Votes that wait for a cycle, and whether each is held out.
        self._votes: dict[str, tuple[Vote, bool]] = {}
        self._log = structlog.get_logger()

    @property
    def waiting(self) -> int:
        """Votes that the next `take` would give to learn from."""
        return sum(not held_out for _, held_out in self._votes.values())

    @property
    def prompts(self) -> list[Tokens]:
        """Different prompts, those asked most recently last."""
        return list(self._prompts)

    @property
    def pending(self) -> int:
        """Votes read that have no disposition yet: waiting for their answers, or for a cycle."""
        return self.join.pending + len(self._votes)

    @property
    def lag(self) -> int:
        """Records in the log that were not read yet. Raises LogUnavailable."""
        return sum(offset - self.position.get(partition, 0) for partition, offset in self._source.end().items())

    def read(self) -> int:
        """Read what the log holds now, or until MAX_VOTES wait; returns the number of records.

        Raises PositionLost; LogUnavailable and CheckpointError, after which it may be called again; StateLost.
        """
        count = 0
        while len(self._votes) < MAX_VOTES:
            self._spill()
            records, position = self._source.read(self.position, READ_RECORDS)
            for record in records:
                self._take_in(record)
            self.position = position
            count += len(records)
            self.uncommitted += len(records)
            if not records:
                self._expire()
                break
        return count

    def _expire(self) -> None:
        """Let go of what the window has passed, once all partitions are read to their ends.

        Before that time says nothing: after an outage votes, which are few, are read days ahead of their answers.
        """
        for orphan in self.join.expire():
            if self._ledger.take(orphan.event_id, "orphaned"):
                self.letters.append(_orphan(orphan))

    def _spill(self) -> None:
        """Let memory not grow between two commits. What is set aside here may be set aside again after a restart."""
        if self.join.answers.full:
            self.join.answers.seal()
        if sum(len(letter.payload) for letter in self.letters) > MAX_LETTER_BYTES:
            self.set_aside()

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

    def take(self) -> tuple[list[Vote], list[Vote]]:
        """The votes to learn from and those held out, each with its disposition in the ledger from now on."""
        votes: tuple[list[Vote], list[Vote]] = [], []
        for event_id, (vote, held_out) in self._votes.items():
            if self._ledger.take(event_id, "held_out" if held_out else "trained"):
                votes[held_out].append(vote)
        self._votes = {}
        return votes

    def to_json(self) -> dict[str, Any]:
        """What `restore` takes, all but the buffer and the answers, which the join has sealed."""
        self.uncommitted = 0
        return {
            "position": self.position,
            "join": self.join.to_json(),
            "votes": [{"held_out": held_out, "vote": to_json(vote)} for vote, held_out in self._votes.values()],
            "taken": self._taken.to_json(),
            "revisions": self._revisions.to_json(),
            "revoked": self.revoked,
            "prompts": list(self._prompts),
            "reference": self.reference,
            "duplicates": self.duplicates,
            "left_out": self.left_out,
            "dead_letters": self.dead_letters,
        }

    def restore(self, values: dict[str, Any], answers: Sequence[str]) -> None:
        """Become the intake that `to_json` described; the buffer is restored apart. `answers` names the sealed files.

        Raises CheckpointError.
        """
        first, came = values["join"]["answers"]["first"], values["join"]["answers"]["came"]
        self.position = dict(values["position"])
        found = AnswerStore.load(self._settings.answers, answers, first, came)
        self.join = Join.from_json(values["join"], found, self._settings.window_ms)
        votes = [(from_json(item["vote"]), item["held_out"]) for item in values["votes"]]
        self._votes = {vote.event_id: (vote, held_out) for vote, held_out in votes}
        self._taken = DeliveredOffsets.from_json(values["taken"])
        self._revisions = Revisions.from_json(values["revisions"])
        self.revoked = [(event_id, person) for event_id, person in values["revoked"]]
        self._prompts = dict.fromkeys(tuple(ids) for ids in values["prompts"])
        self.reference = [(tuple(prompt), tuple(answer)) for prompt, answer in values["reference"]]
        self.duplicates = values["duplicates"]
        self.left_out = Counter(values["left_out"])
        self.dead_letters = Counter(values["dead_letters"])
        self.uncommitted = 0

    def _take_in(self, record: Record) -> None:
        if record.origin is not None and not self._taken.add(*record.origin):
            self.duplicates += 1
            return
        if record.damage:
            self._dead_letter(f"damaged:{record.partition}:{record.offset}", "damaged", record.damage, record)
            return
        try:
            envelope = decode(record.payload)
        except UndecodableEvent as error:
            self._dead_letter(
                f"undecodable:{hashlib.sha256(record.payload).hexdigest()}", "undecodable", str(error), record
            )
            return
        match envelope.event:
            case Feedback() as feedback:
                if envelope.event_id in self._votes or self._ledger.known(envelope.event_id):
                    self.duplicates += 1
                    return
                if self._revise(envelope.event_id, feedback):
                    return
            case Completion() as completion:
                self._remember(completion)
        self._join(envelope, record)

    def _revise(self, event_id: str, feedback: Feedback) -> bool:
        """Take back what the feedback replaces; True if there is no more to it: it is a withdrawal, or was replaced."""
        if feedback.replaces:
            for gone in self._revisions.replace(event_id, feedback.person, feedback.replaces):
                self._withdraw(gone, feedback.person)
        if isinstance(feedback.kind, Withdrawal) or self._revisions.replaced(event_id, feedback.person):
            self._ledger.take(event_id, "withdrawn")
            return True
        return False

    def _withdraw(self, event_id: str, person: str) -> None:
        """Let the person's vote count no more, if it is here; if it has been learned from, it will not be again."""
        if self._ledger.known(event_id):
            self.revoked.append((event_id, person))
            return
        waiting = self._votes.get(event_id)
        if waiting is not None and waiting[0].person == person:
            del self._votes[event_id]
            self._ledger.take(event_id, "withdrawn")
        elif self.join.withdraw(event_id, person):
            self._ledger.take(event_id, "withdrawn")

    def _join(self, envelope: Envelope, record: Record) -> None:
        for joined in self.join.add(envelope):
            try:
                self._sort(joined)
            except UnusableVote as error:
                self._dead_letter(joined.event_id, error.reason, str(error), record)
        while self.join.dead_lettered:
            event_id, error = self.join.dead_lettered.pop()
            self._dead_letter(event_id, error.reason, str(error), record)

    def _sort(self, joined: Joined) -> None:
        vote = to_vote(joined, self._settings.answer_ids)
        check_vote(vote, self._settings.limits)
        self._votes[vote.event_id] = vote, is_held_out(vote.conversation_id, self._settings.held_out)

    def _remember(self, completion: Completion) -> None:
        """Keep a completion's prompt and answers for the policy update."""
        rollouts, left_out = eligible_rollouts(completion, self._settings.eos_ids, self._settings.limits.models)
        self.left_out += left_out
        if not rollouts:
            return
        self.buffer.add(rollouts)
        prompt = completion.prompt_token_ids
        self._prompts.pop(prompt, None)
        self._prompts[prompt] = None
        if len(self._prompts) > self._settings.prompts:
            del self._prompts[next(iter(self._prompts))]
        if is_held_out(completion.conversation_id, self._settings.held_out):
            return  # reference answers teach: implicit signals are compared with them
        room = self._settings.reference_answers - len(self.reference)
        self.reference += [(rollout.prompt_token_ids, rollout.token_ids) for rollout in rollouts[:room]]

    def _dead_letter(self, event_id: str, reason: str, why: str, record: Record) -> None:
        if self._ledger.take(event_id, "dead_lettered"):
            self.dead_letters[reason] += 1
            place = f"{record.partition}:{record.offset}"
            self.letters.append(
                DeadLetter(
                    partition=record.partition,
                    offset=record.offset,
                    event_id=event_id,
                    reason=why,
                    payload=record.payload,
                )
            )
            self._log.warning("dead letter", event_id=event_id, place=place, reason=reason, why=why)


def _orphan(envelope: Envelope) -> DeadLetter:
    """Its place is not known any more: its payload is the whole event."""
    why = "its answer did not come in time"
    return DeadLetter(
        partition="", offset=-1, event_id=envelope.event_id, reason=why, payload=encode(envelope), orphan=True
    )
