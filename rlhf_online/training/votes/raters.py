"""What is learned of each person who compares answers: whether they look at them, and how they favour the first.

Of two kinds of people, as in the spammer–hammer model of Karger, Oh & Shah (2011), one looks: with probability CARE a
comparison of theirs orders the answers by their utilities (Plackett–Luce), else, as the other kind's always, by nothing
but where they stand. Either way the answer shown first has b more, the person's place bias, beside that of all people:

    P(order | looks) = CARE PL(u + b x) + (1 − CARE) PL(b x)        x = 1 for the answer shown first, else 0
    P(order | clicks) = PL(b x)

Kept of a person are b and the log odds ρ : 1 − ρ that they look, to which each vote adds log P(order | looks) − log
P(order | clicks). The odds have bounds, so that who changes is found out. Both are learned from what the reward model
thinks of a vote *before* it learns from it, so that nobody is believed for having been learned. A young model is surer
than it should be, and would find everybody careless: its utilities are multiplied by a common scale, which is learned
from all votes alike, and taken a standard deviation lower: while that is 0 the model knows nothing, and a vote is no
evidence. b and the scale have normal distributions, moved by a Newton step a vote.

The reward model learns from Σ w · −log PL(u + b x) (`votes.loss`), w = ρ over that of somebody new, or over the
median of all people's if that is less, 1 at most: where most part from the model it is the model that is wrong. It
does not learn from a mixture itself (decision 43).

Who judges otherwise than the others by taste, and not by chance, is believed less, too: what is learned here is one
common taste.
"""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rlhf_online.feedback.votes import Comparison, Vote
from rlhf_online.training.votes.beside_notes import BesideNotes

LOOKS = 0.9
NEW = math.log(LOOKS / (1 - LOOKS))
"""ρ of somebody new, and their odds."""
CARE = 0.8
"""How often who looks does so. The rest is for what no model foretells: one vote is little evidence against them."""
MOST_ODDS = 5.0
"""Nats: between a hundredth and 99 in a hundred."""
MOST = 50_000
"""People who are known at once: beyond it who said least is let go of, until a quarter of the places is free."""
PLACE_PRECISION = 4.0
"""Of b before anything is known, whose standard deviation is so ½: P(first) = .62 of two equal answers."""
SCALE_PRECISION = 1.0
SCALE_MEMORY = 200.0
"""Votes after which the scale has forgotten what it was, as the model changes."""


