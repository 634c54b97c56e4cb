"""A reward model measured on held-out votes, by hand."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import cast

import pytest
import torch
from torch import Tensor

from rlhf_online.feedback.votes import Candidate, Comparison, Rating, Vote
from rlhf_online.models.reward import RewardModel
from rlhf_online.models.sharding import Shards
from rlhf_online.models.tokens import Pair
from rlhf_online.training.votes.evaluation import measure
from rlhf_online.training.votes.rater_bias import RaterBias


class FirstToken:
    """Of two heads one says that an answer is worth its first token, and the other 2 more; all the other way round for
    "harmless"."""

    def __init__(self, *objectives: str) -> None:
        self.objectives = objectives
        self.shards = Shards()

    def utilities(self, pairs: Sequence[Pair]) -> Tensor:
        worth_N = torch.tensor([float(answer[0]) for _, answer in pairs])
        signs = [-1.0 if name == "harmless" else 1.0 for name in self.objectives]
        return torch.stack([torch.stack([sign * worth_N - 1, sign * worth_N + 1], 1) for sign in signs], 1)


def _measure(votes: Sequence[Vote], *objectives: str, bias: float = 0.0):
    biases = [RaterBias() for _ in objectives]
    for each in biases:
        each.common = bias
    return measure(cast(RewardModel, FirstToken(*objectives)), votes, biases, seed=0)


def _comparison(tiers: tuple[tuple[int, ...], ...], worth: Sequence[int], objective: str = "") -> Comparison:
    return Comparison(
        event_id=f"{tiers} {worth}",
        conversation_id=f"{worth}",
        person="p",
        prompt_token_ids=(1, 3),
        candidates=tuple(Candidate(token_ids=(value, 2)) for value in worth),
        tiers=tiers,
        objective=objective,
    )


def _thumb(worth: int, up: bool) -> Rating:
    return Rating(
        event_id=f"{worth} {up}",
        conversation_id=f"c{worth}",
        person="p",
        prompt_token_ids=(1, 3),
        candidate=Candidate(token_ids=(worth, 2)),
        up=up,
    )


def test_pairs_are_counted_right_half_right_and_wrong():
    """A ranking of three is three pairs; those of one tier are none; equal utilities are half right."""
    votes = [_comparison(((0,), (1,), (2,)), (7, 4, 5)), _comparison(((0, 1), (2,)), (4, 4, 4))]
    found = _measure(votes, "helpful")
    assert found.accuracy_n == 5 and found.accuracy == pytest.approx((2 + 2 * 0.5) / 5)
    sure = [1 / (1 + math.exp(-delta)) for delta in (3, 2)]
    wrong = 1 / (1 + math.exp(-1))
    assert found.ece == pytest.approx((abs(1 - sure[0]) + abs(1 - sure[1]) + abs(0 - wrong) + 0) / 5)
    assert found.objectives == {}, "there is one"


def test_thumbs_are_ordered_and_foretold_with_the_persons_bias():
    votes = [_thumb(5, True), _thumb(3, True), _thumb(4, False), _thumb(1, False)]
    found = _measure(votes, "helpful")
    assert (found.thumb_n, found.thumb_auc, found.accuracy_n) == (4, 0.75, 0)
    assert found.thumb_accuracy == 0.5, "without bias every answer is foretold a thumb up"
    assert _measure(votes, "helpful", bias=-3.5).thumb_accuracy == 0.5
    assert _measure(votes, "helpful", bias=-2.0).thumb_accuracy == 0.75


def test_each_objective_has_its_own_accuracy():
    helpful, harmless = _comparison(((0,), (1,)), (7, 4)), _comparison(((0,), (1,)), (7, 5), "harmless")
    found = _measure([helpful, harmless, replace(helpful, event_id="b")], "helpful", "harmless")
    assert found.objectives == {"helpful": 1.0, "harmless": 0.0} and found.accuracy == pytest.approx(2 / 3)
    assert found.figures()["accuracy/harmless"] == 0.0 and "objectives" not in found.figures()
    assert _measure([helpful], "helpful", "harmless").objectives == {"helpful": 1.0}, "of the other there is no pair"


def test_where_there_is_nothing_intervals_are_all():
    found = _measure([], "helpful")
    assert (found.accuracy_n, found.accuracy_low, found.accuracy_high) == (0, 0.0, 1.0)
    assert (found.thumb_n, found.thumb_accuracy, found.ece, found.ece_low, found.ece_high) == (0, 0.0, 0.0, 0.0, 1.0)
