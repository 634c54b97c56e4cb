"""How far people who judged the same things agree: Krippendorff's α, and how sure that is. Pure.

K. Krippendorff, "Computing Krippendorff's Alpha-Reliability" (2011), section numbers as there. Shapes: D draws, P
different items, V values in their order.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from itertools import combinations
from typing import Literal

import numpy as np

Level = Literal["nominal", "ordinal"]
Tiers = Sequence[Sequence[str]]
"""An order of answers, best first; those of one tier are tied."""
Units = Iterable[Sequence[int]]
BLOCK = 100
"""Draws at once: of 10,000 different items they are 8 MB."""


def alpha(units: Units, level: Level) -> float | None:
    """α = 1 − D_o / D_e. Each unit holds the values that it was given, one of each person who judged it.

    1 is full agreement, 0 what chance would give, less than 0 systematic disagreement. Units with fewer than two values
    say nothing, so values may be missing anywhere. None where there is nothing to tell: no unit has two values, or all
    values are the same, so that no disagreement can be expected (0/0; section C).

    `level` is how far two values are from each other: `nominal`, 1 if they differ; `ordinal`, the number of values that
    stand between them, squared, each of the two counting half.
    """
    coincidences_PVV, counts_P = _coincidences([units])
    [found] = _alphas((coincidences_PVV * counts_P[:, None, None]).sum(0, keepdims=True), level)
    return None if np.isnan(found) else float(found)


def interval(items: Iterable[Units], level: Level, *, draws: int = 1000, seed: int = 0) -> tuple[float, float] | None:
    """A 95 % interval of the α of all units of these items, by bootstrap.

    As many items as there are are drawn with replacement, each with all of its units, since those are not independent
    of each other. (A. F. Hayes and K. Krippendorff, "Answering the Call for a Standard Reliability Measure for Coding
    Data" (2007), draw pairs of values instead, as if all were.) Draws that α says nothing of are left out. None where
    fewer than two items hold a unit of two values, or no draw has an α.
    """
    coincidences_PVV, counts_P = _coincidences(items)
    if (number := int(counts_P.sum())) < 2:
        return None
    chance, (patterns, values, _) = np.random.default_rng(seed), coincidences_PVV.shape
    flat = coincidences_PVV.reshape(patterns, values * values)
    blocks = (chance.multinomial(number, counts_P / number, size=BLOCK) @ flat for _ in range(-(-draws // BLOCK)))
    drawn_D = _alphas(np.concatenate([*blocks]).reshape(-1, values, values), level)
    if np.isnan(drawn_D).all():
        return None
    low, high = np.nanquantile(drawn_D, (0.025, 0.975))
    return float(low), float(high)


def _coincidences(items: Iterable[Units]) -> tuple[np.ndarray, np.ndarray]:
    """o_ck of the units of an item (section C), [P, V, V], for each different item; and how many there are of it, [P].

    Items without a unit of two values are left out.
    """
    alike = Counter(tuple(sorted(tuple(sorted(values)) for values in units if len(values) > 1)) for units in items)
    del alike[()]
    ranked = sorted({value for pattern in alike for values in pattern for value in values})
    found = np.zeros((len(alike), len(ranked), len(ranked)))
    for o_VV, pattern in zip(found, alike, strict=True):
        for values, times in Counter(pattern).items():
            counts_V = np.bincount(np.searchsorted(ranked, values), minlength=len(ranked))
            o_VV += times * (np.outer(counts_V, counts_V) - np.diag(counts_V)) / (len(values) - 1)
    return found, np.array([*alike.values()])


def _alphas(coincidences_DVV: np.ndarray, level: Level) -> np.ndarray:
    """α of each of the matrices; NaN where no disagreement can be expected."""
    totals_DV = coincidences_DVV.sum(2)
    if level == "nominal":
        distances_DVV = 1 - np.eye(totals_DV.shape[1])
    else:  # what stands between two values, of which each counts half, is what stands between their middles
        middles_DV = totals_DV.cumsum(1) - totals_DV / 2
        distances_DVV = (middles_DV[:, :, None] - middles_DV[:, None, :]) ** 2
    observed_D = (coincidences_DVV * distances_DVV).sum((1, 2))
    expected_D = (totals_DV[:, :, None] * totals_DV[:, None, :] * distances_DVV).sum((1, 2))
    n_D = totals_DV.sum(1)
    return 1 - np.divide((n_D - 1) * observed_D, expected_D, out=np.full_like(n_D, np.nan), where=expected_D > 0)


def preferences(orders: Iterable[tuple[str, Tiers]]) -> list[Units]:
    """Units for `alpha` of (item, order of its answers), by item: what each two answers of it are to each other.

    The unit of the answers a and b holds, for each order with both, 1 where a is better, 0 where they are tied and -1
    where b is. Which of the two is named first must not matter, so that the unit of b and a is there, too.
    """
    items: defaultdict[str, defaultdict[tuple[str, str], list[int]]] = defaultdict(lambda: defaultdict(list))
    for item, tiers in orders:
        place = {answer: at for at, tier in enumerate(tiers) for answer in tier}
        for a, b in combinations(sorted(place), 2):
            items[item][a, b].append((place[a] < place[b]) - (place[a] > place[b]))
    return [[*units.values(), *([-value for value in each] for each in units.values())] for units in items.values()]
