"""Segments of votes that the reward model foretells worse than the others."""

import math
import random

import pytest

from rlhf_online.gate.statistics import rise_p
from rlhf_online.watch.segments import LEAST, MOST, Foretold, compared, reading

LANGUAGES = ("en", "de", "fr", "es", "it", "pt")


def votes(seed: int, count: int = 2000, *, worse: str = "", by: float = 0.2) -> list[Foretold]:
    """Of six languages and forty clients, foretold rightly four times of five, but those of one segment less often."""
    rng, found = random.Random(seed), []
    for _ in range(count):
        segments = {"language": rng.choice(LANGUAGES), "key": f"k{rng.randrange(40)}"}
        right = rng.random() < 0.8 - by * (worse in segments.values())
        found.append(Foretold(segments=segments, right=right))
    return found


@pytest.mark.parametrize("seed", range(3))
def test_a_segment_that_is_foretold_worse_is_found_and_no_other(seed: int) -> None:
    told = reading(votes(seed, worse="de"))
    assert told.alarm
    assert [row["segment"] for row in told.rows if row["worse"]] == ["de"]
    assert told.rows[0]["segment"] == "de" or float(told.rows[0]["votes"]) < 100
    assert "1 of 46 segments worse" in told.says


def test_where_all_are_foretold_alike_hardly_any_is_found() -> None:
    """Forty-six segments each: by chance one of a hundred crowds at most."""
    assert sum(reading(votes(seed, 1500)).alarm for seed in range(100)) <= 3
    assert not any(reading(votes(seed)).alarm for seed in range(3))


def test_what_lags_a_little_is_reported_and_no_finding() -> None:
    told = reading(votes(1, 40_000, worse="de", by=0.05))
    assert not told.alarm
    assert {row["segment"] for row in told.rows} >= {"de"}


def test_a_segment_is_compared_with_all_others() -> None:
    told = [Foretold(segments={"notes": "with"}, right=number < 20) for number in range(50)]
    told += [Foretold(segments={"notes": "without"}, right=number < 72) for number in range(80)]
    worse, better = compared(told)
    assert (worse.name, worse.votes, worse.right, worse.others) == ("with", 50, 20, 0.9)
    assert worse.p == pytest.approx(rise_p(30, 50, 8, 80))
    assert (better.name, better.others) == ("without", 0.4)


def test_what_is_found_worse_is_named_however_many_small_segments_lag_more() -> None:
    told = [Foretold(segments={"key": f"k{key}"}, right=at >= 9) for key in range(MOST + 5) for at in range(LEAST)]
    told += [Foretold(segments={"key": "large"}, right=at >= 500) for at in range(2000)]
    told += [Foretold(segments={"key": "others"}, right=at >= 1080) for at in range(9000)]
    assert compared(told)[-2].name == "large", "all small ones lag more"
    rows = reading(told).rows
    assert len(rows) == MOST and [row["segment"] for row in rows if row["worse"]] == ["large"]


def test_few_votes_say_nothing() -> None:
    few = [Foretold(segments={"key": "a"}, right=False)] * (LEAST - 1)
    few += [Foretold(segments={"key": "b"}, right=True)] * 99
    assert math.isnan(reading(few).evidence)
    assert math.isnan(reading([]).evidence)
