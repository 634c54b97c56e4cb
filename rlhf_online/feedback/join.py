"""Answers ⋈ feedback: each feedback, once, with the answers that it judges, in whatever order they came.

Time is event time: the latest time that any event carried. Feedback waits for its answers, and answers for their
feedback, for `window_ms` of it. Both are bounded in number too; beyond the bound the oldest go first.

Invariants:
- An event id is taken once; later records of it are dropped and counted.
- Every feedback leaves exactly once: joined, orphaned (`expire`) or dead-lettered; until then it is pending.
- `from_json(to_json())` goes on exactly where it was.
"""

import base64
import hashlib
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from rlhf_online.events import Answer, AnswerRef, Completion, Envelope, Feedback
from rlhf_online.wire import decode, encode


@dataclass(frozen=True, slots=True)
class Joined:
    """A feedback and every answer that it judges, with the completion that the answer is part of."""

    event_id: str
    feedback: Feedback
    answers: dict[AnswerRef, tuple[Completion, Answer]]


class Join:
    """The window between answers and feedback. One owner, no thread of its own.

    Completions are kept as their protobuf bytes, a fraction of the objects' size.
    """

    def __init__(
        self, window_ms: int, *, max_answers: int = 1_000_000, max_pending: int = 100_000, max_seen: int = 4_000_000
    ) -> None:
        self._window_ms = window_ms
        self._max_answers = max_answers
        self._max_pending = max_pending
        self._max_seen = max_seen
        self._now_ms = 0
        self._answers: OrderedDict[str, tuple[int, bytes]] = OrderedDict()
        self._pending: OrderedDict[str, Envelope] = OrderedDict()
        self._waiting: dict[str, list[str]] = {}
        self._seen: OrderedDict[bytes, int] = OrderedDict()
        self._pushed_out: list[Envelope] = []
        self.duplicates = 0
        """Records dropped because their event had been taken."""
        self.dead_lettered: list[tuple[str, str]] = []
        """(event id, reason) of feedback that can't be joined; whoever counts them empties the list."""

    @property
    def pending(self) -> int:
        """Feedback that waits for an answer, or for `expire` to report it."""
        return len(self._pending) + len(self._pushed_out)

    def add(self, envelope: Envelope) -> list[Joined]:
        """Take an event; returns what it completes, in the order in which the feedback came."""
        digest = hashlib.blake2b(envelope.event_id.encode(), digest_size=16).digest()
        if digest in self._seen:
            self.duplicates += 1
            return []
        match envelope.event:
            case Completion() as completion:
                self._see(digest, completion.finished_ms)
                return self._add_completion(completion, envelope)
            case Feedback() as feedback:
                self._see(digest, feedback.created_ms)
                return self._add_feedback(feedback, envelope)
            case _:
                return []

    def expire(self) -> list[Envelope]:
        """Let go of what the window has passed; returns the feedback that is orphaned by it."""
        limit = self._now_ms - self._window_ms
        orphaned, self._pushed_out = self._pushed_out, []
        expired = [envelope for envelope in self._pending.values() if envelope.at_ms < limit]
        for envelope in expired:
            self._forget(envelope.event_id)
        for times in (self._seen, self._answers):
            while times:
                oldest = next(iter(times.values()))
                if (oldest if isinstance(oldest, int) else oldest[0]) >= limit:
                    break
                times.popitem(last=False)
        return orphaned + expired

    def to_json(self) -> dict[str, Any]:
        """The whole state in JSON's types, for the checkpoint."""
        return {
            "now_ms": self._now_ms,
            "answers": [[key, ms, base64.b64encode(data).decode()] for key, (ms, data) in self._answers.items()],
            "pending": [_text(envelope) for envelope in self._pending.values()],
            "seen": base64.b64encode(b"".join(self._seen)).decode(),
            "seen_ms": list(self._seen.values()),
            "pushed_out": [_text(envelope) for envelope in self._pushed_out],
            "duplicates": self.duplicates,
            "dead_lettered": [list(item) for item in self.dead_lettered],
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any], window_ms: int, **bounds: int) -> Self:
        """The join that `to_json` described, with the window and bounds of now."""
        join = cls(window_ms, **bounds)
        join._now_ms = values["now_ms"]
        join._answers = OrderedDict((key, (ms, base64.b64decode(data))) for key, ms, data in values["answers"])
        for data in values["pending"]:
            join._wait(decode(base64.b64decode(data)))
        digests = base64.b64decode(values["seen"])
        join._seen = OrderedDict(
            (digests[16 * number : 16 * number + 16], ms) for number, ms in enumerate(values["seen_ms"])
        )
        join._pushed_out = [decode(base64.b64decode(data)) for data in values["pushed_out"]]
        join.duplicates = values["duplicates"]
        join.dead_lettered = [(event_id, reason) for event_id, reason in values["dead_lettered"]]
        return join

    def _see(self, digest: bytes, ms: int) -> None:
        self._now_ms = max(self._now_ms, ms)
        self._seen[digest] = ms
        if len(self._seen) > self._max_seen:
            self._seen.popitem(last=False)

    def _add_completion(self, completion: Completion, envelope: Envelope) -> list[Joined]:
        self._answers[completion.completion_id] = (completion.finished_ms, encode(envelope))
        if len(self._answers) > self._max_answers:
            self._answers.popitem(last=False)
        joined: list[Joined] = []
        for event_id in list(self._waiting.get(completion.completion_id, ())):
            waiting = self._pending[event_id]
            if self._missing(waiting):
                continue
            self._forget(event_id)
            joined += self._match(waiting)
        return joined

    def _add_feedback(self, feedback: Feedback, envelope: Envelope) -> list[Joined]:
        if not feedback.answers():
            self.dead_lettered.append((envelope.event_id, "it judges no answer"))
            return []
        if not self._missing(envelope):
            return self._match(envelope)
        self._wait(envelope)
        if len(self._pending) > self._max_pending:
            oldest = next(iter(self._pending.values()))
            self._forget(oldest.event_id)
            self._pushed_out.append(oldest)
        return []

    def _match(self, envelope: Envelope) -> list[Joined]:
        """The feedback with its answers, all of whose completions are there; none if it names an answer they lack."""
        feedback = _feedback(envelope)
        answers: dict[AnswerRef, tuple[Completion, Answer]] = {}
        completions: dict[str, Completion] = {}
        for ref in feedback.answers():
            if ref.completion_id not in completions:
                completion = decode(self._answers[ref.completion_id][1]).event
                assert isinstance(completion, Completion)
                completions[ref.completion_id] = completion
            completion = completions[ref.completion_id]
            answer = next((answer for answer in completion.answers if answer.index == ref.index), None)
            if answer is None:
                reason = f"completion {ref.completion_id} has no answer {ref.index}"
                self.dead_lettered.append((envelope.event_id, reason))
                return []
            answers[ref] = (completion, answer)
        return [Joined(event_id=envelope.event_id, feedback=feedback, answers=answers)]

    def _missing(self, envelope: Envelope) -> bool:
        return any(completion_id not in self._answers for completion_id in _completion_ids(envelope))

    def _wait(self, envelope: Envelope) -> None:
        self._pending[envelope.event_id] = envelope
        for completion_id in _completion_ids(envelope):
            self._waiting.setdefault(completion_id, []).append(envelope.event_id)

    def _forget(self, event_id: str) -> None:
        for completion_id in _completion_ids(self._pending.pop(event_id)):
            waiting = self._waiting[completion_id]
            waiting.remove(event_id)
            if not waiting:
                del self._waiting[completion_id]


def _feedback(envelope: Envelope) -> Feedback:
    assert isinstance(envelope.event, Feedback)
    return envelope.event


def _text(envelope: Envelope) -> str:
    return base64.b64encode(encode(envelope)).decode()


def _completion_ids(envelope: Envelope) -> list[str]:
    """Each completion that the feedback names, once, in order."""
    return list(dict.fromkeys(ref.completion_id for ref in _feedback(envelope).answers()))
