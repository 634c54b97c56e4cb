"""Answers in tokens → what the rules say of them."""

import math
from collections.abc import Mapping, Sequence
from operator import mul
from typing import Protocol

from rlhf_online.rewards.rules.propositions import Exchange
from rlhf_online.rewards.rules.ruleset import Rules
from rlhf_online.rewards.sources import Pair


class Decoder(Protocol):
    """`models.tokens.ChatTokenizer` is one."""

    @property
    def eos_ids(self) -> tuple[int, ...]: ...

    def decode(self, ids: Sequence[int]) -> str: ...


def exchange(tokenizer: Decoder, pair: Pair) -> Exchange:
    """The texts of a pair."""
    prompt, answer = pair
    finished = bool(answer) and answer[-1] in tokenizer.eos_ids
    return Exchange(tokenizer.decode(prompt), tokenizer.decode(answer), finished)


def rewards(rules: Rules, tokenizer: Decoder, pairs: Sequence[Pair]) -> list[list[float]]:
    """By each rule, of each pair: (len(pairs), R)."""
    return [rules.set.rewards(exchange(tokenizer, pair)) for pair in pairs] if rules.set.rules else [[] for _ in pairs]


def added(rules: Rules, weights: Mapping[str, float], tokenizer: Decoder, pairs: Sequence[Pair]) -> list[float]:
    """What the rules add to each pair's score, by their weights among those of the objectives."""
    counts = [weights[name] for name in rules.set.objectives]
    return [math.fsum(map(mul, counts, each)) for each in rewards(rules, tokenizer, pairs)]
