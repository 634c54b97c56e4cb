"""Where a vote is, as its person is told (`rlhf_online.feedback.fate`)."""

from dataclasses import asdict
from typing import cast

from typing_extensions import TypedDict

from rlhf_online.feedback.fate import fate
from rlhf_online.feedback.outcomes import Outcome
from rlhf_online.versions.catalogue import Catalogue
from services.chat.bodies.documented import documented


@documented
class FeedbackStatus(TypedDict):
    """Where a vote is."""

    event_id: str
    """The vote."""
    state: str
    """ "accepted" (on disk), "waiting" (for its answer), "joined" (waits for an update), "trained" (the reward model
    learned from it), "live" (so did the policy that serves), "kept" (it is replayed in later updates), "held_out",
    "held_back" (it teaches the reward model that judges new versions alone), "orphaned", "dead_lettered", "superseded",
    "withdrawn" or "erased"."""
    message: str
    """The same as a sentence, with the way there."""
    accepted_ms: int
    """When the service took it, Unix time in milliseconds; 0 if another one did."""
    reward_version: str
    """The reward version that learned from it; empty if none has."""
    policy_version: str
    """The first policy version that was trained with that one, or a later one, and served; empty if none has."""
    live_since_ms: int
    """When that was live for the first time, Unix time in milliseconds; 0 if nobody noted it."""
    serving: bool
    """Whether what is live now has learned from it."""
    replaced_by: str
    """The vote that took its place, or took it back; empty if none has."""


def status(
    event_id: str, outcomes: list[Outcome], catalogue: Catalogue, *, accepted_ms: int, replaced_by: str
) -> FeedbackStatus:
    """See `fate`."""
    found = asdict(fate(outcomes, catalogue, replaced_by=replaced_by))
    return cast("FeedbackStatus", {"event_id": event_id, "accepted_ms": accepted_ms, **found})
