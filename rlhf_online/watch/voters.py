"""Who votes for what: does a person prefer answers with some trait, or some word, as nobody else does? Pure.

    comparisons ─▶ of each trait and word: did it win? ─▶ this person's wins against everybody else's ─▶ findings

*One observation a vote.* A comparison says of a trait that it won, where answers that have it stand above answers that
lack it in more pairs than not; lost, where in fewer; else nothing. So a ranking of six answers is one word, and votes
are as independent as their answers.

*Who is found* wins with the trait more often than everybody else by DIFFERENCE or more, and not by chance: Fisher's
exact test against all others, at most LEVEL of the findings false (Benjamini and Hochberg 1995) over all persons and
traits that were asked. A taste of one's own is found as well as a mission: which it is, an operator has to say.

*Influence* is what leaving the person out changes: the log-odds that the trait wins, over all votes, less those without
this person's (½ added to each count, Haldane 1956). It is exact for a model that knows of an answer that trait alone;
what a reward model learned from one person it does not say.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rlhf_online.gate.statistics import discoveries, rise_p
from rlhf_online.watch.monitors import UNKNOWN, Reading

LEAST = 8
"""Votes of a person on a trait, with fewer of which nothing is asked."""
LEVEL = 0.01
DIFFERENCE = 0.2
MOST = 20
"""Rows of a reading."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """A comparison: `traits` of each answer, and its rank, 0 for the best."""

    person: str
    traits: tuple[frozenset[str], ...]
    ranks: tuple[int, ...]

    def won(self, trait: str) -> bool | None:
        """Whether answers that have the trait stand above those that lack it; None where that is not said."""
        having = [rank for rank, has in zip(self.ranks, self.traits, strict=True) if trait in has]
        lacking = [rank for rank, has in zip(self.ranks, self.traits, strict=True) if trait not in has]
        above = sum((mine < other) - (mine > other) for mine in having for other in lacking)
        return above > 0 if above else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A person who prefers a trait as others do not; `others` is how often it wins with them, `influence` in nats."""

    person: str
    trait: str
    wins: int
    votes: int
    others: float
    influence: float
    p: float

    def row(self) -> dict[str, str | float]:
        return {
            "person": self.person,
            "trait": self.trait,
            "votes": self.votes,
            "share": round(self.wins / self.votes, 3),
            "others": round(self.others, 3),
            "influence": round(self.influence, 3),
        }


def preferences(judged: Iterable[Judged]) -> tuple[list[Finding], float]:
    """Who prefers what as nobody else does, the most influential first; and the evidence, 1 and more where there is
    such a finding: LEVEL · i / m over the i-th least of m p-values, at most. NaN where nothing could be asked."""
    wins: dict[str, Counter[str]] = defaultdict(Counter)
    votes: dict[str, Counter[str]] = defaultdict(Counter)
    for vote in judged:
        for trait in frozenset().union(*vote.traits):
            if (won := vote.won(trait)) is not None:
                votes[trait][vote.person] += 1
                wins[trait][vote.person] += won
    asked = [
        _compared(person, trait, wins[trait], votes[trait])
        for trait, people in votes.items()
        for person, count in people.items()
        if count >= LEAST and people.total() - count >= LEAST
    ]
    different = [found for found in asked if found.wins / found.votes - found.others >= DIFFERENCE]
    # What does not differ by as much is no finding, and counts among those that were asked all the same.
    p_values = [found.p for found in different] + [1.0] * (len(asked) - len(different))
    ordered = sorted(p_values)
    evidence = max((LEVEL * i / len(ordered) / max(p, 1e-300) for i, p in enumerate(ordered, 1)), default=math.nan)
    found = [different[index] for index in discoveries(p_values, LEVEL)]
    return sorted(found, key=lambda finding: -finding.influence), evidence


def _compared(person: str, trait: str, wins: Counter[str], votes: Counter[str]) -> Finding:
    own, all_wins, all_votes = votes[person], wins.total(), votes.total()
    other_wins, other_votes = all_wins - wins[person], all_votes - own
    return Finding(
        person=person,
        trait=trait,
        wins=wins[person],
        votes=own,
        others=other_wins / other_votes,
        influence=_log_odds(all_wins, all_votes) - _log_odds(other_wins, other_votes),
        p=rise_p(wins[person], own, other_wins, other_votes),
    )


def _log_odds(wins: int, votes: int) -> float:
    return math.log((wins + 0.5) / (votes - wins + 0.5))


def reading(judged: Sequence[Judged], which: str) -> Reading:
    """`which` says of what: "declared traits" or "words". Whoever gave no name is asked as one person."""
    found, evidence = preferences(judged)
    if math.isnan(evidence):
        return UNKNOWN
    people = len({finding.person for finding in found})
    says = f"of {len(judged)} comparisons, {people or 'no'} people prefer {which} as others do not"
    return Reading(evidence=evidence, says=says, rows=tuple(finding.row() for finding in found[:MOST]))
