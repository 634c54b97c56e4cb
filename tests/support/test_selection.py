"""The selection of unasked thumbs: by hand, on seeded people, and where too little is known."""

import math
import random

import pytest

from rlhf_online.errors import InvalidInput
from rlhf_online.simulation.people import population, thumb_up_probability
from tests.support.selection import Rates, ThumbTally, rates


def test_the_rates_by_hand():
    # Of 1,000 answers 600 please, as the sample says; 6 of these and 12 of the 400 others were rated.
    found = rates(ThumbTally(up=6, down=12), ThumbTally(up=30, down=20), 1000)
    assert (found.up, found.down) == pytest.approx((0.01, 0.03))
    assert found.weights == pytest.approx((100, 100 / 3))
    assert found.log_odds == pytest.approx(-math.log(3))
    assert found.share(ThumbTally(up=6, down=12)) == pytest.approx(0.6)
    # Another week, at the same rates: half of it pleases.
    assert found.share(ThumbTally(up=5, down=15)) == pytest.approx(0.5)
    assert rates(ThumbTally(up=90, down=1), ThumbTally(up=1, down=9), 100) == Rates(1.0, 1 / 90)


def test_the_share_that_pleases_is_found_among_people_who_rate_as_they_like():
    rng = random.Random(0)
    crowd = population(50, seed=3)
    for person in crowd:
        person.rates = (0.01, 0.03)
    given, asked, pleased = [], [], 0.0
    for _ in range(100_000):
        person, utility = rng.choice(crowd), rng.uniform(0, 1.2)
        pleased += thumb_up_probability(utility) / 100_000
        given.append(person.thumb(utility))
        if rng.random() < 0.01:
            asked.append(person.thumb(utility, asked=True))
    unasked, sample = (ThumbTally(up=thumbs.count(True), down=thumbs.count(False)) for thumbs in (given, asked))
    raw = unasked.up / (unasked.up + unasked.down)
    corrected = rates(unasked, sample, 100_000).share(unasked)
    assert raw - pleased < -0.2
    assert corrected == pytest.approx(pleased, abs=4 * math.sqrt(0.25 / len(asked)))


@pytest.mark.parametrize(
    ("given", "asked", "answers"),
    [
        (ThumbTally(up=0, down=5), ThumbTally(up=5, down=5), 100),
        (ThumbTally(up=5, down=5), ThumbTally(up=5, down=0), 100),
        (ThumbTally(up=5, down=5), ThumbTally(up=5, down=5), 0),
    ],
)
def test_too_little_is_refused(given: ThumbTally, asked: ThumbTally, answers: int):
    with pytest.raises(InvalidInput, match="both kinds"):
        rates(given, asked, answers)
