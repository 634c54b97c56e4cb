"""Krippendorff's α: his own examples to the digits that he prints, an oracle that counts pairs, and orders."""

import random
from collections.abc import Sequence
from itertools import chain, permutations, product

import numpy as np
import pytest

from rlhf_online.feedback.agreement import Level, alpha, interval, preferences

# "Computing Krippendorff's Alpha-Reliability" (2011): an observer a row, a unit a column, "." where a value is missing.
BINARY = ("0100000010", "1110010000")  # section A
NOMINAL = ("aabbdcccedda", "babbbccceddd")  # section B
MISSING = ("123321412...", "1233224125.3", ".3332342251.", "12332441251.")  # section C


def units(rows: Sequence[str]) -> list[list[int]]:
    return [[ord(value) for value in column if value != "."] for column in zip(*rows, strict=True)]


@pytest.mark.parametrize(
    ("rows", "level", "printed"),
    [
        (BINARY, "nominal", 0.095),
        (NOMINAL, "nominal", 0.692),
        (MISSING, "nominal", 0.743),
        (MISSING, "ordinal", 0.815),
    ],
)
def test_published_examples(rows: Sequence[str], level: Level, printed: float) -> None:
    assert alpha(units(rows), level) == pytest.approx(printed, abs=0.0005)


def by_pairs(rows: Sequence[Sequence[int]], level: Level) -> float:
    """The definition, in words of pairs of values: D_o within units, D_e between any two of all pairable values."""
    pairable = [unit for unit in rows if len(unit) > 1]
    values = [value for unit in pairable for value in unit]

    def distance(c: int, k: int) -> float:
        if level == "nominal":
            return float(c != k)
        low, high = min(c, k), max(c, k)
        between = sum(low <= value <= high for value in values)
        return (between - (values.count(c) + values.count(k)) / 2) ** 2 if c != k else 0.0

    within = sum(distance(c, k) / (len(unit) - 1) for unit in pairable for c, k in permutations(unit, 2)) / len(values)
    anywhere = [distance(c, k) for c, k in permutations(values, 2)]
    return 1 - within / (sum(anywhere) / len(anywhere))


@pytest.mark.parametrize("level", ["nominal", "ordinal"])
@pytest.mark.parametrize("seed", range(8))
def test_it_is_the_definition(level: Level, seed: int) -> None:
    """Units of none to five values, of which some differ from the unit's own by chance."""
    chance = random.Random(seed)
    rows = [
        [min(4, max(0, own + chance.choice((0, 0, 0, 1, -1)))) for _ in range(chance.randrange(6))]
        for own in (chance.randrange(5) for _ in range(12))
    ]
    assert alpha(rows, level) == pytest.approx(by_pairs(rows, level), abs=1e-12)


def test_where_there_is_nothing_to_tell() -> None:
    for rows in ([], [[1], [2]], [[1, 1], [1, 1, 1]]):
        assert alpha(rows, "nominal") is None
    assert alpha([[1, 1], [2, 2]], "ordinal") == 1
    assert alpha([[1, 2], [2, 1]], "ordinal") == pytest.approx(-0.5), "worse than by chance"


def test_an_order_says_what_each_two_answers_are_to_each_other() -> None:
    """Who ranks only some of an item's answers says something of those; the same answer of another item is another."""
    orders = [("i", [["a"], ["b", "c"]]), ("i", [["b"], ["a"]]), ("j", [["a", "b"]])]
    found = chain.from_iterable(preferences(orders))
    # i: a–b, a–c, b–c, and j: a–b, each from either side
    assert sorted(map(tuple, found)) == sorted([(1, -1), (-1, 1), (1,), (-1,), (0,), (0,), (0,), (0,)])


def test_agreement_on_orders_does_not_hang_on_the_answers_names() -> None:
    """Three people, of whom one turns two answers round; names that sort the other way, the same α."""
    orders = [["a", "b", "c"], ["a", "b", "c"], ["b", "a", "c"]]
    renamed = [[{"a": "z", "b": "y", "c": "x"}[answer] for answer in order] for order in orders]
    [[first], [second]] = (
        [alpha(units, "ordinal") for units in preferences([("item", [[each] for each in order]) for order in given])]
        for given in (orders, renamed)
    )
    assert first == second
    # 3 people × 3 pairs, each seen from two sides: n = 18, 9 times 1 and 9 times -1. Only the two units of a and b
    # differ, (1, 1, -1) and its mirror: o(1, -1) = 2 · 1 / (3 - 1) in each. Two values: the distance cancels out.
    assert first == pytest.approx(1 - (18 - 1) * 2 / (9 * 9))


def test_the_interval_is_that_of_all_draws() -> None:
    """Of three items there are 27 draws of three, all as likely; those that have no α are left out."""
    items = [[[1, 1], [0, 0, 1]], [[1, 0]], [[0, 0]]]
    each = [alpha(chain.from_iterable(drawn), "nominal") for drawn in product(items, repeat=3)]
    low, high = np.quantile([found for found in each if found is not None] * 1000, (0.025, 0.975))
    assert interval(items, "nominal", draws=20_000) == pytest.approx((low, high), abs=1e-9)


@pytest.mark.parametrize("level", ["nominal", "ordinal"])
def test_the_interval_holds_the_true_alpha(level: Level) -> None:
    """Of queues drawn from one population of items, with two units each that are alike, so that they count as one."""
    chance = random.Random(5)

    def item() -> list[list[int]]:
        own = chance.choice((-1, 0, 1))
        unit = [own if chance.random() < 0.6 else chance.choice((-1, 0, 1)) for _ in range(3)]
        return [unit, unit]

    true = alpha(chain.from_iterable(item() for _ in range(20_000)), level)
    assert true is not None
    intervals = [interval([item() for _ in range(40)], level, draws=400) for _ in range(200)]
    held = sum(within is not None and within[0] <= true <= within[1] for within in intervals)
    assert 180 <= held <= 197


def test_the_interval_is_the_same_each_time_and_none_of_nothing() -> None:
    items = [[[1, 1]], [[0, 1]], [[0, 0]], [[1, 1]]] * 3
    assert interval(items, "nominal") == interval(items, "nominal")
    assert interval(items, "nominal", seed=1) != interval(items, "nominal", draws=10, seed=2)
    for nothing in ([], [[[1]], [[0]]], [[[1, 0]]], [[[1, 1]], [[1, 1, 1]]]):
        assert interval(nothing, "nominal") is None
