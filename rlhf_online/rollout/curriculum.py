"""Which logged prompts get fresh answers: drawn uniformly, or by how much the scores of their answers vary.

Where all answers to a prompt score alike there is nothing to learn from comparing them: it is too easy, or too hard.
"""

import math
import random
import statistics
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from rlhf_online.rollout.types import ScoredRollout, groups

Tokens = tuple[int, ...]
Kind = Literal["uniform", "spread"]
EMA_WEIGHT = 0.5
"""Weight of the newest spread in a prompt's moving average."""
MIN_WEIGHT = 0.1
"""Smallest weight of a prompt, as a share of the mean: none is never drawn."""


def weights(prompts: Sequence[Tokens], spreads: Mapping[Tokens, float]) -> list[float]:
    """In proportion to each prompt's spread, MIN_WEIGHT of the mean at least; a new prompt has the largest."""
    if not any(spread > 0 for spread in spreads.values()):
        return [1.0] * len(prompts)
    most, least = max(spreads.values()), MIN_WEIGHT * statistics.fmean(spreads.values())
    return [max(least, spreads.get(prompt, most)) for prompt in prompts]


def draw(prompts: Sequence[Tokens], weights: Sequence[float], count: int, rng: random.Random) -> list[Tokens]:
    """`count` prompts without replacement, each time with chances in proportion to the weights of those that are left.

    Efraimidis & Spirakis (2006): the largest keys log(u) / w.
    """
    keys = [math.log(1 - rng.random()) / weight for weight in weights]
    order = sorted(range(len(prompts)), key=lambda row: (-keys[row], row))
    return [prompts[row] for row in order[:count]]


class Curriculum:
    """Remembers, of the `capacity` prompts that were answered last, how much the scores of their answers differ."""

    def __init__(self, kind: Kind, capacity: int) -> None:
        self._kind = kind
        self._capacity = capacity
        self._spreads: dict[Tokens, float] = {}

    def observe(self, scored: Sequence[ScoredRollout]) -> None:
        """Take in the standard deviation of the finite scores of each prompt that has two or more."""
        if self._kind == "uniform":
            return
        finite = [item for item in scored if math.isfinite(item.score)]
        for rows in groups(item.rollout.prompt_token_ids for item in finite):
            if len(rows) < 2:
                continue
            prompt = finite[rows[0]].rollout.prompt_token_ids
            spread = statistics.pstdev(finite[row].score for row in rows)
            before = self._spreads.pop(prompt, spread)
            self._spreads[prompt] = EMA_WEIGHT * spread + (1 - EMA_WEIGHT) * before
            if len(self._spreads) > self._capacity:
                del self._spreads[next(iter(self._spreads))]

    def draw(self, prompts: Sequence[Tokens], count: int, rng: random.Random) -> list[Tokens]:
        """`count` of these prompts, without replacement."""
        if self._kind == "uniform":
            return rng.sample(prompts, count)
        return draw(prompts, weights(prompts, self._spreads), count, rng)

    def to_json(self) -> list[Any]:
        """What `restore` takes."""
        return [[prompt, spread] for prompt, spread in self._spreads.items()]

    def restore(self, values: Sequence[Any]) -> None:
        """Become the curriculum that `to_json` described."""
        self._spreads = {tuple(prompt): spread for prompt, spread in values}
