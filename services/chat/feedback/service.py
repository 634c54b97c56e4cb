"""Accepts votes: checked, made an event, on disk, acknowledged. Needs only the log: no engine, no model."""

from collections.abc import Mapping, Sequence
from typing import Any

from typing_extensions import TypedDict

from rlhf_online.eventlog.base import Position
from rlhf_online.events import Envelope, Feedback, Withdrawal, now_ms
from rlhf_online.metrics import ChatMetrics
from rlhf_online.metrics.exemplars import exemplar
from rlhf_online.state import PersonHash
from services.chat.access.caller import Caller
from services.chat.access.limits import Limits
from services.chat.bodies.api_error import ApiError, outcome
from services.chat.bodies.documented import documented
from services.chat.bodies.validation import validate
from services.chat.event_writer import EventWriter
from services.chat.feedback.checks import FeedbackChecks
from services.chat.feedback.request import FeedbackRequest, event_id


@documented
class FeedbackAccepted(TypedDict):
    """The vote is on disk."""

    event_id: str
    """What `replaces` of an edit or a withdrawal names."""
    position: Position
    """Where the log stands after the vote, partition → next offset: a version whose position covers it has read it."""


@documented
class FeedbackOptions(TypedDict):
    """What a vote may name."""

    objectives: list[str]
    """What answers are judged by; the first where a vote names none."""
    reasons: list[str]
    """The tags by which a vote may say why."""


class FeedbackService:
    """Where both HTTP and gRPC bring feedback; `objectives` and `reasons` are what a vote may name."""

    def __init__(
        self,
        writer: EventWriter,
        checks: FeedbackChecks,
        person_hash: PersonHash,
        metrics: ChatMetrics,
        objectives: Sequence[str],
        reasons: Sequence[str],
        limits: Limits,
    ) -> None:
        self.writer = writer
        self.checks = checks
        self.person_hash = person_hash
        self.metrics = metrics
        self.objectives = objectives
        self.reasons = reasons
        self.limits = limits

    async def accept(self, values: Mapping[str, Any], caller: Caller) -> FeedbackAccepted:
        """Raises ApiError or LogUnavailable: not acknowledged."""
        return await self.write(self.checked(values, caller))

    def checked(self, values: Mapping[str, Any], caller: Caller) -> Envelope:
        """The vote as it is to be written. Raises ApiError."""
        kind = "unknown"
        try:
            request = validate(FeedbackRequest, values)
            kind = request.kind
            self._check_objective(request.objective)
            self._check_reasons(request.reasons)
            caller = caller.named(request.user, self.person_hash)
            event = request.event(person=caller.person, key_id=caller.key_id, now_ms=now_ms())
            event = self.checks.marked(event)
            made = event_id(event, request.idempotency_key)
            self.checks.check(made, event)
            if made not in self.checks.votes:  # one that is sent again was paid for
                self.limits.feedback(caller)
            self.checks.votes.add(made, event)  # before it is on disk: the same key may come again in the meantime
        except Exception as error:
            self.count(kind, outcome(error))
            raise
        return Envelope(event_id=made, event=event)

    async def write(self, vote: Envelope) -> FeedbackAccepted:
        """Raises LogUnavailable: not acknowledged."""
        assert isinstance(vote.event, Feedback)
        kind = vote.event.kind_name
        try:
            position = await self.writer.append(vote)
            self.checks.comparisons.voted(vote.event)
        except Exception as error:
            self.count(kind, outcome(error))
            raise
        self.count(kind, "ok")
        if not isinstance(vote.event.kind, Withdrawal):
            seconds = max(0, now_ms() - vote.event.created_ms) / 1000
            self.metrics.votes.to_live.labels("accepted").observe(seconds, exemplar())
        return {"event_id": vote.event_id, "position": position}

    def options(self) -> FeedbackOptions:
        return {"objectives": list(self.objectives), "reasons": list(self.reasons)}

    def count(self, kind: str, outcome: str) -> None:
        self.metrics.votes.taken.labels(kind=kind, outcome=outcome).inc()

    def _check_objective(self, name: str) -> None:
        if name and name not in self.objectives:
            message = f"objective: expected one of {', '.join(self.objectives)}; leave it out for the first"
            raise ApiError(message, param="objective", code="invalid_value")

    def _check_reasons(self, tags: Sequence[str]) -> None:
        for number, tag in enumerate(tags):
            if tag not in self.reasons:
                known = f"one of {', '.join(self.reasons)}" if self.reasons else "none, chat.reasons being empty"
                message = f"reasons[{number}]: expected {known}; free text goes into `reason`"
                raise ApiError(message, param=f"reasons[{number}]", code="invalid_value")
