"""Answers ⋈ feedback: each feedback, once, with the answers that it judges, in whatever order they came.

Feedback waits for its answers, and answers for their feedback, for `window_ms` of the log's own time since they came.
That time is the median that the last events carried, and never goes back: one clock that is an hour, or a year, wrong
opens and closes nothing. Answers are on disk (`AnswerStore`); what waits is bounded in number and bytes, beyond which
the oldest go first.

Invariants:
- Every feedback leaves exactly once: joined, orphaned (`expire`), withdrawn, dead-lettered, or erased since the key of
  whose answer it judges was deleted; until then it is pending.
- `from_json(to_json())` goes on exactly where it was.
"""

import base64
from collections import OrderedDict, deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from rlhf_online.errors import UnusableVote
from rlhf_online.events import Answer, AnswerRef, Completion, Envelope, Feedback, Shredded
from rlhf_online.feedback.answer_store import AnswerStore
from rlhf_online.wire import decode, encode

CLOCK_EVENTS = 101
SHREDDED = UnusableVote("erased", "the key of who said it, or of who asked for what it judges, was deleted")
"""Of feedback that was erased, and is no dead letter."""


@dataclass(frozen=True, slots=True)
class Joined:
    """A feedback and every answer that it judges, with the completion that the answer is part of; and the trace that
    it was logged in."""

    event_id: str
    feedback: Feedback
    answers: dict[AnswerRef, tuple[Completion, Answer]]
    traceparent: str = ""


@dataclass(frozen=True, slots=True)
class _Waiting:
    envelope: Envelope
    since_ms: int
    size: int


