"""The watch on preference drift: its p-values, its alarm, and what it promises about false ones."""

import json
import math
import random
from collections.abc import Iterator
from dataclasses import replace

import pytest

from rlhf_online.watch.drift import LIMIT, SHARE, SHOWN, Alarm, DriftDetector, Surprise, foretold

WARM = 2000


def said(logit: float, rng: random.Random) -> float:
    """The log-odds of what a person says whose log-odds of a yes these are: of the yes, or of the no."""
    return logit if rng.random() < 1 / (1 + math.exp(-logit)) else -logit


def stream(seed: int, votes: int, *, changed_by: float = 0.0, begin: int = 0) -> Iterator[tuple[Surprise, int, float]]:
    """Votes that are foretold rightly; where minds have changed the true log-odds are this share less than foretold."""
    rng = random.Random(seed)
    for number in range(begin, begin + votes):
        logit = rng.gauss(0.0, 2.0)
        yes = rng.random() < 1 / (1 + math.exp(-logit * (1 - changed_by)))
        yield foretold("helpful/comparison", [logit if yes else -logit]), number, rng.random()


def alarms(detector: DriftDetector, votes: Iterator[tuple[Surprise, int, float]]) -> list[tuple[int, Alarm]]:
    """Each alarm, and after how many votes."""
    found = [(n, detector.observe(surprise, at_ms=at, tie=tie)) for n, (surprise, at, tie) in enumerate(votes, 1)]
    return [(n, alarm) for n, alarm in found if alarm is not None]


@pytest.mark.parametrize(("logit", "loss"), [(0.0, math.log(2)), (2.0, 0.126928), (-2.0, 2.126928), (-800.0, 800.0)])
def test_the_loss_of_a_vote_is_that_of_its_log_odds(logit: float, loss: float) -> None:
    assert foretold("helpful/thumb", [logit]).loss == pytest.approx(loss, abs=1e-6)


def test_what_is_expected_is_the_models_entropy_and_an_even_race_is_no_surprise() -> None:
    p = 1 / (1 + math.exp(-1.5))
    entropy = -p * math.log(p) - (1 - p) * math.log(1 - p)
    for told in (foretold("x", [1.5]), foretold("x", [-1.5])):
        assert told.expected == pytest.approx(entropy)
    mean = p * foretold("x", [1.5]).excess + (1 - p) * foretold("x", [-1.5]).excess
    assert mean == pytest.approx(0.0, abs=1e-12)
    assert foretold("x", [0.0]).excess == pytest.approx(0.0, abs=1e-12)
    assert foretold("x", [-900.0]).excess == pytest.approx(900.0)


def test_a_comparison_is_the_mean_of_its_pairs_and_only_like_votes_are_compared() -> None:
    both = foretold("x", [3.0, -1.0])
    assert both.loss == pytest.approx((foretold("x", [3.0]).loss + foretold("x", [-1.0]).loss) / 2)
    assert foretold("x", [5.0]).kind == "x/0"
    assert foretold("x", [0.1]).kind == "x/5"
    assert foretold("y", [5.0]).kind == "y/0"


@pytest.mark.parametrize("believed", [1.0, 0.25])
def test_the_capital_is_that_of_bets_on_the_rank_among_earlier_votes(believed: float) -> None:
    """Of the capital the share is bet that who gave the vote is believed."""
    detector = DriftDetector()
    for excess in (1.0, 3.0, 2.0):
        told = Surprise(said="x", expected=0.5, loss=0.5 + excess, believed=believed)
        detector.observe(told, at_ms=0, tie=0.5)
    # Ranks by hand, each tied with itself alone at 1 − .5: .5/1, .5/2, (1 + .5)/3.
    total = 0.0
    for power in (0.5, 0.65, 0.8, 0.9):
        capital = 0.0
        for p in (0.5, 0.25, 0.5):
            capital = (1 + capital) * (1 - believed + believed * power * p ** (power - 1))
        total += capital / 4
    promised = SHARE * LIMIT * 3
    assert detector.evidence == pytest.approx(total / promised), "by each of three pasts, which are still the same"


