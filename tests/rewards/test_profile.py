"""A few votes say how a person's taste parts from the common one, in the directions in which people differ."""

import math
import random

import pytest
import torch
from torch import Tensor

from rlhf_online.rewards.profile import Ordered, Space, prior, profile, thumb
from rlhf_online.simulation.people import plackett_luce

R = 5
"""Four directions, and the threshold."""


def _answers(count: int, seed: int) -> Tensor:
    features_NR = torch.randn(count, R, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    features_NR[:, -1] = 0
    return features_NR


def _rankings(delta_R: Tensor, votes: int, seed: int) -> list[Ordered]:
    """Of four answers each, by u + φ·δ, where the common utility u is the first feature."""
    rng, given = random.Random(seed), []
    for number in range(votes):
        features_GR = _answers(4, 1000 * seed + number)
        features_GR = features_GR[plackett_luce((features_GR[:, 0] + features_GR @ delta_R).tolist(), 1.0, rng)]
        given.append(Ordered(features_GR=features_GR, utilities_G=features_GR[:, 0], tiers=(0, 1, 2, 3)))
    return given


def _thumbs(threshold: float, votes: int, seed: int) -> list[Ordered]:
    rng = random.Random(seed)
    return [
        thumb(features_R, float(features_R[0]), up=rng.random() < 1 / (1 + math.exp(threshold - float(features_R[0]))))
        for features_R in _answers(votes, seed)
    ]


def _taste(*delta: float) -> Tensor:
    return torch.tensor(delta, dtype=torch.float64)


def test_the_posterior_is_laplaces():
    """Its mode by another optimiser, its covariance by a Hessian of autograd's, of the likelihood written out."""
    votes = [*_rankings(_taste(0, 2, 0, -1, 0), 6, 1), *_thumbs(0.5, 5, 2)]
    prior_RR = torch.diag(_taste(1, 2, 0.5, 1, 4))
    prior_RR[0, 1] = prior_RR[1, 0] = 0.3
    delta_R = torch.zeros(R, dtype=torch.float64, requires_grad=True)

    def loss(delta_R: Tensor) -> Tensor:
        total = delta_R @ torch.linalg.inv(prior_RR) @ delta_R / 2
        for vote in votes:
            own_G = vote.utilities_G + vote.features_GR @ delta_R
            own_G = own_G[sorted(range(len(own_G)), key=lambda at: vote.tiers[at])]
            total = total - torch.stack([own_G[at] - own_G[at:].logsumexp(0) for at in range(len(own_G))]).sum()
        return total

    optimiser = torch.optim.LBFGS([delta_R], max_iter=200, tolerance_grad=1e-10, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimiser.zero_grad()
        value = loss(delta_R)
        value.backward()
        return value

    optimiser.step(closure)
    found = profile(votes, prior_RR)
    assert torch.allclose(found.mean_R, delta_R.detach(), atol=1e-4)
    hessian_RR = torch.autograd.functional.hessian(loss, delta_R.detach())
    assert isinstance(hessian_RR, Tensor) and torch.allclose(found.covariance_RR.inverse(), hessian_RR, atol=1e-3)


def test_ten_votes_foretell_who_likes_something_else_once_it_is_known_in_what_people_differ():
    """They differ in the second feature alone: some like it, some do not."""
    known = [_rankings(_taste(0, 3 * (-1) ** place, 0, 0, 0), 30, 100 + place) for place in range(12)]
    prior_RR = prior(known, R)
    assert prior_RR[1, 1] > 4 and prior_RR.diagonal()[[0, 2, 3]].max() < 0.5
    other = _taste(0, -3, 0, 0, 0)
    answers_MR = _answers(400, 9)
    common_M, wanted_M = answers_MR[:, 0], answers_MR[:, 0] + answers_MR @ other
    own_M = profile(_rankings(other, 10, 3), prior_RR).utilities(answers_MR, common_M)

    def agreement(said_M: Tensor) -> float:
        return float(((said_M[:200] > said_M[200:]) == (wanted_M[:200] > wanted_M[200:])).double().mean())

    assert agreement(common_M) < 0.7 and agreement(own_M) > 0.9


def test_where_all_judge_alike_nobody_leaves_the_common_model():
    prior_RR = prior([_rankings(_taste(0, 0, 0, 0, 0), 30, 200 + place) for place in range(12)], R)
    found = profile(_rankings(_taste(0, 0, 0, 0, 0), 10, 4), prior_RR)
    assert found.mean_R.abs().max() < 0.15


def test_of_nobody_a_taste_is_half_a_nat_large():
    typical_R, prior_RR = torch.ones(R, dtype=torch.float64), prior([], R)
    assert float(typical_R @ prior_RR @ typical_R) ** 0.5 == pytest.approx(0.5)


def test_readiness_to_like_everything_is_no_taste():
    found = profile(_thumbs(-4.0, 40, 5), torch.eye(R, dtype=torch.float64))
    assert found.mean_R[-1] < -2 and found.mean_R[:-1].abs().max() < 1


def test_a_tie_says_nothing_of_those_who_tie():
    features_GR, utilities_G = _answers(2, 6), _taste(2, 0)
    tied = [Ordered(features_GR=features_GR, utilities_G=utilities_G, tiers=(0, 0))]
    found = profile(tied, torch.eye(R, dtype=torch.float64))
    assert torch.equal(found.mean_R, torch.zeros(R, dtype=torch.float64))
    assert torch.allclose(found.covariance_RR, torch.eye(R, dtype=torch.float64))


def test_votes_that_nobody_would_have_foretold_are_borne():
    """Newton's whole step would leave the posterior."""
    features_GR = torch.zeros(2, R, dtype=torch.float64)
    features_GR[0, 0], features_GR[1, 1] = 30, 30
    absurd = Ordered(features_GR=features_GR, utilities_G=_taste(-300, 300), tiers=(0, 1))
    found = profile([absurd] * 3, 4 * torch.eye(R, dtype=torch.float64))
    own_M = found.utilities(features_GR, absurd.utilities_G)
    assert own_M.isfinite().all() and own_M[0] > own_M[1]


def test_features_have_variance_1_and_what_nothing_differs_in_is_left_out():
    seen_Nd = torch.randn(200, 3, generator=torch.Generator().manual_seed(0)) * torch.tensor([5.0, 1.0, 0.1]) + 7
    seen_Nd = torch.cat([seen_Nd, seen_Nd[:, :1], torch.full((200, 1), 2.0)], 1)
    space = Space.of(seen_Nd)
    features_NR = space(seen_Nd)
    assert space.features == 4 and torch.equal(features_NR[:, -1], torch.zeros(200, dtype=torch.float64))
    assert torch.allclose(features_NR[:, :3].T @ features_NR[:, :3] / 200, torch.eye(3, dtype=torch.float64), atol=1e-6)
    with pytest.raises(RuntimeError):
        space(seen_Nd[:, :2])