class Join:
    """The window between answers and feedback. One owner, no thread of its own."""

    def __init__(
        self,
        answers: AnswerStore,
        window_ms: int,
        *,
        max_pending: int = 100_000,
        max_pending_bytes: int = 128 << 20,
        clock_events: int = CLOCK_EVENTS,
    ) -> None:
        self.answers = answers
        self._window_ms = window_ms
        self._max_pending = max_pending
        self._max_pending_bytes = max_pending_bytes
        self._now_ms = 0
        self._times_ms: deque[int] = deque(maxlen=clock_events)
        self._pending: OrderedDict[str, _Waiting] = OrderedDict()
        self._pending_bytes = 0
        self._waiting: dict[str, list[str]] = {}
        self._pushed_out: list[Envelope] = []
        self.duplicates = 0
        """Records dropped because their event is here."""
        self.dead_lettered: list[tuple[str, str, UnusableVote]] = []
        """Event id and person of, and what is wrong with, feedback that can't be joined; whoever counts them empties
        the list."""

    @property
    def pending(self) -> int:
        """Feedback that waits for an answer, or for `expire` to report it."""
        return len(self._pending) + len(self._pushed_out)

    def add(self, envelope: Envelope) -> list[Joined]:
        """Take an event; returns what it completes, in the order in which the feedback came.

        An answer that is open, or feedback that waits, is dropped when it comes again; feedback that has left is the
        caller's to know. Raises StateLost, after which only a checkpoint can be gone on from.
        """
        match envelope.event:
            case Completion() as completion:
                self._tick(completion.finished_ms)
                return self._add_completion(completion.completion_id, completion, envelope)
            case Shredded(kind=kind) as shredded if kind is Completion:
                self._tick(shredded.at_ms)
                return self._add_completion(envelope.event_id, shredded, envelope)
            case Feedback() as feedback:
                self._tick(feedback.created_ms)
                return self._add_feedback(feedback, envelope)
            case _:
                return []

    def withdraw(self, event_id: str, person: str) -> bool:
        """Drop a waiting feedback of that person's; False if there is none."""
        waiting = self._pending.get(event_id)
        if waiting is None or _feedback(waiting.envelope).person != person:
            return False
        self._forget(event_id)
        return True

    def waiting(self) -> list[tuple[str, str]]:
        """(event id, person) of the feedback that is pending, oldest first."""
        pending = [*self._pushed_out, *(waiting.envelope for waiting in self._pending.values())]
        return [(envelope.event_id, _feedback(envelope).person) for envelope in pending]

    def expire(self) -> list[Envelope]:
        """Drop what is older than the window; returns the feedback that is orphaned by it."""
        limit = self._now_ms - self._window_ms
        orphaned, self._pushed_out = self._pushed_out, []
        while self._pending:
            oldest = next(iter(self._pending.values()))
            if oldest.since_ms >= limit:
                break
            orphaned.append(self._forget(oldest.envelope.event_id))
        self.answers.expire(limit)
        return orphaned

    def to_json(self) -> dict[str, Any]:
        """The whole state in JSON's types, for the checkpoint, but for `dead_lettered`, which the caller takes before.

        The answers themselves are in the files of `seal`.
        """
        return {
            "now_ms": self._now_ms,
            "times_ms": list(self._times_ms),
            "answers": {"first": self.answers.first, "came": self.answers.total},
            "pending": [_text(waiting.envelope) for waiting in self._pending.values()],
            "since_ms": [waiting.since_ms for waiting in self._pending.values()],
            "pushed_out": [_text(envelope) for envelope in self._pushed_out],
            "duplicates": self.duplicates,
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any], answers: AnswerStore, window_ms: int, **bounds: int) -> Self:
        """The join that `to_json` described, with the window and bounds of now."""
        join = cls(answers, window_ms, **bounds)
        join._now_ms = values["now_ms"]
        join._times_ms.extend(values["times_ms"])
        for data, since_ms in zip(values["pending"], values["since_ms"], strict=True):
            if (envelope := join._restored(data)) is not None:
                join._wait(envelope, since_ms)
        join._pushed_out = [found for data in values["pushed_out"] if (found := join._restored(data)) is not None]
        join.duplicates = values["duplicates"]
        return join

    def _tick(self, ms: int) -> None:
        self._times_ms.append(ms)
        self._now_ms = max(self._now_ms, sorted(self._times_ms)[(len(self._times_ms) - 1) // 2])

    def _restored(self, data: str) -> Envelope | None:
        """Feedback of a checkpoint; None for what is shredded since."""
        envelope = decode(base64.b64decode(data), self.answers.keys)
        if isinstance(envelope.event, Shredded):
            self.dead_lettered.append((envelope.event_id, envelope.event.person, SHREDDED))
            return None
        return envelope

    def _add_completion(self, name: str, completion: Completion | Shredded, envelope: Envelope) -> list[Joined]:
        if self.answers.get(name) is not None:
            self.duplicates += 1
            return []
        self.answers.add(envelope, completion, self._now_ms)
        joined: list[Joined] = []
        for event_id in list(self._waiting.get(name, ())):
            joined += self._match(self._pending[event_id].envelope)
        return joined

    def _add_feedback(self, feedback: Feedback, envelope: Envelope) -> list[Joined]:
        if envelope.event_id in self._pending:
            self.duplicates += 1
            return []
        if not feedback.answers():
            why = UnusableVote("nothing", "it judges no answer")
            self.dead_lettered.append((envelope.event_id, feedback.person, why))
            return []
        self._wait(envelope, self._now_ms)
        joined = self._match(envelope)
        while len(self._pending) > self._max_pending or self._pending_bytes > self._max_pending_bytes:
            self._pushed_out.append(self._forget(next(iter(self._pending))))
        return joined

    def _match(self, envelope: Envelope) -> list[Joined]:
        """The feedback with its answers, once all of their completions are there; then it waits no longer.

        None also if it names an answer that they lack, or one of them is shredded.
        """
        feedback = _feedback(envelope)
        completions: dict[str, Completion] = {}
        for completion_id in _completion_ids(envelope):
            completion = self.answers.get(completion_id)
            if completion is None:
                return []
            if isinstance(completion, Shredded):
                self.dead_lettered.append((envelope.event_id, feedback.person, SHREDDED))
                self._forget(envelope.event_id)
                return []
            completions[completion_id] = completion
        self._forget(envelope.event_id)
        answers: dict[AnswerRef, tuple[Completion, Answer]] = {}
        for ref in feedback.answers():
            completion = completions[ref.completion_id]
            answer = next((answer for answer in completion.answers if answer.index == ref.index), None)
            if answer is None:
                why = UnusableVote("missing", f"completion {ref.completion_id} has no answer {ref.index}")
                self.dead_lettered.append((envelope.event_id, feedback.person, why))
                return []
            answers[ref] = (completion, answer)
        return [Joined(envelope.event_id, feedback, answers, envelope.traceparent)]

    def _wait(self, envelope: Envelope, since_ms: int) -> None:
        waiting = _Waiting(envelope, since_ms, len(encode(envelope)))
        self._pending[envelope.event_id] = waiting
        self._pending_bytes += waiting.size
        for completion_id in _completion_ids(envelope):
            self._waiting.setdefault(completion_id, []).append(envelope.event_id)

    def _forget(self, event_id: str) -> Envelope:
        gone = self._pending.pop(event_id)
        self._pending_bytes -= gone.size
        for completion_id in _completion_ids(gone.envelope):
            waiting = self._waiting[completion_id]
            waiting.remove(event_id)
            if not waiting:
                del self._waiting[completion_id]
        return gone.envelope


def _feedback(envelope: Envelope) -> Feedback:
    assert isinstance(envelope.event, Feedback)
    return envelope.event


def _text(envelope: Envelope) -> str:
    return base64.b64encode(encode(envelope)).decode()


def _completion_ids(envelope: Envelope) -> list[str]:
    """Each completion that the feedback names, once, in order."""
    return list(dict.fromkeys(ref.completion_id for ref in _feedback(envelope).answers()))
