"""PPO: the critic's part, by hand."""

import pytest

from rlhf_online.training.policy.algorithms.ppo import PPO
from rlhf_online.training.policy.measured import AlgorithmState
from tests.support.few_answers import SCORES, evaluate, scored


def test_the_critic_learns_the_returns():
    """With γ = λ = 1 and no KL each token's return is the answer's score; values are 0, and far from any clip."""
    ppo = PPO(gae_lambda=1.0, kl_coef=0.0, value_clip=99.0, value_coef=0.5)
    loss, stats, _ = evaluate(ppo.objective(scored(), AlgorithmState()))
    expected = 0.5 * sum(score**2 for score in SCORES) / len(SCORES)
    assert stats["value_loss"].item() == pytest.approx(expected)
    assert loss == pytest.approx(stats["policy_loss"].item() + 0.5 * expected)
    assert stats["policy_loss"].item() == pytest.approx(0, abs=1e-6), "minus the mean of whitened advantages"


def test_it_asks_for_a_critic_with_its_own_learning_rate():
    assert PPO.needs.critic and PPO(value_lr=1e-4).critic_lr == 1e-4
