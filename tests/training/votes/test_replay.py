"""The replay: a reservoir in which old votes fade; the held-out votes: the newest, each once."""

import json
import math
import random

import pytest

from rlhf_online.feedback.votes import Candidate, Rating
from rlhf_online.training.votes import replay
from rlhf_online.training.votes.replay import HeldOut, Replay


def _vote(number: int) -> Rating:
    return Rating(
        event_id=f"e{number}",
        conversation_id=f"c{number}",
        person="p",
        prompt_token_ids=(1, 3),
        candidate=Candidate(token_ids=(number, 2)),
        up=True,
    )


def test_old_votes_fade_with_the_capacity_as_their_time():
    kept, rng, capacity = Replay(200), random.Random(0), 200
    shares = [0, 0, 0]  # of the votes that are 0 … 1, 1 … 2 and 2 … 3 capacities old
    rounds = 30
    for _ in range(rounds):
        kept.remove(lambda vote: True)
        kept.add([_vote(number) for number in range(4 * capacity)], rng)
        for vote in kept.votes:
            age = (4 * capacity - 1 - int(vote.event_id[1:])) // capacity
            shares[min(age, 2)] += age < 3
    for age, found in enumerate(shares):
        expected = math.exp(-age) * (1 - math.exp(-1))  # the mean of exp(-a / capacity) over that age
        assert found / (rounds * capacity) == pytest.approx(expected, abs=0.03)


def test_it_is_bounded_sampled_without_repeats_and_comes_back():
    kept, rng = Replay(5), random.Random(0)
    kept.add([_vote(number) for number in range(20)], rng)
    assert len(kept.votes) == 5
    assert len({vote.event_id for vote in kept.sample(3, rng)}) == 3 and len(kept.sample(9, rng)) == 5
    again = Replay(5)
    again.load_json(json.loads(json.dumps(kept.to_json())))
    assert again.votes == kept.votes
    assert again.remove(lambda vote: vote == kept.votes[0]) == 1 and len(again.votes) == 4


def test_held_out_votes_are_the_newest_each_once(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(replay, "HELD_OUT_CAPACITY", 3)
    held = HeldOut()
    held.add([_vote(1), _vote(2), _vote(1), _vote(3), _vote(4)])
    assert [vote.event_id for vote in held.votes] == ["e2", "e3", "e4"]
    again = HeldOut()
    again.load_json(json.loads(json.dumps(held.to_json())))
    assert again.votes == held.votes
    assert held.remove(lambda vote: vote.event_id == "e3") == 1 and len(held.votes) == 2
