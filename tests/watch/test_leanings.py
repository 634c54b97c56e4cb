"""What people come to like or dislike, token by token: residuals by hand, changes that are noticed, and silence."""

import json
import math
import random
from collections.abc import Callable, Iterator

import pytest

from rlhf_online.watch.drift import LIMIT, Alarm, DriftDetector, foretold
from rlhf_online.watch.leanings import FIRST, LEAST, LONGER, Leanings, residuals

TOKENS, HELD = 30, 6
DISLIKED = 7
Taste = dict[int, float]
"""What each token is worth, nats."""


def taste(rng: random.Random) -> Taste:
    return {token: rng.gauss(0.0, 0.7) for token in range(TOKENS)}


def votes(
    seed: int,
    count: int,
    truly: Taste,
    forecast: Callable[[int, int], float] = lambda n, token: 0.0,
    *,
    alike: float = 0.0,
) -> Iterator[tuple[list[tuple[int, ...]], float]]:
    """Two answers each, the better one first, and the log-odds that a model gave it that knows the taste but for what
    `forecast` adds to the n-th vote's; a share of the answers is alike but for one token."""
    rng = random.Random(seed)
    for number in range(count):
        one = rng.sample(range(TOKENS), HELD)
        other = rng.sample(range(TOKENS), HELD)
        if rng.random() < alike:
            other = [*one[1:], rng.choice([token for token in range(TOKENS) if token not in one])]
        truth = sum(truly[token] for token in one) - sum(truly[token] for token in other)
        added = sum(forecast(number, token) for token in one) - sum(forecast(number, token) for token in other)
        if rng.random() < 1 / (1 + math.exp(-truth)):
            yield [tuple(one), tuple(other)], truth + added
        else:
            yield [tuple(other), tuple(one)], -truth - added


def alarms(
    detector: DriftDetector, given: Iterator[tuple[list[tuple[int, ...]], float]], *, believed: float = 1.0
) -> list[tuple[int, Alarm]]:
    """Each alarm, and after how many of these votes."""
    rng, found = random.Random("ties"), []
    for number, (answers, gap) in enumerate(given, 1):
        told = foretold("helpful/comparison", [gap], believed=believed, residuals=residuals(answers, [(0, 1)], [gap]))
        if (alarm := detector.observe(told, at_ms=number, tie=rng.random())) is not None:
            found.append((number, alarm))
    return found


def test_a_residual_is_what_was_not_foretold_over_what_chance_does() -> None:
    assert residuals([(1, 2), (1, 3)], [(0, 1)], [0.0]) == {2: 1.0, 3: -1.0}
    p = 1 / (1 + math.exp(-2.0))
    sure = residuals([(1, 2), (1, 3)], [(0, 1)], [2.0])
    assert sure[2] == pytest.approx((1 - p) / math.sqrt(p * (1 - p))) and sure[3] == -sure[2]
    against = residuals([(1, 2), (1, 3)], [(0, 1)], [-2.0])
    assert against[2] == pytest.approx(p / math.sqrt(p * (1 - p))), "and more where another one was foretold"
    assert residuals([(1, 1, 2), (2, 1)], [(0, 1)], [0.0]) == {LONGER: 1.0}, "what both hold tells nothing"


def test_a_residual_is_over_all_pairs_that_a_token_tells_apart() -> None:
    found = residuals([(5,), (6,), (5,)], [(0, 1), (0, 2), (1, 2)], [0.0, 0.0, 0.0])
    assert found[5] == pytest.approx((0.5 - 0.5) / math.sqrt(0.5)), "it wins once and loses once"
    assert found == {5: 0.0, 6: 0.0}


@pytest.mark.parametrize("seed", range(5))
def test_a_token_that_comes_to_be_disliked_is_named_and_dated(seed: int) -> None:
    truly, detector = taste(random.Random(seed)), DriftDetector()
    assert alarms(detector, votes(seed, 1000, truly)) == []
    now = truly | {DISLIKED: truly[DISLIKED] - 3.0}
    [(after, alarm), *_] = alarms(detector, votes(100 + seed, 500, now, lambda n, token: 3.0 * (token == DISLIKED)))
    assert after <= 350 and (alarm.token, alarm.liked) == (DISLIKED, False)
    assert alarm.votes <= after + 100
    [row] = detector.reading(lambda token: f"word {token}").rows
    assert (row["answers"], row["than foretold"]) == ("with 'word 7'", "lose oftener")


def test_a_model_that_knows_the_new_taste_at_once_is_not_surprised_and_nobody_is_told() -> None:
    truly, detector = taste(random.Random(1)), DriftDetector()
    alarms(detector, votes(1, 1000, truly))
    now = truly | {DISLIKED: truly[DISLIKED] - 3.0}
    assert alarms(detector, votes(2, 500, now)) == []


@pytest.mark.parametrize(
    ("forecast", "alike"),
    [
        (lambda n, token: 0.0, 0.0),
        (lambda n, token: 2.0 * math.exp(-n / 500) * (token == DISLIKED), 0.0),
        (lambda n, token: 1.5 * (token == DISLIKED), 0.0),
        (lambda n, token: 0.0, 0.8),
    ],
    ids=["right", "gets rid of a bias", "keeps a bias", "answers become alike"],
)
def test_nobody_changed_their_mind(forecast: Callable[[int, int], float], alike: float) -> None:
    truly, detector = taste(random.Random(3)), DriftDetector()
    assert alarms(detector, votes(3, 1500, truly, forecast)) == []
    assert alarms(detector, votes(4, 3000, truly, lambda n, token: forecast(n + 1500, token), alike=alike)) == []


def test_false_alarms_are_no_more_often_than_promised() -> None:
    count = 40_000
    assert len(alarms(DriftDetector(), votes(5, count, taste(random.Random(5))))) <= count / LIMIT


def test_who_is_hardly_believed_raises_no_alarm() -> None:
    truly, detector = taste(random.Random(6)), DriftDetector()
    alarms(detector, votes(6, 1000, truly))
    now = truly | {DISLIKED: truly[DISLIKED] - 3.0}
    given = votes(7, 400, now, lambda n, token: 3.0 * (token == DISLIKED))
    assert alarms(detector, given, believed=0.05) == []


def test_the_alarms_in_vain_of_all_tokens_add_up_to_one() -> None:
    leanings = Leanings(1.0)
    for number in range(LEAST + 1):
        leanings.observe({token: 1.0 for token in range(50)}, believed=1.0, number=number, at_ms=0, tie=0.5)
    shares = []
    for token in range(50):
        leaning = leanings.surest([token])
        assert leaning is not None
        assert leaning.bet.total == pytest.approx(1.0), "the ranks of equals are a half: a bet pays what it took"
        shares.append(2 * leaning.evidence)
    assert shares == pytest.approx([FIRST / ((FIRST + k) * (FIRST + k + 1)) for k in range(50)])
    assert sum(shares) == pytest.approx(1 - FIRST / (FIRST + 50)), "so that of any number they are less than one"


def test_what_is_known_comes_back_from_a_checkpoint() -> None:
    truly, detector = taste(random.Random(8)), DriftDetector()
    alarms(detector, votes(8, 400, truly))
    resumed = DriftDetector()
    resumed.load_json(json.loads(json.dumps(detector.to_json())))
    assert resumed.evidence == detector.evidence > 0
    later = [*votes(9, 300, truly | {DISLIKED: -4.0}, lambda n, token: 4.0 * (token == DISLIKED))]
    assert alarms(resumed, iter(later)) == alarms(detector, iter(later)) != []
    assert resumed.to_json() == detector.to_json()
