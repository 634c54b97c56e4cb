"""The KL as a loss of policy-gradient algorithms: scaled as the advantages are, so that β means the same as in the
reward, and weighed where another policy wrote the answer."""

import math
from typing import Any

import pytest
import torch

from rlhf_online.training.policy.algorithms import ALGORITHMS
from rlhf_online.training.policy.algorithms.base import PolicyGradient
from rlhf_online.training.policy.measured import AlgorithmState
from rlhf_online.training.policy.objectives import Objective
from tests.support.few_answers import SCORES, evaluate, kl_weight, scored

BETA = 0.3
GRADIENTS = [name for name, kind in ALGORITHMS.items() if issubclass(kind, PolicyGradient)]


def _objective(name: str, behaviour: float = -1.0, **settings: Any) -> Objective:
    kind = ALGORITHMS[name]
    assert issubclass(kind, PolicyGradient)
    chosen = kind.model_validate({"kl_in": "loss", "kl_coef": BETA} | settings)
    return chosen.objective(scored(behaviour=behaviour), AlgorithmState())


def test_it_is_scaled_as_the_advantages_are():
    deviation = torch.tensor(SCORES).std(unbiased=False).item()
    assert kl_weight(_objective("ppo", gae_lambda=1.0)) == pytest.approx(BETA / deviation)
    for name in ("grpo", "dr-grpo", "dapo"):
        assert kl_weight(_objective(name)) == pytest.approx(BETA * (1 - 1 / 2)), "its mean contains the answer itself"
    for name in ("rloo", "reinforce"):
        assert kl_weight(_objective(name)) == pytest.approx(BETA)
    for name in GRADIENTS:
        assert kl_weight(_objective(name, kl_in="reward")) == 0


@pytest.mark.parametrize("whiten", ["scale", "shift"])
def test_it_is_scaled_with_the_rewards_that_are_whitened(whiten: str):
    scores = torch.tensor(SCORES)
    deviation = scores.std(unbiased=False).item()
    for name in ("rloo", "reinforce"):
        assert kl_weight(_objective(name, whiten_rewards=whiten)) == pytest.approx(BETA / deviation)
    for name, settings in [("grpo", {"std": False}), ("dr-grpo", {})]:
        assert kl_weight(_objective(name, whiten_rewards=whiten, **settings)) == pytest.approx(BETA / 2 / deviation)
    tokens = torch.stack([torch.zeros(4), scores], 1)
    rewards = (tokens - tokens.mean()) / tokens.std(unbiased=False) + (tokens.mean() if whiten == "scale" else 0)
    returns = rewards.flip(1).cumsum(1).flip(1)
    once_more = tokens.std(unbiased=False) * returns.std(unbiased=False)
    found = kl_weight(_objective("ppo", whiten_rewards=whiten, gae_lambda=1.0))
    assert found == pytest.approx(BETA / once_more.item(), rel=1e-4)


@pytest.mark.parametrize(("behaviour", "weight"), [(-1.0, 1.0), (-1.2, math.exp(0.4)), (-2.0, 2.0)])
def test_an_answer_weighs_what_this_policy_would_write_it_truncated(behaviour: float, weight: float):
    """d/dlog π of w (log π − log π_ref)² / 2, summed over an answer's tokens: w (−2 + 3), for each of its tokens."""
    with_kl, without = (
        evaluate(_objective("rloo", behaviour, kl_coef=coef, kl_max_weight=2.0))[2] for coef in (BETA, 1e-12)
    )
    assert torch.allclose(with_kl - without, torch.full((4, 2), BETA * weight / 8), atol=1e-6)
