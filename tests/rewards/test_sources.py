"""Scores of several sources are one."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pytest

from rlhf_online.errors import RewardUnavailable
from rlhf_online.rewards.sources import Pair, Scored, score_by_all

PAIRS: list[Pair] = [((1, 2), (3,)), ((1, 2), (4, 5))]


@dataclass
class Source:
    """Scores an answer's length times `factor`, by the reward version that it holds."""

    objective: str
    factor: float
    spread: float = 0.0
    version: str = "reward-000003"

    def score(
        self,
        pairs: Sequence[Pair],
        reward_version: str,
        timeout: float,
        weights: Mapping[str, float] | None = None,
        rules: str = "",
    ) -> list[Scored]:
        if reward_version != self.version:
            raise RewardUnavailable(f"it holds {self.version}")
        scores = [self.factor * len(answer) for _, answer in pairs]
        return [Scored(score, self.spread, {self.objective: score}) for score in scores]


def test_the_scores_of_one_source_are_its_own() -> None:
    source = Source("helpful", 0.1, spread=0.3)
    assert score_by_all([source], PAIRS, "reward-000003", 1.0, {}) == source.score(PAIRS, "reward-000003", 1.0)


def test_scores_are_added_and_spreads_as_those_of_independent_errors() -> None:
    sources = [Source("helpful", 1.0, spread=0.3), Source("short", -0.5, spread=0.4)]
    found = score_by_all(sources, PAIRS, "reward-000003", 1.0, {})
    assert [(item.score, item.spread) for item in found] == [(0.5, pytest.approx(0.5)), (1.0, pytest.approx(0.5))]
    assert found[1].by_objective == {"helpful": 2.0, "short": -1.0}


def test_an_answer_without_a_score_by_one_source_has_none() -> None:
    found = score_by_all([Source("helpful", math.nan), Source("short", 1.0)], PAIRS, "reward-000003", 1.0, {})
    assert all(math.isnan(item.score) for item in found)


def test_one_source_that_cannot_score_by_the_version_asked_for_stops_all() -> None:
    sources = [Source("helpful", 1.0), Source("short", 1.0, version="reward-000004")]
    with pytest.raises(RewardUnavailable, match="holds reward-000004"):
        score_by_all(sources, PAIRS, "reward-000003", 1.0, {})
