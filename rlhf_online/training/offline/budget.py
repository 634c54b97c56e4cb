"""How many votes can be learned in a time: the model is tried on a few of them, and the rest is reckoned.

A pass over votes with gradients takes so many seconds a token, a measurement without them fewer. Tokens are counted as
they are computed: a prompt once for all its answers.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rlhf_online.feedback.votes import Vote

TRIED = 24
"""Votes that are tried, a third of them before the clock runs."""


@dataclass(frozen=True, slots=True)
class Budget:
    """`votes` of those given, passed over `epochs` times. `learning` and `measuring` are seconds a token."""

    votes: int
    epochs: int
    learning: float
    measuring: float


def tokens(vote: Vote) -> int:
    """Those of the prompt once, and of the answers."""
    return len(vote.prompt_token_ids) + sum(len(candidate.token_ids) for candidate in vote.candidates)


def affordable(
    learned: Sequence[Vote],
    held_out: Sequence[Vote],
    *,
    epochs: int,
    seconds: float,
    learn: Callable[[Sequence[Vote]], object],
    measure: Callable[[Sequence[Vote]], object],
) -> Budget:
    """What fits: all votes `epochs` times, or fewer times, or a part of them once. `learn` computes gradients of votes,
    which it then forgets; `measure` scores them. Held-out votes are measured after each pass, and once in the end."""
    tried = learned[:TRIED]
    learning, measuring = _seconds_a_token(learn, tried), _seconds_a_token(measure, tried)
    room = seconds - 2 * measuring * sum(map(tokens, held_out))
    one_pass = learning * sum(map(tokens, learned)) + measuring * sum(map(tokens, held_out))
    if one_pass <= room:
        return Budget(len(learned), max(1, min(epochs, int(room / one_pass))), learning, measuring)
    return Budget(max(1, int(len(learned) * max(0.0, room) / one_pass)), 1, learning, measuring)


def _seconds_a_token(compute: Callable[[Sequence[Vote]], object], votes: Sequence[Vote]) -> float:
    first = max(1, len(votes) // 3)
    compute(votes[:first])
    begin = time.perf_counter()
    rest = votes[first:] or votes
    compute(rest)
    return (time.perf_counter() - begin) / max(1, sum(map(tokens, rest)))
