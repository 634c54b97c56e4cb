"""Which pair of answers people are asked about next: one whose vote tells much, by expected information. Pure.

The heads of the ensemble each say how probably the first answer is better. What a vote would tell of which head is
right is the mutual information of the two, I = H(mean p) − mean H(p) in nats (BALD; Houlsby et al. 2011): 0 where the
heads agree, also where they agree that it is a toss-up. A question is drawn with probability in proportion to I^POWER
(stochastic batch acquisition, Kirsch et al. 2023: the most informative pairs of a batch resemble each other, and drawn
ones do less), or, with the share `explore`, from all pairs alike. The probability of each draw, given those before it,
is its *propensity*: by it what was asked can be weighed back to what could have been (Farquhar et al. 2021).
"""

import math
import random
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

POWER = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A pair that could be asked about: `group` is its prompt's request, which is asked about once; `probabilities`
    that its first answer is better, one a head."""

    pair: Hashable
    group: Hashable
    probabilities: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A pair that was chosen, what its vote was expected to tell, and the probability with which it was drawn."""

    pair: Hashable
    information: float
    propensity: float


def probabilities(first: Sequence[float], second: Sequence[float]) -> tuple[float, ...]:
    """Of each head that the first answer is better, by its scores of both (Bradley–Terry)."""
    return tuple(
        1 / (1 + math.exp(-min(max(one - other, -30.0), 30.0))) for one, other in zip(first, second, strict=True)
    )


def information(probabilities: Sequence[float]) -> float:
    """I, in nats: at most log 2."""
    mean = math.fsum(probabilities) / len(probabilities)
    return max(0.0, _entropy(mean) - math.fsum(map(_entropy, probabilities)) / len(probabilities))


def _entropy(p: float) -> float:
    return -sum(x * math.log(x) for x in (p, 1 - p) if x > 0)


def choose(candidates: Sequence[Candidate], count: int, explore: float, rng: random.Random) -> list[Question]:
    """`count` questions, no group twice, or as many as there are groups. `explore` 1 asks at random."""
    known = [(candidate, information(candidate.probabilities)) for candidate in candidates]
    asked: list[Question] = []
    while known and len(asked) < count:
        weights = [told**POWER for _, told in known]
        total = sum(weights)
        share = explore if total > 0 else 1.0
        chances = [share / len(known) + (1 - share) * weight / (total or 1.0) for weight in weights]
        [place] = rng.choices(range(len(known)), weights=chances)
        chosen, told = known[place]
        asked.append(Question(pair=chosen.pair, information=told, propensity=chances[place]))
        known = [(candidate, told) for candidate, told in known if candidate.group != chosen.group]
    return asked
