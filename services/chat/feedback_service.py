"""Takes votes: checked, made an event, on disk, acknowledged. Needs the log alone: no engine, no model."""

from collections.abc import Mapping, Sequence
from typing import Any

from rlhf_online.errors import RlhfError
from rlhf_online.eventlog.base import Position
from rlhf_online.events import Envelope, now_ms
from rlhf_online.metrics import ChatMetrics
from rlhf_online.state import StateDir
from services.chat.feedback_request import FeedbackRequest, event_id
from services.chat.journal import Journal
from services.chat.refusal import Refusal, refusal
from services.chat.validation import validate


class FeedbackService:
    """Where both HTTP and gRPC bring feedback; `objectives` are what a vote may name."""

    def __init__(self, journal: Journal, state: StateDir, metrics: ChatMetrics, objectives: Sequence[str]) -> None:
        self.journal = journal
        self.state = state
        self.metrics = metrics
        self.objectives = objectives

    async def take(self, values: Mapping[str, Any]) -> tuple[str, Position]:
        """The event's id and the log's position after it. Raises Refusal or LogUnavailable: not acknowledged."""
        kind = "unknown"
        try:
            request = validate(FeedbackRequest, values)
            kind = request.kind
            self._check_objective(request.objective)
            event = request.event(person=self.state.person_hash(request.user), now_ms=now_ms())
            made = event_id(event, request.idempotency_key)
            position = await self.journal.append(Envelope(event_id=made, event=event))
        except RlhfError as error:
            self.count(kind, refusal(error).outcome)
            raise
        self.count(kind, "ok")
        return made, position

    def count(self, kind: str, outcome: str) -> None:
        self.metrics.feedback.labels(kind=kind, outcome=outcome).inc()

    def _check_objective(self, name: str) -> None:
        if name and name not in self.objectives:
            message = f"objective: expected one of {', '.join(self.objectives)}; leave it out for the first"
            raise Refusal(message, param="objective", code="invalid_value")
