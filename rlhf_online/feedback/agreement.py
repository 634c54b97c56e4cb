"""How far people who judged the same things agree: Krippendorff's α. Pure.

K. Krippendorff, "Computing Krippendorff's Alpha-Reliability" (2011), section numbers as there.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from itertools import combinations, product
from typing import Literal

Level = Literal["nominal", "ordinal"]
Tiers = Sequence[Sequence[str]]
"""An order of answers, best first; those of one tier are tied."""


def alpha(units: Iterable[Sequence[int]], level: Level) -> float | None:
    """α = 1 − D_o / D_e. Each unit holds the values that it was given, one of each person who judged it.

    1 is full agreement, 0 what chance would give, less than 0 systematic disagreement. Units with fewer than two values
    say nothing, so values may be missing anywhere. None where there is nothing to tell: no unit has two values, or all
    values are the same, so that no disagreement can be expected (0/0; section C).

    `level` is how far two values are from each other: `nominal`, 1 if they differ; `ordinal`, the number of values that
    stand between them, squared, each of the two counting half.
    """
    coincidences: defaultdict[tuple[int, int], float] = defaultdict(float)
    alike = Counter(tuple(sorted(values)) for values in units if len(values) > 1)
    for values, number in alike.items():
        counts = Counter(values)
        for c, k in product(counts, repeat=2):
            coincidences[c, k] += number * counts[c] * (counts[k] - (c == k)) / (len(values) - 1)
    totals: defaultdict[int, float] = defaultdict(float)
    for (c, _), count in coincidences.items():
        totals[c] += count
    n, ranked = sum(totals.values()), sorted(totals)
    observed = expected = 0.0
    for c, k in combinations(ranked, 2):  # both are symmetric, and 0 from a value to itself
        distance = 1.0 if level == "nominal" else _ordinal(totals, [g for g in ranked if c <= g <= k])
        observed += coincidences[c, k] * distance
        expected += totals[c] * totals[k] * distance
    return 1 - (n - 1) * observed / expected if expected else None


def _ordinal(totals: dict[int, float], between: Sequence[int]) -> float:
    """δ² of the first and the last of `between`."""
    return (sum(totals[g] for g in between) - (totals[between[0]] + totals[between[-1]]) / 2) ** 2


def preferences(orders: Iterable[tuple[str, Tiers]]) -> list[list[int]]:
    """Units for `alpha` of (item, order of its answers): what each two answers of an item are to each other.

    The unit of the answers a and b holds, for each order with both, 1 where a is better, 0 where they are tied and -1
    where b is. Which of the two is named first must not matter, so that the unit of b and a is there, too.
    """
    units: defaultdict[tuple[str, str, str], list[int]] = defaultdict(list)
    for item, tiers in orders:
        place = {answer: at for at, tier in enumerate(tiers) for answer in tier}
        for a, b in combinations(sorted(place), 2):
            units[item, a, b].append((place[a] < place[b]) - (place[a] > place[b]))
    return [*units.values(), *([-value for value in values] for values in units.values())]