@dataclass(slots=True)
class Rater:
    """ρ is σ(odds), the place bias N(place, 1/precision)."""

    odds: float = NEW
    place: float = 0.0
    precision: float = PLACE_PRECISION

    @property
    def reliability(self) -> float:
        return 1 / (1 + math.exp(-self.odds))

    def observe(
        self, ranks: Sequence[int], utilities: Sequence[float], habit: Sequence[float], first: Sequence[bool]
    ) -> float:
        """One comparison: the answers' tiers, 0 for the best, what is thought of them, what their places add for this
        person, and which stood first. Returns ρ as it is then."""
        looked = Order(ranks, [u + h for u, h in zip(utilities, habit, strict=True)], first)
        chance = Order(ranks, habit, first)
        likelier = min(max(looked.log_likelihood - chance.log_likelihood, -30.0), 30.0)
        self.odds += math.log(CARE * math.exp(likelier) + 1 - CARE)
        self.odds = min(max(self.odds, -MOST_ODDS), MOST_ODDS)
        looks = self.reliability
        self.precision += looks * looked.curvature + (1 - looks) * chance.curvature
        self.place += (looks * looked.slope + (1 - looks) * chance.slope) / self.precision
        return looks


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
        self._usual: float | None = None
        """The odds from which on votes count in full, until somebody's change."""
        self.beside_notes = BesideNotes()

    def make_room(self) -> None:
        """Know MOST people at most."""
        if len(self._raters) > MOST:
            told = sorted(self._raters, key=lambda name: (-self._raters[name].precision, name))
            self._raters, self._usual = {name: self._raters[name] for name in told[: MOST * 3 // 4]}, None

    def observe(self, vote: Comparison, utilities: Sequence[float], position_bias: Sequence[float]) -> None:
        """What the model thinks of the vote's candidates before it learns from it, and what all people add to each for
        its place. Numbers that are not finite say nothing."""
        if not all(map(math.isfinite, utilities)):
            return
        rater, self._usual = self._raters.setdefault(_name(vote), Rater()), None
        first = [candidate.position == 0 for candidate in vote.candidates]
        habit = [bias + rater.place * place for bias, place in zip(position_bias, first, strict=True)]
        known = max(0.0, self._scale - self._precision**-0.5)
        looks = rater.observe(vote.ranks, [known * utility for utility in utilities], habit, first)
        scaled = [self._scale * utility for utility in utilities]
        looked = Order(vote.ranks, [u + h for u, h in zip(scaled, habit, strict=True)], utilities)
        if looked.curvature > 0:  # else it says nothing of the scale, as a tie, and nothing is forgotten for it
            left = self._left(vote)
            looks *= left
            self._precision = self._precision * (1 - left / SCALE_MEMORY) + looks * looked.curvature
            self._scale = min(max(self._scale + looks * looked.slope / self._precision, 0.0), 1.0)

    def of(self, vote: Vote) -> tuple[float, float]:
        """What comparisons of who gave it count, in [0, 1], and b. A model's votes have a weight of their own
        (`label_reliability`), and here 1."""
        if vote.by_ai:
            return 1.0, 0.0
        rater = self._raters.get(_name(vote), NOBODY)
        return self._weight(rater) * self._left(vote), rater.place

    def _left(self, vote: Vote) -> float:
        """What notes leave of a vote's weight."""
        return self.beside_notes.weight if vote.assisted else 1.0

    def _weight(self, rater: Rater) -> float:
        if self._usual is None:
            self._usual = min(NEW, statistics.median(known.odds for known in (*self._raters.values(), NOBODY)))
        return min(1.0, (1 + math.exp(-self._usual)) / (1 + math.exp(-rater.odds)))

    def begin_anew(self) -> None:
        """People judge otherwise than the model thinks: who parts from it has not been found unreliable by that."""
        self._raters.clear()
        self._usual = None
        self._scale, self._precision = 0.0, SCALE_PRECISION

    def doubted(self) -> tuple[str, ...]:
        """Whose votes count less than half; what notes made of them does not count."""
        alone = {person: rater for person, rater in self._raters.items() if not person.endswith(ASSISTED)}
        return tuple(sorted(person for person, rater in alone.items() if self._weight(rater) < 0.5))

    def __len__(self) -> int:
        """How many people have compared."""
        return len({name.removesuffix(ASSISTED) for name in self._raters})

    def forget(self, people: Iterable[str]) -> None:
        self._usual = None
        for person in people:
            self._raters.pop(person, None)
            self._raters.pop(f"{person}{ASSISTED}", None)

    def assisted(self) -> dict[str, float]:
        """Mean ρ of those who judged beside notes, as far as these leave it, and of the others, once there are any of
        the former."""
        groups: dict[str, list[float]] = {"assisted": [], "unassisted": []}
        for name, rater in self._raters.items():
            groups["assisted" if name.endswith(ASSISTED) else "unassisted"].append(rater.reliability)
        left = {"assisted": self.beside_notes.weight, "unassisted": 1.0}
        means = {group: left[group] * statistics.fmean(found) for group, found in groups.items() if found}
        return means if "assisted" in means else {}

    def to_json(self) -> dict[str, Any]:
        people = {person: [rater.odds, rater.place, rater.precision] for person, rater in sorted(self._raters.items())}
        notes = self.beside_notes.to_json()
        return {"scale": [self._scale, self._precision], "people": people, "notes": notes}

    def load_json(self, values: Mapping[str, Any]) -> None:
        self._scale, self._precision = map(float, values["scale"])
        self.beside_notes.load_json(values.get("notes", [0, 0]))  # which earlier releases did not compare
        self._usual = None
        self._raters = {person: Rater(*map(float, numbers)) for person, numbers in values["people"].items()}


def _name(vote: Vote) -> str:
    return f"{vote.person}{ASSISTED}" if vote.assisted else vote.person


ASSISTED = " assisted"
"""Behind the hash of who judges beside notes: no hash has a blank in it."""
NOBODY = Rater()
"""Somebody of whom nothing is known."""
