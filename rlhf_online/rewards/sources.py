"""Where the scores of a policy update come from: a list of sources, whose scores are added.

Invariant: all scores of one policy update are by one reward version, one set of weights and one of rules; a source that
cannot score by these raises RewardUnavailable and never answers by others.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

Pair = tuple[Sequence[int], Sequence[int]]
"""Token ids of a prompt, and of an answer to it."""


@dataclass(frozen=True, slots=True)
class Scored:
    """A score and its spread, in standard deviations of the reference answers' scores; NaN where there is none.

    `by_objective` is the score by each objective alone, and the reward by each rule; `by_head` the score by each head
    of the ensemble, without rules, where there is one.
    """

    score: float
    spread: float
    by_objective: dict[str, float] = field(default_factory=dict)
    by_head: tuple[float, ...] = ()


class RewardSource(Protocol):
    """Scores answers: `client.RewardClient`, the reward model behind its service, does."""

    def score(
        self,
        pairs: Sequence[Pair],
        reward_version: str,
        timeout: float,
        weights: Mapping[str, float] | None = None,
        rules: str = "",
    ) -> list[Scored]:
        """Of each pair, in order. `weights` are those of the objectives and of `rules`, a text of `rewards.rules`;
        `timeout` is in seconds.

        Raises RewardUnavailable to be asked again, InvalidInput for pairs that it will never score.
        """
        ...


class RewardService(RewardSource, Protocol):
    """The source that follows the trainer's reward versions."""

    def wait_for_version(self, version: str, timeout: float) -> None:
        """Return once it scores by `version`. Raises RewardUnavailable after `timeout` seconds."""
        ...


def score_by_all(
    sources: Sequence[RewardSource],
    pairs: Sequence[Pair],
    reward_version: str,
    timeout: float,
    weights: Mapping[str, float],
    rules: str = "",
) -> list[Scored]:
    """The sources' scores of each pair as one: see `combine`. Raises what a source raises."""
    found = [source.score(pairs, reward_version, timeout, weights, rules) for source in sources]
    return [combine(scored) for scored in zip(*found, strict=True)]


def combine(scored: Sequence[Scored]) -> Scored:
    """One answer's scores added up; spreads as those of independent errors, √Σ spread²."""
    return Scored(
        score=sum(item.score for item in scored),
        spread=math.hypot(*(item.spread for item in scored)),
        by_objective={name: score for item in scored for name, score in item.by_objective.items()},
    )
