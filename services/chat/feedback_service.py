"""Takes votes: checked, made an event, on disk, acknowledged. Needs the log alone: no engine, no model."""

from collections.abc import Sequence

from rlhf_online.errors import RlhfError
from rlhf_online.eventlog.base import Position
from rlhf_online.events import Envelope, Feedback
from rlhf_online.metrics import ChatMetrics
from rlhf_online.registry import now_ms
from rlhf_online.state import StateDir
from services.chat import votes
from services.chat.journal import Journal
from services.chat.refusal import refusal


class FeedbackService:
    """Where both HTTP and gRPC bring feedback; `objectives` are what a vote may name."""

    def __init__(self, journal: Journal, state: StateDir, metrics: ChatMetrics, objectives: Sequence[str]) -> None:
        self.journal = journal
        self.state = state
        self.metrics = metrics
        self.objectives = objectives

    async def take(self, feedback: Feedback, user: str, idempotency_key: str) -> tuple[str, Position]:
        """The event's id and the log's position after it. Raises Refusal or LogUnavailable: not acknowledged."""
        kind = votes.kind_name(feedback)
        try:
            person = self.state.person_hash(user)
            event_id = votes.event_id(feedback, person, idempotency_key)
            event = votes.complete(feedback, person=person, now_ms=now_ms(), objectives=self.objectives)
            position = await self.journal.append(Envelope(event_id=event_id, event=event))
        except RlhfError as error:
            self.metrics.feedback.labels(kind=kind, outcome=refusal(error).outcome).inc()
            raise
        self.metrics.feedback.labels(kind=kind, outcome="ok").inc()
        return event_id, position
