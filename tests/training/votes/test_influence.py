"""Caps: no person, key or day is more of an update than its share."""

import math
import random
from collections import defaultdict

import pytest

from rlhf_online.feedback.votes import Candidate, Rating, Vote
from rlhf_online.training.settings import InfluenceCaps
from rlhf_online.training.votes.influence import DAY_MS, level, weights


def _votes(person: str, count: int, *, key: str = "", day: int = 0, by_ai: bool = False) -> list[Vote]:
    return [
        Rating(
            event_id=f"{person} {key} {day} {number}",
            conversation_id="c",
            person=person,
            prompt_token_ids=(1,),
            candidate=Candidate(token_ids=(5,)),
            up=True,
            created_ms=day * DAY_MS + number if day else 0,
            key_id=key,
            by_ai=by_ai,
        )
        for number in range(count)
    ]


def _weight(votes: list[Vote], found: dict[str, float]) -> dict[str, float]:
    total: dict[str, float] = defaultdict(float)
    for vote in votes:
        total[vote.person] += found.get(vote.event_id, 1.0)
    return total


def test_who_votes_most_counts_as_their_share_of_what_all_count_then():
    votes = [*_votes("loud", 100), *(vote for name in "abcdefgh" for vote in _votes(name, 5))]
    total = _weight(votes, weights(votes, InfluenceCaps(person=0.25)))
    assert total["loud"] / sum(total.values()) == pytest.approx(0.25)
    assert [total[name] for name in "abcdefgh"] == [5] * 8
    assert weights(votes, InfluenceCaps(person=1.0)) == {}


def test_no_share_is_exceeded_whatever_the_counts_and_as_little_is_taken_away_as_may_be():
    rng = random.Random(0)
    for _ in range(300):
        counts = [rng.randint(1, 200) for _ in range(rng.randint(2, 30))]
        share = rng.choice([0.1, 0.2, 0.25, 1 / 3, 0.5, 0.9])
        cap = level(counts, share)
        if share * len(counts) < 1:
            assert cap == math.inf, "there are too few for it"
            continue
        kept = [min(count, cap) for count in counts]
        assert max(kept) <= share * sum(kept) * (1 + 1e-9)
        if cap < math.inf:
            more = [min(count, cap * 1.01) for count in counts]
            assert max(more) > share * sum(more) or min(counts) <= cap, "the most that the share allows"


def test_few_people_are_not_capped():
    votes = [*_votes("a", 90), *_votes("b", 5), *_votes("c", 5)]
    assert weights(votes, InfluenceCaps(person=0.25)) == {}


def test_a_key_and_a_day_are_capped_as_people_are_and_a_vote_weighs_the_least_of_the_three():
    votes = [*_votes("a", 60, key="k1", day=1), *_votes("b", 20, key="k2", day=2), *_votes("c", 20, key="k2", day=1)]
    by_key = weights(votes, InfluenceCaps(person=1, key=0.5))
    assert by_key == pytest.approx({vote.event_id: 2 / 3 for vote in votes[:60]})
    by_day = weights(votes, InfluenceCaps(person=1, day=0.5))
    assert by_day == pytest.approx({vote.event_id: 0.25 for vote in votes if vote.created_ms < 2 * DAY_MS})
    both = weights(votes, InfluenceCaps(person=1, key=0.5, day=0.5))
    assert both == {**by_key, **by_day}


def test_who_gave_no_name_is_nobody_and_models_are_no_people():
    votes = [*_votes("", 100), *_votes("judge", 100, by_ai=True), *(v for name in "abcd" for v in _votes(name, 5))]
    assert weights(votes, InfluenceCaps(person=0.25, key=0.5, day=0.5)) == {}
