"""What the gate predicted against what people said: figures by hand, and an alarm that fires when it must alone."""

import pytest

from rlhf_online.intervals import wilson
from rlhf_online.prediction import (
    LEAST_CORRELATED,
    RECENT,
    WINDOW,
    Assessment,
    Counts,
    Outcome,
    Share,
    assess,
    fisher,
    share,
    thumbs_share,
)
from tests.benches.prediction import SCENARIOS, Scenario, rate


def counts(*people: tuple[int, float]) -> Counts:
    """Of people who gave so many opinions, which sum up to that."""
    return sum((Counts(people=1, opinions=n, means=s / n) for n, s in people), Counts())


def test_each_person_counts_once_however_much_they_say() -> None:
    found = share(counts((2, 2), (50, 25), (1, 0)))
    assert found == Share(value=0.5, low=wilson(0.5, 3)[0], high=wilson(0.5, 3)[1], opinions=53, people=3)
    once = share(counts(*[(1, 1)] * 60, *[(1, 0)] * 40))
    assert once is not None and (once.low, once.high) == wilson(0.6, 100)
    assert once.variance == pytest.approx(((once.high - once.low) / 3.919928) ** 2)
    alone = share(counts((1000, 700)))
    assert alone is not None and not alone.clear and alone.value == pytest.approx(0.7)
    assert share(Counts()) is None


def test_thumbs_on_two_versions_are_compared_as_in_newcombes_example() -> None:
    """56 of 70 against 48 of 80: the difference .2 lies in .0524 … .3339 (1998, table II, method 10)."""
    found = thumbs_share(counts(*[(1, 1)] * 56, *[(1, 0)] * 14), counts(*[(1, 1)] * 48, *[(1, 0)] * 32))
    assert found is not None and found.value == pytest.approx(0.6)
    assert (found.low, found.high) == pytest.approx((0.5 + 0.0524 / 2, 0.5 + 0.3339 / 2), abs=1e-4)
    assert thumbs_share(counts((1, 1)), Counts()) is None


def test_fishers_interval() -> None:
    """artanh .95 = 1.83178, 1.959964/√17 = .475362."""
    assert fisher(0.95, 20) == pytest.approx((0.87556, 0.98038), abs=1e-5)
    assert fisher(0.95, 3) == (-1.0, 1.0)
    assert fisher(1.0, 10)[0] > 0.99


def outcome(number: int, predicted: float, said: float, half: float = 0.1) -> Outcome:
    word = Share(value=said, low=said - half, high=said + half, opinions=100, people=50)
    return Outcome(version=f"policy-{number:06d}", predicted=predicted, said=word)


def assessed(*points: tuple[float, float], half: float = 0.1) -> Assessment:
    return assess([outcome(i, *point, half) for i, point in enumerate(points)])


def test_the_figures_of_three_versions() -> None:
    found = assessed((0.5, 0.5), (0.6, 0.55), (0.7, 0.6))
    assert (found.versions, found.recent, found.alarm) == (3, None, "")
    assert (found.slope, found.correlation, found.gap) == pytest.approx((0.5, 1.0, -0.05))
    assert assess([]) == Assessment()
    assert assessed((0.6, 0.5)).correlation is None and assessed((0.6, 0.5)).gap == pytest.approx(-0.1)
    same = assessed((0.6, 0.5), (0.6, 0.6), (0.6, 0.7))
    assert same.slope is same.correlation is None, "the gate always says the same"
    flat = assessed((0.5, 0.5), (0.6, 0.5), (0.7, 0.5))
    assert (flat.slope, flat.correlation) == (0.0, None), "people do"


def test_people_who_prefer_what_was_before_are_an_alarm() -> None:
    """Five versions of .44 ± .1 are .44 ± .0447 together; four are no alarm yet, nor are .46."""
    found = assessed(*[(0.6, 0.44)] * RECENT)
    assert found.recent is not None
    assert (found.recent.low, found.recent.high) == pytest.approx((0.44 - 0.04472, 0.44 + 0.04472), abs=1e-4)
    assert "people prefer the versions before to the last 5: these are better 44% of the time" in found.alarm
    assert "the gate predicted 60%" in found.alarm
    assert assessed(*[(0.6, 0.44)] * (RECENT - 1)).alarm == ""
    assert assessed(*[(0.6, 0.46)] * RECENT).alarm == ""
    assert assessed(*[(0.6, 0.44)] * RECENT, *[(0.6, 0.6)] * RECENT).alarm == "", "it is over"


def test_the_better_for_the_gate_the_worse_for_people_is_an_alarm() -> None:
    points = [(0.5 + i / 100, 0.65 - i / 100) for i in range(LEAST_CORRELATED)]
    assert "r = -1.00" in assessed(*points).alarm
    assert assessed(*points[1:]).alarm == "", "of nine it is not said"
    assert assessed(*[(x, 0.55 + (i % 2) / 50) for i, (x, _) in enumerate(points)]).alarm == ""


def test_only_the_last_versions_count() -> None:
    old, new = (
        [(0.5 + i / 100, 0.9 - i / 100) for i in range(30)],
        [(0.5 + i / 100, 0.5 + i / 200) for i in range(WINDOW)],
    )
    found = assessed(*old, *new)
    assert found.versions == WINDOW and found.slope == pytest.approx(0.5) and found.alarm == ""


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_an_alarm_comes_when_it_must_alone(scenario: Scenario) -> None:
    """In simulated services of thirty versions; `tests/benches/prediction.py` says how often in more of them."""
    assert scenario.least <= rate(range(60), scenario.truth) <= scenario.most
