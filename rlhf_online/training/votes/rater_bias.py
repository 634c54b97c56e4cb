"""Rater bias: how readily each person gives a thumb up, whatever the answer: P(up) = σ(utility + a_0 + a_person).

Fitted by Newton steps beside the reward model, a step a batch, without learning rate: a batch that holds the share s of
a person's thumbs takes the share s of a full step. a_person has the prior N(0, TAU²), so that a person with few thumbs
stays near a_0.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

TAU = 1.0
LARGEST = 8.0
MOST = 50_000
"""People who are known at once: beyond it who is most like all others is let go of, until a quarter of the places is
free."""


class RaterBias:
    """a_0 is `common`, a_person is in `people`, who are named by their hash."""

    def __init__(self) -> None:
        self.common = 0.0
        self.people: dict[str, float] = {}

    def of(self, people: Sequence[str]) -> list[float]:
        return [self.common + self.people.get(person, 0.0) for person in people]

    def step(
        self, utilities: Sequence[float], up: Sequence[bool], people: Sequence[str], totals: Mapping[str, int]
    ) -> None:
        """One batch of thumbs; `totals` counts each person's thumbs in the epoch."""
        slope: dict[str, float] = defaultdict(float)
        curve: dict[str, float] = defaultdict(float)
        here = Counter(people)
        for utility, is_up, person, bias in zip(utilities, up, people, self.of(people), strict=True):
            probability = 1 / (1 + math.exp(-min(max(utility + bias, -30.0), 30.0)))
            slope[person] += is_up - probability
            curve[person] += probability * (1 - probability)
        share_all = len(people) / max(1, sum(totals.values()))
        self.common += share_all * _bounded(sum(slope.values()) / (sum(curve.values()) + 1e-3 * len(people)))
        for person, count in sorted(here.items()):
            share, now = count / totals[person], self.people.get(person, 0.0)
            gradient = slope[person] - share * now / TAU**2
            moved = now + share * _bounded(gradient / (curve[person] + share / TAU**2))
            self.people[person] = min(max(moved, -LARGEST), LARGEST)
        if len(self.people) > MOST:
            told = sorted(self.people, key=lambda person: (-abs(self.people[person]), person))
            self.people = {person: self.people[person] for person in told[: MOST * 3 // 4]}

    def forget(self, people: Iterable[str]) -> None:
        for person in people:
            self.people.pop(person, None)

    def to_json(self) -> list:
        return [self.common, dict(self.people)]

    def load_json(self, values: Sequence) -> None:
        self.common, self.people = float(values[0]), {str(k): float(v) for k, v in values[1].items()}


def _bounded(step: float) -> float:
    return min(max(step, -2.0), 2.0)