def test_a_change_of_mind_is_noticed_and_dated() -> None:
    """A forecaster whose log-odds mean nothing any more, after two thousand votes that he foretold rightly."""
    for seed in range(5):
        detector = DriftDetector()
        alarms(detector, stream(seed, WARM))
        [(after, alarm), *_] = alarms(detector, stream(100 + seed, 500, changed_by=1.0, begin=WARM))
        assert after <= 500
        assert abs(alarm.since_ms - WARM) <= 100
        assert alarm.votes == WARM + after - alarm.since_ms


def test_the_past_that_says_most_has_a_third_of_surprises_alarms() -> None:
    """No mean over pasts, whose p-values depend on each other's."""
    detector = DriftDetector()
    alarms(detector, stream(4, 1200))
    values = detector.to_json()
    means = [sum(total for total, *_ in past["bets"]) / len(past["bets"]) for past in values["pasts"]]
    assert len({*means}) == 3
    assert detector.evidence == pytest.approx(max(means) / (SHARE * LIMIT * 3))


def test_false_alarms_are_no_more_often_than_promised() -> None:
    votes = 100_000
    assert len(alarms(DriftDetector(), stream(7, votes))) <= votes / LIMIT


def test_a_model_that_improves_raises_no_alarm_nor_do_answers_that_become_more_alike() -> None:
    detector, rng = DriftDetector(), random.Random(1)

    def better(votes: int) -> Iterator[tuple[Surprise, int, float]]:
        for number in range(votes):
            worth = 1.0 + 2.0 * math.exp(-number / 500)  # how far it overrates
            yield foretold("x", [worth * said(rng.gauss(0.0, 2.0), rng)]), number, rng.random()

    def alike(votes: int) -> Iterator[tuple[Surprise, int, float]]:
        for number in range(votes):
            yield foretold("x", [said(rng.gauss(0.0, 0.3), rng)]), number, rng.random()

    assert alarms(detector, better(3000)) == []
    assert alarms(detector, alike(3000)) == []


def test_thumbs_instead_of_comparisons_are_no_drift() -> None:
    """Thumbs are foretold badly from the first one on: only their own past counts."""
    detector, rng = DriftDetector(), random.Random(2)
    assert alarms(detector, stream(3, WARM)) == []
    thumbs = ((foretold("helpful/thumb", [3.0 if rng.random() < 0.5 else -3.0]), n, rng.random()) for n in range(2000))
    assert alarms(detector, thumbs) == []


@pytest.mark.parametrize(("believed", "noticed"), [(1.0, True), (0.05, False)])
def test_who_is_hardly_believed_raises_hardly_an_alarm(believed: float, noticed: bool) -> None:
    """A third of the votes are by people who come to click at random."""
    detector = DriftDetector()
    alarms(detector, stream(6, WARM))
    mixed = [
        (replace(told, believed=believed), at, tie) if at % 3 == 0 else honest
        for (told, at, tie), honest in zip(stream(7, 500, changed_by=1.0), stream(8, 500), strict=True)
    ]
    assert bool(alarms(detector, iter(mixed))) == noticed


def test_it_begins_anew_after_an_alarm_and_shows_it_for_a_while() -> None:
    detector = DriftDetector()
    alarms(detector, stream(1, WARM))
    assert 0 < detector.reading().evidence < 1
    after, _ = alarms(detector, stream(2, 200, changed_by=1.5, begin=WARM))[0]
    assert detector.votes == 200 - after
    assert detector.reading().alarm
    assert abs(float(detector.reading().rows[0]["since_ms"]) - WARM) <= 100
    alarms(detector, stream(3, SHOWN, changed_by=1.5))
    assert not detector.reading().alarm, "the new taste is the usual one by now"


def test_it_goes_on_from_where_it_was() -> None:
    whole, half = DriftDetector(), DriftDetector()
    votes = [*stream(5, 300)]
    assert alarms(whole, iter(votes)) == alarms(half, iter(votes[:150]))
    restored = DriftDetector()
    restored.load_json(json.loads(json.dumps(half.to_json())))
    alarms(restored, iter(votes[150:]))
    assert restored.to_json() == whole.to_json()
    whole.raised = Alarm(5, 2)
    restored.load_json(json.loads(json.dumps(whole.to_json())))
    assert restored.raised == whole.raised


def test_a_loss_that_is_no_number_is_passed_over() -> None:
    detector = DriftDetector()
    assert detector.observe(foretold("x", [math.nan]), at_ms=0, tie=0.5) is None
    assert detector.votes == 0
    assert not detector.reading().alarm
    assert math.isnan(detector.reading().evidence)
