"""Votes kept from earlier updates: those to repeat, against forgetting, and those held out, to measure on.

The replay is a biased reservoir (Aggarwal 2006, VLDB): once it is full, each newcomer takes the place of a random one,
so that of the votes that are a votes old the share exp(−a / capacity) is still there, and is drawn from evenly. Recent
votes are repeated most, and old ones fade without ever being cut off.
"""

import random
from collections.abc import Callable, Sequence
from typing import Any

from rlhf_online.feedback.votes import Vote, from_json, to_json
from rlhf_online.keystore.owned import is_shredded

HELD_OUT_CAPACITY = 2000


class Replay:
    """At most `capacity` votes."""

    def __init__(self, capacity: int) -> None:
        self.votes: list[Vote] = []
        self._capacity = capacity

    def sample(self, count: int, rng: random.Random) -> list[Vote]:
        """`count` different ones, or as many as there are."""
        return rng.sample(self.votes, min(len(self.votes), count))

    def add(self, votes: Sequence[Vote], rng: random.Random) -> None:
        for vote in votes:
            if len(self.votes) < self._capacity:
                self.votes.append(vote)
            else:
                self.votes[rng.randrange(len(self.votes))] = vote

    def remove(self, gone: Callable[[Vote], bool]) -> int:
        """Let go of those that `gone` is true of; returns how many they were."""
        before = len(self.votes)
        self.votes = [vote for vote in self.votes if not gone(vote)]
        return before - len(self.votes)

    def to_json(self) -> list[Any]:
        return [to_json(vote) for vote in self.votes]

    def load_json(self, values: Sequence[Any]) -> None:
        self.votes = [from_json(item) for item in values if not is_shredded(item)]


class HeldOut:
    """The newest HELD_OUT_CAPACITY held-out votes, each once."""

    def __init__(self) -> None:
        self._votes: dict[str, Vote] = {}

    @property
    def votes(self) -> list[Vote]:
        """The oldest first."""
        return list(self._votes.values())

    def add(self, votes: Sequence[Vote]) -> None:
        self._votes.update((vote.event_id, vote) for vote in votes)
        while len(self._votes) > HELD_OUT_CAPACITY:
            del self._votes[next(iter(self._votes))]

    def remove(self, gone: Callable[[Vote], bool]) -> int:
        """Let go of those that `gone` is true of; returns how many they were."""
        before = len(self._votes)
        self._votes = {event_id: vote for event_id, vote in self._votes.items() if not gone(vote)}
        return before - len(self._votes)

    def to_json(self) -> list[Any]:
        return [to_json(vote) for vote in self._votes.values()]

    def load_json(self, values: Sequence[Any]) -> None:
        votes = [from_json(item) for item in values if not is_shredded(item)]
        self._votes = {vote.event_id: vote for vote in votes}
