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
from itertools import chain

from rlhf_online.gate.statistics import discoveries, nearness, rise_p
from rlhf_online.watch.monitors import UNKNOWN, Reading

LEAST = 8
"""Votes of a person on a trait, with fewer of which nothing is asked."""
LEVEL = 0.01
DIFFERENCE = 0.2
MOST = 20
"""Rows of a reading."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """What a comparison says of traits: which won, and which lost."""

    person: str
    won: tuple[str, ...]
    lost: tuple[str, ...]

    @classmethod
    def of(cls, person: str, traits: Sequence[Iterable[str]], ranks: Sequence[int]) -> "Judged":
        """`traits` of each answer, and its rank, 0 for the best."""
        having: dict[str, int] = defaultdict(int)
        for place, found in enumerate(traits):
            for trait in found:
                having[trait] |= 1 << place
        # A vote has a word in many answers, and few sets of answers that have one.
        above = {places: _above(places, ranks) for places in {*having.values()}}
        return cls(
            person=person,
            won=tuple(trait for trait, places in having.items() if above[places] > 0),
            lost=tuple(trait for trait, places in having.items() if above[places] < 0),
        )


def _above(places: int, ranks: Sequence[int]) -> int:
    """In how many more pairs than not the answers at these places, bits, stand above the others."""
    having = [rank for place, rank in enumerate(ranks) if places >> place & 1]
    lacking = [rank for place, rank in enumerate(ranks) if not places >> place & 1]
    return sum((mine < other) - (mine > other) for mine in having for other in lacking)


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


def preferences(judged: Sequence[Judged]) -> tuple[list[Finding], float]:
    """Who prefers what as nobody else does, the most influential first; and the evidence, 1 and more where there is
    such a finding: LEVEL · i / m over the i-th least of m p-values, at most. NaN where nothing could be asked."""
    of_person: dict[str, list[Judged]] = defaultdict(list)
    for vote in judged:
        of_person[vote.person].append(vote)
    all_wins, all_votes = _counted(judged)
    asked, different = 0, []
    for person, own in of_person.items():
        wins, votes = _counted(own)
        for trait, count in votes.items():
            if count < LEAST or all_votes[trait] - count < LEAST:
                continue
            asked += 1
            others = (all_wins[trait] - wins[trait]) / (all_votes[trait] - count)
            if wins[trait] / count - others >= DIFFERENCE:
                different.append(_compared(person, trait, (wins[trait], count), (all_wins[trait], all_votes[trait])))
    # What does not differ by as much is no finding, and counts among those that were asked all the same.
    p_values = [found.p for found in different] + [1.0] * (asked - len(different))
    found = [different[index] for index in discoveries(p_values, LEVEL)]
    found.sort(key=lambda finding: (-finding.influence, finding.person, finding.trait))
    return found, nearness(p_values, LEVEL)


def _counted(judged: Iterable[Judged]) -> tuple[Counter[str], Counter[str]]:
    """Of each trait in how many votes it won, and in how many it won or lost."""
    wins = Counter(chain.from_iterable(vote.won for vote in judged))
    return wins, Counter(chain.from_iterable(chain(vote.won, vote.lost) for vote in judged))


def _compared(person: str, trait: str, own: tuple[int, int], everybody: tuple[int, int]) -> Finding:
    """(wins, votes) of the person, and of all, this one among them."""
    others = (everybody[0] - own[0], everybody[1] - own[1])
    return Finding(
        person=person,
        trait=trait,
        wins=own[0],
        votes=own[1],
        others=others[0] / others[1],
        influence=_log_odds(*everybody) - _log_odds(*others),
        p=rise_p(*own, *others),
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
