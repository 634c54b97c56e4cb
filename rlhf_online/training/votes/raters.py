"""What is learned of each person who compares answers: their reliability ρ, and how they favour what is shown first.

A comparison is a noisy label, as in the annotator models of Karger, Oh & Shah (2011) and of Chen et al. (WSDM 2013,
CrowdBT): with probability ρ the person orders the answers by their utilities (Plackett–Luce), else by nothing but where
they stand. Either way the answer shown first has b more; b is the person's place bias, beside that of all people:

    P(order) = ρ PL(u + b x) + (1 − ρ) PL(b x)        x = 1 for the answer shown first, else 0

The reward model learns from this likelihood (`votes.loss`), and ρ and b from the reward model: each vote is looked at
*before* the model learns from it, so that nobody is believed for having been learned. A young model is surer than it
should be, and would find everybody unreliable: here its utilities are multiplied by a common scale, which is learned
from all votes alike, and is 0 while the model knows nothing. ρ has a Beta distribution, moved by each vote to the one
with the mean and variance of the exact posterior, a mixture of two Betas (assumed-density filtering; Minka 2001): where
the two explanations are as likely, as at scale 0, ρ stays exactly where it was. b and the scale have normal ones,
moved by a Newton step a vote.

Who judges otherwise than the others by taste, and not by chance, is believed less, too: what is learned here is one
common taste.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rlhf_online.feedback.votes import Comparison, Vote

PRIOR_A, PRIOR_B = 4.0, 1.0
"""Of the Beta distribution of somebody new: four of five look before they click; worth five votes."""
MEMORY = 40.0
"""Most votes that ρ rests on, so that who changes is found out in time."""
EXTREME = 1e-3
"""Nobody is believed less, or more than 1 − this: of who is always right, or never, it would come to exactly 1, or 0,
and no later vote could change that."""
MOST = 50_000
"""People who are known at once: beyond it who said least is let go of, until a quarter of the places is free."""
PLACE_PRECISION = 4.0
"""Of b before anything is known, whose standard deviation is so ½: P(first) = .62 of two equal answers."""
SCALE_PRECISION = 1.0
SCALE_MEMORY = 200.0
"""Votes after which the scale has forgotten what it was, as the model changes."""


@dataclass(slots=True)
class Rater:
    """ρ is Beta(a, b), the place bias N(place, 1/precision)."""

    a: float = PRIOR_A
    b: float = PRIOR_B
    place: float = 0.0
    precision: float = PLACE_PRECISION

    @property
    def reliability(self) -> float:
        return self.a / (self.a + self.b)

    def observe(
        self, ranks: Sequence[int], utilities: Sequence[float], habit: Sequence[float], first: Sequence[bool]
    ) -> float:
        """One comparison: the answers' tiers, 0 for the best, what is thought of them, what their places add for this
        person, and which stood first. Returns how probably the person looked."""
        looked = Order(ranks, [u + h for u, h in zip(utilities, habit, strict=True)], first)
        chance = Order(ranks, habit, first)
        odds = looked.log_likelihood - chance.log_likelihood
        believed = 1 / (1 + self.b / self.a * math.exp(-min(max(odds, -30.0), 30.0)))
        self._move_reliability(believed)
        self.precision += believed * looked.curvature + (1 - believed) * chance.curvature
        self.place += (believed * looked.slope + (1 - believed) * chance.slope) / self.precision
        return believed

    def _move_reliability(self, believed: float) -> None:
        """To the Beta of the moments of believed · Beta(a + 1, b) + (1 − believed) · Beta(a, b + 1)."""
        n = self.a + self.b
        mean = (self.a + believed) / (n + 1)
        # Of the variance what lies within the two and between them: as a mean of squares less a square it would be
        # rounded to 0, or below, where the mean is near 1.
        within = (believed * (self.a + 1) * self.b + (1 - believed) * self.a * (self.b + 1)) / (n + 2)
        variance = (within + believed * (1 - believed)) / (n + 1) ** 2
        votes = min(mean * (1 - mean) / variance - 1, MEMORY)
        mean = min(max(mean, EXTREME), 1 - EXTREME)
        self.a, self.b = mean * votes, (1 - mean) * votes


class Order:
    """How likely the order of tiers is by Plackett–Luce, and the slope and curvature of that in a factor of x.

    Answers of one tier are each compared with all lower ones and not with each other: a tie says nothing of who it is
    that ties.
    """

    def __init__(self, ranks: Sequence[int], utilities: Sequence[float], x: Sequence[float]) -> None:
        self.log_likelihood = self.slope = self.curvature = 0.0
        for rank, utility, own in zip(ranks, utilities, x, strict=True):
            against = [(u, x) for r, u, x in zip(ranks, utilities, x, strict=True) if r > rank]
            if not against:
                continue
            field = [(utility, own), *against]
            top = max(u for u, _ in field)
            weights = [math.exp(u - top) for u, _ in field]
            total = sum(weights)
            mean = sum(weight * x for weight, (_, x) in zip(weights, field, strict=True)) / total
            square = sum(weight * x * x for weight, (_, x) in zip(weights, field, strict=True)) / total
            self.log_likelihood += utility - top - math.log(total)
            self.slope += own - mean
            self.curvature += square - mean**2


class Raters:
    """Everybody who has compared, by their hash; whoever gave no name is one of them. Who judges beside a critic's
    notes is somebody else: what they see through without may escape them with it, and the other way round."""

    def __init__(self) -> None:
        self._raters: dict[str, Rater] = {}
        self._scale, self._precision = 0.0, SCALE_PRECISION

    def make_room(self) -> None:
        """Know MOST people at most."""
        if len(self._raters) > MOST:
            told = sorted(self._raters, key=lambda name: (-self._raters[name].precision, name))
            self._raters = {name: self._raters[name] for name in told[: MOST * 3 // 4]}

    def observe(self, vote: Comparison, utilities: Sequence[float], position_bias: Sequence[float]) -> None:
        """What the model thinks of the vote's candidates before it learns from it, and what all people add to each for
        its place. Numbers that are not finite say nothing."""
        if not all(map(math.isfinite, utilities)):
            return
        rater = self._raters.setdefault(_name(vote), Rater())
        first = [candidate.position == 0 for candidate in vote.candidates]
        habit = [bias + rater.place * place for bias, place in zip(position_bias, first, strict=True)]
        scaled = [self._scale * utility for utility in utilities]
        looked = Order(vote.ranks, [u + h for u, h in zip(scaled, habit, strict=True)], utilities)
        believed = rater.observe(vote.ranks, scaled, habit, first)
        self._precision = self._precision * (1 - 1 / SCALE_MEMORY) + believed * looked.curvature
        self._scale = min(max(self._scale + believed * looked.slope / self._precision, 0.0), 1.0)

    def of(self, vote: Vote) -> tuple[float, float]:
        """ρ and b of who gave it. A model's votes have a weight of their own (`label_reliability`), and ρ = 1."""
        if vote.by_ai:
            return 1.0, 0.0
        rater = self._raters.get(_name(vote), NOBODY)
        return rater.reliability, rater.place

    def begin_anew(self) -> None:
        """People judge otherwise than the model thinks: who parts from it has not been found unreliable by that."""
        self._raters.clear()
        self._scale, self._precision = 0.0, SCALE_PRECISION

    def doubted(self) -> tuple[str, ...]:
        """Who is believed less than half; what notes made of them does not count."""
        alone = {person: rater for person, rater in self._raters.items() if not person.endswith(ASSISTED)}
        return tuple(sorted(person for person, rater in alone.items() if rater.reliability < 0.5))

    def __len__(self) -> int:
        """How many people have compared."""
        return len({name.removesuffix(ASSISTED) for name in self._raters})

    def forget(self, people: Iterable[str]) -> None:
        for person in people:
            self._raters.pop(person, None)
            self._raters.pop(f"{person}{ASSISTED}", None)

    def assisted(self) -> dict[str, float]:
        """Mean ρ of those who judged beside notes, and of the others, once there are any of the former."""
        groups: dict[str, list[float]] = {"assisted": [], "unassisted": []}
        for name, rater in self._raters.items():
            groups["assisted" if name.endswith(ASSISTED) else "unassisted"].append(rater.reliability)
        return {group: sum(found) / len(found) for group, found in groups.items() if found and groups["assisted"]}

    def to_json(self) -> dict[str, Any]:
        people = {
            person: [rater.a, rater.b, rater.place, rater.precision] for person, rater in sorted(self._raters.items())
        }
        return {"scale": [self._scale, self._precision], "people": people}

    def load_json(self, values: Mapping[str, Any]) -> None:
        self._scale, self._precision = map(float, values["scale"])
        self._raters = {person: Rater(*map(float, numbers)) for person, numbers in values["people"].items()}


def _name(vote: Vote) -> str:
    return f"{vote.person}{ASSISTED}" if vote.assisted else vote.person


ASSISTED = " assisted"
"""Behind the hash of who judges beside notes: no hash has a blank in it."""
NOBODY = Rater()
"""Somebody of whom nothing is known."""
