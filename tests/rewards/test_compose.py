"""Objectives' scores make one score: by the proportions of the weights, of variance 1 over the reference."""

import pytest
import torch

from rlhf_online.rewards.compose import coefficients, combine


def _reference(correlated: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Scores (N, O, K) normalised as a reward model's are over its reference answers, and their correlation."""
    raw_NO = torch.randn(500, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    raw_NO[:, 1] = correlated * raw_NO[:, 0] + (1 - correlated**2) ** 0.5 * raw_NO[:, 1]
    unit_NO = (raw_NO - raw_NO.mean(0)) / raw_NO.std(0, unbiased=False)
    return unit_NO.unsqueeze(2) + torch.tensor([0.25, -0.25]), unit_NO.T @ unit_NO / 500


def test_two_objectives_by_hand():
    scores_NOK = torch.tensor([[[1.0, 3.0], [-1.0, 0.0]]])
    score_N, spread_N = combine(scores_NOK, torch.tensor([3.0, 4.0]), torch.eye(2))
    # Head by head: (3·1 − 4·1)/5 and (3·3 + 0)/5.
    assert score_N.item() == pytest.approx((-0.2 + 1.8) / 2) and spread_N.item() == pytest.approx(1.0)


@pytest.mark.parametrize("correlated", [0.0, 0.7, -0.9])
@pytest.mark.parametrize("weights", [(1.0, 1.0), (0.2, 5.0), (1.0, 0.0)])
def test_whatever_the_weights_the_score_has_mean_0_and_variance_1_over_the_reference(correlated, weights):
    scores_NOK, correlation_OO = _reference(correlated)
    score_N, _ = combine(scores_NOK, torch.tensor(weights, dtype=torch.float64), correlation_OO)
    assert score_N.mean().item() == pytest.approx(0, abs=1e-9)
    assert score_N.var(unbiased=False).item() == pytest.approx(1, abs=1e-9)


def test_only_proportions_count_and_one_objective_is_itself():
    scores_NOK, correlation_OO = _reference(0.3)
    one, many = (combine(scores_NOK, scale * torch.tensor([1.0, 2.0]).double(), correlation_OO) for scale in (1, 1000))
    assert torch.allclose(one[0], many[0]) and torch.allclose(one[1], many[1])
    alone, spread_N = combine(scores_NOK[:, :1], torch.tensor([7.0]).double(), torch.eye(1).double())
    assert torch.allclose(alone, scores_NOK[:, 0].mean(1)) and torch.allclose(spread_N, torch.tensor(0.25).double())


def test_objectives_that_say_the_opposite_are_not_enlarged_without_end():
    assert coefficients(torch.tensor([1.0, 1.0]), torch.tensor([[1.0, -1.0], [-1.0, 1.0]])).max() < 25
