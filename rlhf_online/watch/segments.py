"""Does the reward model know some of the votes worse than others: those in one language, of one client, …? Pure.

    votes, each foretold before it was learned from ─▶ by segment: how many, how often rightly ─▶ against all others

A vote was foretold rightly where what was said was likelier than by a coin's toss. A segment is *worse* where that is
so DIFFERENCE less often than in all other votes, and not by chance: Fisher's exact test, at most LEVEL of the findings
false (Benjamini and Hochberg 1995) over all segments that were asked, those with LEAST votes on either side.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rlhf_online.gate.statistics import discoveries, nearness, rise_p
from rlhf_online.watch.monitors import UNKNOWN, Reading

LEAST = 30
LEVEL = 0.01
DIFFERENCE = 0.1
MOST = 40
"""Rows of a reading, those that are worse first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Foretold:
    """A vote; `segments` says by each division where it belongs: {"language": "en", …}."""

    segments: Mapping[str, str]
    right: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """Of `votes` so many were foretold rightly; `others` is the share of all others that were."""

    by: str
    name: str
    votes: int
    right: int
    others: float
    p: float

    @property
    def lag(self) -> float:
        return self.others - self.right / self.votes


def compared(votes: Sequence[Foretold]) -> list[Segment]:
    """All that can be asked, the worst beside its others first."""
    counts: Counter[tuple[str, str]] = Counter()
    rights: Counter[tuple[str, str]] = Counter()
    for vote in votes:
        counts.update(vote.segments.items())
        if vote.right:
            rights.update(vote.segments.items())
    right = sum(vote.right for vote in votes)
    found = []
    for (by, name), n in counts.items():
        own, others = rights[by, name], len(votes) - n
        if min(n, others) >= LEAST:
            p = rise_p(n - own, n, others - (right - own), others)
            found.append(Segment(by=by, name=name, votes=n, right=own, others=(right - own) / others, p=p))
    return sorted(found, key=lambda segment: (-segment.lag, segment.by, segment.name))


def reading(votes: Sequence[Foretold]) -> Reading:
    """The first MOST segments in its rows, those that are found worse before all others."""
    found = compared(votes)
    if not found:
        return UNKNOWN
    # What lags by less is no finding, and counts among those that were asked all the same.
    p_values = [segment.p if segment.lag >= DIFFERENCE else 1.0 for segment in found]
    worse = {*discoveries(p_values, LEVEL)}
    rows = tuple(
        {
            "by": segment.by,
            "segment": segment.name,
            "votes": segment.votes,
            "right": round(segment.right / segment.votes, 3),
            "others": round(segment.others, 3),
            "worse": "yes" if index in worse else "",
        }
        for index, segment in sorted(enumerate(found), key=lambda row: row[0] not in worse)[:MOST]
    )
    share = sum(vote.right for vote in votes) / len(votes)
    worst = f"{len(worse) or 'none'} of {len(found)} segments worse"
    says = f"{share:.0%} of {len(votes)} votes were foretold rightly, {worst}"
    return Reading(evidence=nearness(p_values, LEVEL), says=says, rows=rows)
