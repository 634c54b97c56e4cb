"""A test of a bounded mean that holds whenever one looks: evidence is the capital of who bets against it. Pure.

Each outcome x ∈ [0, 1] is one person's: 1 where they prefer the candidate, 0 where they prefer the live version, ½ for
neither. Whoever doubts "the mean is at most m" stakes a fraction f of the capital on every outcome, at odds that are
fair for the mean m:

    K_t(m) = Π_i (1 + λ(x_i − m)) = Π_i (1 − f + f·x_i/m),   λ = f/m

(I. Waudby-Smith, A. Ramdas, "Estimating means of bounded random variables by betting", JRSS B 86 (2024), section 4: the
capital process, with constant bets.) While the mean of the next outcome, given those before, is at most m, this is a
nonnegative supermartingale that begins at 1, and so is the mean of several with a fraction each (the method of
mixtures; H. Robbins, Annals of Mathematical Statistics 41 (1970)). By Ville's inequality it ever reaches 1/α with
probability at most α: looking after every vote costs nothing. A test for a number of votes that was fixed beforehand
has no such right: looked at as often, it is wrong several times as often as it says (tests/benches/canary.py).

Constant fractions make the capital a function of how often each outcome came, in any order: that is all there is to
keep.
"""

import math
from collections import Counter
from collections.abc import Callable, Mapping

Outcomes = Mapping[float, int]
"""How often each outcome in [0, 1] came."""

FRACTIONS = (0.05, 0.1, 0.2, 0.4, 0.8)
"""Of the capital, staked all along, an equal share of it by each. Each is the best one for the share ½ + f/2 of people
without ties: .525, .55, .6, .7 and .9."""
BISECTIONS = 40


def log_capital(outcomes: Outcomes, mean: float = 0.5) -> float:
    """ln K(mean): the evidence that the mean of `outcomes` is above `mean` ∈ (0, 1); 0 for no outcomes.

    Falls with `mean`. Raises ValueError for an outcome outside [0, 1].
    """
    if any(not 0 <= x <= 1 for x in outcomes):
        raise ValueError(f"expected outcomes from 0 to 1, got {sorted(outcomes)}")
    logs = [sum(n * math.log1p(f * (x / mean - 1)) for x, n in outcomes.items()) for f in FRACTIONS]
    most = max(logs)
    return most + math.log(sum(math.exp(value - most) for value in logs) / len(logs))


def mirrored(outcomes: Outcomes) -> Counter[float]:
    """The same outcomes, seen from the other side: 1 − x for x."""
    other: Counter[float] = Counter()
    for x, n in outcomes.items():
        other[1 - x] += n
    return other


def confidence_sequence(outcomes: Outcomes, alpha: float = 0.05) -> tuple[float, float]:
    """Bounds of the mean that hold at all times at once with probability 1 − α: the means that neither of two bettors,
    one against too low and one against too high a mean, has made 2/α out of 1 from (section 4.1 as above; by the union
    of the two). (0, 1) for no outcomes.
    """
    limit, other = math.log(2 / alpha), mirrored(outcomes)
    low = _highest(lambda mean: log_capital(outcomes, mean) >= limit)
    high = 1 - _highest(lambda mean: log_capital(other, mean) >= limit)
    return low, high


def _highest(excluded: Callable[[float], bool]) -> float:
    """The highest mean that is excluded, where all below it are; 0 if none is."""
    low, high = 0.0, 1.0
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if excluded(middle) else (low, middle)
    return low
