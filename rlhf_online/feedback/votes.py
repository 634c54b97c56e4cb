"""A vote: what one person's feedback says about answers to one prompt, in tokens. Pure.

A ranking, a pair and a correction are a Comparison; a thumb and an implicit signal are a Rating. In this one form a
vote is checked, waits, is learned from, replayed and measured on; `to_json` is its one form in a checkpoint.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, TypeGuard

TokenPair = tuple[Sequence[int], Sequence[int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """An answer, its end of sequence included where it came."""

    token_ids: tuple[int, ...]
    position: int = -1
    """Where it was shown among the others, 0 for the first; -1 if it was not, or nobody knows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Vote:
    """What both kinds have. `conversation_id` is that of the answers; `objective` is "" for the first one.

    `revised`: its person's earlier vote on the same subject has been learned from, so that this one takes that one's
    place among the votes that are kept, and is not learned from as a new one. `origins`: whose conversations its
    answers stem from (`events.origin`), none where nobody can erase them; `completions`: which they are of;
    `owners`: whose words it holds, who asked and who wrote a correction: their keys seal it in a checkpoint.
    `created_ms`: when it was given, 0 where an earlier release did not keep it. `by_ai`: no person gave it. `key_id`:
    which API key it came with, "" without keys.
    `assisted`: its person saw a critic's notes on the answers.
    """

    event_id: str
    conversation_id: str
    person: str
    prompt_token_ids: tuple[int, ...]
    objective: str = ""
    revised: bool = False
    origins: tuple[str, ...] = ()
    completions: tuple[str, ...] = ()
    created_ms: int = 0
    owners: tuple[str, ...] = ()
    by_ai: bool = False
    key_id: str = ""
    assisted: bool = False

    def objective_index(self, objectives: Sequence[str]) -> int:
        """Which of `objectives` it is about."""
        return objectives.index(self.objective) if self.objective else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison(_Vote):
    """Candidates in tiers, best first: `tiers[0]` indexes the best ones. Each candidate is in one tier.

    `unsure`: the one tier of two says that the person could not tell. `strength` is that of a pair, 0 where unknown.
    `correction`: the first candidate is the person's own text, and the other one the answer that they corrected.
    """

    candidates: tuple[Candidate, ...]
    tiers: tuple[tuple[int, ...], ...]
    strength: int = 0
    unsure: bool = False
    correction: bool = False

    @property
    def ranks(self) -> tuple[int, ...]:
        """The tier of each candidate, 0 for the best."""
        tier_of = {index: tier for tier, indices in enumerate(self.tiers) for index in indices}
        return tuple(tier_of[index] for index in range(len(self.candidates)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Rating(_Vote):
    """A thumb on one answer; or, where `signal` names one, an implicit signal, which counts as a thumb down."""

    candidate: Candidate
    up: bool
    signal: str = ""

    @property
    def candidates(self) -> tuple[Candidate]:
        return (self.candidate,)


Vote = Comparison | Rating


def is_thumb(vote: Vote) -> TypeGuard[Rating]:
    """True for a thumb; an implicit signal is none."""
    return isinstance(vote, Rating) and not vote.signal


def is_signal(vote: Vote) -> TypeGuard[Rating]:
    return isinstance(vote, Rating) and bool(vote.signal)


def pairs(vote: Vote) -> list[TokenPair]:
    """(prompt, answer) of each candidate."""
    return [(vote.prompt_token_ids, candidate.token_ids) for candidate in vote.candidates]


def ordered_pairs(vote: Vote) -> list[tuple[int, int]]:
    """(better, worse) candidates of a comparison; none of a rating."""
    if isinstance(vote, Rating):
        return []
    ranks = vote.ranks
    return [(i, j) for i in range(len(ranks)) for j in range(len(ranks)) if ranks[i] < ranks[j]]


def orders_answers(vote: Vote) -> bool:
    """Whether it says what is better, and not only that answers are alike."""
    return isinstance(vote, Rating) or len(vote.tiers) > 1


def subject(vote: Vote) -> tuple[Any, ...]:
    """What it judges: of two votes of one person on the same subject the later one counts.

    A correction is about the answer, whatever it says instead.
    """
    kind, judged = "comparison", vote.candidates
    if isinstance(vote, Rating):
        kind = "signal" if vote.signal else "thumb"
    elif vote.correction:
        kind, judged = "correction", vote.candidates[1:]
    answers = tuple(sorted(candidate.token_ids for candidate in judged))
    return (vote.person, vote.conversation_id, vote.objective, kind, vote.prompt_token_ids, answers)


def to_json(vote: Vote) -> dict[str, Any]:
    """The vote in JSON's types."""
    values = {field.name: getattr(vote, field.name) for field in fields(vote)}
    if isinstance(vote, Rating):
        return values | {"candidate": _candidate_to_json(vote.candidate)}
    return values | {"candidates": [_candidate_to_json(candidate) for candidate in vote.candidates]}


def from_json(values: Mapping[str, Any]) -> Vote:
    """The vote that `to_json` described."""
    values = {
        **values,
        "prompt_token_ids": tuple(values["prompt_token_ids"]),
        "origins": tuple(values.get("origins", ())),  # which earlier releases did not keep
        "completions": tuple(values.get("completions", ())),  # nor these
        "owners": tuple(values.get("owners", ())),  # nor these
    }
    if "candidate" in values:
        return Rating(**{**values, "candidate": _candidate_from_json(values["candidate"])})
    candidates = tuple(_candidate_from_json(item) for item in values["candidates"])
    return Comparison(**{**values, "candidates": candidates, "tiers": tuple(map(tuple, values["tiers"]))})


def _candidate_to_json(candidate: Candidate) -> dict[str, Any]:
    return {"token_ids": candidate.token_ids, "position": candidate.position}


def _candidate_from_json(values: Mapping[str, Any]) -> Candidate:
    return Candidate(token_ids=tuple(values["token_ids"]), position=values["position"])
