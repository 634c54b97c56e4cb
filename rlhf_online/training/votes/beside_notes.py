"""Whether a critic's notes mislead: do people who saw them order answers as those do who judged the same ones without?

Notes that point at the wrong answer have all who see them say the same wrong thing, which the reward model learns and
then foretells: among themselves they are not found out. But who sees notes is drawn, for each person and item, so that
without them these people would judge as the others do. An item's *agreement* is how often a vote without notes puts the
answer that one beside them calls the best above the one that it calls the worst, half for a tie, in the mean over its
pairs of such votes, which are not independent. Items are: each is a draw of a coin that falls so with probability p,
p ~ Beta(A, B) before any (a mean over pairs varies less than a draw, so that this is less sure than it might be).

Votes beside notes weigh P(p > ½), over what that is before any, and 1 at most. That is all that is asked here: notes
by which people see more than others do, or no more, cost nothing; whether a person looks is asked in `raters`.
"""

import math
from collections import defaultdict
from collections.abc import Hashable, Sequence

from rlhf_online.feedback.votes import Comparison, Vote, subject

A, B = 3.0, 1.0
"""P(p > ½) = ⅞."""
MEMORY = 500
"""Items of whose agreement the share 1/e is left, as a critic changes."""
STEPS = 400
"""Of p, in the integral."""


class BesideNotes:
    """How many items were judged with and without, and the sum of their agreement. `weight` is what a vote beside notes
    counts of what it would without, in [0, 1]."""

    def __init__(self) -> None:
        self.weight = 1.0
        self._items = self._agreed = 0.0

    def observe(self, new: Sequence[Vote], kept: Sequence[Vote]) -> None:
        """New votes, each compared with all others on its answers; `kept` ones have been among themselves."""
        items: dict[Hashable, list[tuple[Comparison, bool]]] = defaultdict(list)
        for votes, is_new in ((new, True), (kept, False)):
            for vote in votes:
                if isinstance(vote, Comparison) and not (vote.by_ai or vote.correction):
                    items[subject(vote)[1:]].append((vote, is_new))
        found = [agreement for said in items.values() if (agreement := _agreement(said)) is not None]
        left = math.exp(-len(found) / MEMORY)
        self.load_json([left * self._items + len(found), left * self._agreed + math.fsum(found)])

    def to_json(self) -> list[float]:
        return [self._items, self._agreed]

    def load_json(self, values: Sequence[float]) -> None:
        self._items, self._agreed = map(float, values)
        above = _above_half(A + self._agreed, B + self._items - self._agreed)
        self.weight = min(1.0, above / _above_half(A, B))


def _agreement(said: Sequence[tuple[Comparison, bool]]) -> float | None:
    """Of one item; None where no two votes, one of them new, tell."""
    found = [
        _agrees(beside, without)
        for beside, one_new in said
        if beside.assisted and len(beside.tiers) > 1
        for without, other_new in said
        if not without.assisted and (one_new or other_new)
    ]
    return math.fsum(found) / len(found) if found else None


def _agrees(beside: Comparison, without: Comparison) -> float:
    rank = {c.token_ids: r for c, r in zip(without.candidates, without.ranks, strict=True)}
    best, worst = (rank[beside.candidates[tier[0]].token_ids] for tier in (beside.tiers[0], beside.tiers[-1]))
    return 1.0 if best < worst else 0.5 if best == worst else 0.0


def _above_half(a: float, b: float) -> float:
    """P(p > ½) of p ~ Beta(a, b), by the midpoint rule."""
    points = [(step + 0.5) / STEPS for step in range(STEPS)]
    logs = [(a - 1) * math.log(p) + (b - 1) * math.log1p(-p) for p in points]
    top = max(logs)
    density = [math.exp(each - top) for each in logs]
    return math.fsum(density[STEPS // 2 :]) / math.fsum(density)
