"""Feedback and the answers it is about → training signals for the reward model. Pure.

A ranking, a pair and a correction become a Comparison (a partial order over candidates); a thumb becomes a Rating.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """An answer: its tokens (end of sequence included where it came), or a person's own text without tokens."""

    token_ids: tuple[int, ...] = ()
    text: str = ""
    slot: int = -1
    """Position at which it was shown, 0-based; -1 if unknown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Candidates of one prompt in tiers, best first: `tiers[0]` indexes the best candidates."""

    event_id: str
    conversation_id: str
    person: str
    prompt_token_ids: tuple[int, ...]
    candidates: tuple[Candidate, ...]
    tiers: tuple[tuple[int, ...], ...]
    strength: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Rating:
    """A thumb on one answer."""

    event_id: str
    conversation_id: str
    person: str
    prompt_token_ids: tuple[int, ...]
    candidate: Candidate
    up: bool


Preference = Comparison | Rating
