"""What a critic's notes change: votes of who saw them beside votes of who, by the draw, did not.

Both saw the same items, and a coin decided who saw notes: so a difference is the notes' doing.
"""

import statistics
from collections.abc import Iterable
from dataclasses import dataclass, field

from rlhf_online.events import SHOWN, WITHHELD, Envelope, Feedback, Thumb
from rlhf_online.intervals import share

ARMS = (SHOWN, WITHHELD)


@dataclass(slots=True)
class Arm:
    """Votes that were last given; of the thumbs among them whether each was down, and whose it was; how long each vote
    took."""

    votes: int = 0
    down: list[bool] = field(default_factory=list)
    people: list[str] = field(default_factory=list)
    response_ms: list[int] = field(default_factory=list)

    def lines(self) -> str:
        """For a terminal."""
        parts = [f"{self.votes} votes"]
        if self.down:
            bad = share(self.down, self.people)
            parts.append(f"{bad.value:.2f} of {bad.n} thumbs are down ({bad.low:.2f} to {bad.high:.2f})")
        if self.response_ms:
            parts.append(f"{statistics.median(self.response_ms) / 1000:.1f} s in the median")
        return ", ".join(parts)


def effect(envelopes: Iterable[Envelope]) -> dict[str, Arm]:
    """By ARMS. What was replaced, or taken back, does not count."""
    said: dict[tuple[str, str], Feedback] = {}
    for envelope in envelopes:
        if isinstance(vote := envelope.event, Feedback):
            if vote.replaces:
                said.pop((vote.replaces, vote.person), None)
            if vote.notes in ARMS:
                said[envelope.event_id, vote.person] = vote
    arms = {arm: Arm() for arm in ARMS}
    for vote in said.values():
        arm = arms[vote.notes]
        arm.votes += 1
        if isinstance(vote.kind, Thumb):
            arm.down.append(not vote.kind.up)
            arm.people.append(vote.person)
        if vote.response_ms:
            arm.response_ms.append(vote.response_ms)
    return arms
