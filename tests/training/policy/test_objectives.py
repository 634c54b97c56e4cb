"""What an algorithm's loss is made of: how a KL loss is scaled and weighed, by hand."""

import math
from typing import Any

import pytest
import torch

from rlhf_online.algorithms.advantages import RunningMean
from rlhf_online.config import Algorithm, PolicyTraining
from rlhf_online.models.policy import Outputs
from rlhf_online.rollout.buffer import Rollout, ScoredRollout
from rlhf_online.training.policy import objectives
from rlhf_online.training.policy.objectives import Answers, PolicyGradient, Shared

SCORES = (1.0, -2.0, 0.5, 3.0)
BETA = 0.3


def _gradient(algorithm: Algorithm, behaviour: float = -1.0, **settings: Any) -> PolicyGradient:
    """Two answers of two tokens to each of two prompts; each token has log-prob −1, and −1.5 under the reference."""
    rollouts = [
        ScoredRollout(
            rollout=Rollout(
                rollout_id=str(row),
                prompt_token_ids=(1, 10 + row // 2),
                token_ids=(30, 2),
                logprobs=(behaviour, behaviour),
                policy_version="",
                temperature=1.0,
                finished=True,
            ),
            score=score,
        )
        for row, score in enumerate(SCORES)
    ]
    tokens_NA = torch.ones(4, 2)
    answers = Answers(
        pairs=[(one.rollout.prompt_token_ids, one.rollout.token_ids) for one in rollouts],
        temperature_N=torch.ones(4),
        mask_NA=tokens_NA.bool(),
        start_NA=-tokens_NA,
        reference_NA=-1.5 * tokens_NA,
        values_NA=0 * tokens_NA,
    )
    chosen = PolicyTraining.model_validate({"algorithm": algorithm, "kl_in": "loss", "gae_lambda": 1.0} | settings)
    rewards = objectives.rewards_of(answers, rollouts, BETA, chosen)
    return objectives.policy_gradient(algorithm, answers, rollouts, rewards, BETA, RunningMean(), chosen)


def test_a_kl_loss_is_scaled_as_the_advantages_are():
    deviation = torch.tensor(SCORES).std(unbiased=False).item()
    assert _gradient("ppo").kl_weight == pytest.approx(BETA / deviation)
    assert _gradient("grpo").kl_weight == pytest.approx(BETA * (1 - 1 / 2)), "its mean contains the answer itself"
    assert _gradient("rloo").kl_weight == _gradient("reinforce").kl_weight == BETA
    assert {_gradient(name, kl_in="reward").kl_weight for name in ("ppo", "grpo", "rloo", "reinforce")} == {0.0}


@pytest.mark.parametrize(("behaviour", "weight"), [(-1.0, 1.0), (-1.2, math.exp(0.4)), (-2.0, 2.0)])
def test_in_a_kl_loss_an_answer_weighs_what_this_policy_would_write_it_truncated(behaviour: float, weight: float):
    """d/dlog π of w (log π − log π_ref)² / 2, summed over an answer's tokens: w (−2 + 3), for each of its tokens."""
    objective = _gradient("rloo", behaviour, max_weight=2.0)
    rows = range(4)
    found: list[torch.Tensor] = []
    for kl_weight in (BETA, 0.0):
        logprobs_BA = torch.full((4, 2), -1.0, requires_grad=True)
        outputs = Outputs(logprobs_BA, torch.zeros(4, 2))
        one = PolicyGradient(
            objective.answers,
            objective.behaviour_NA,
            objective.advantages_NA,
            None,
            kl_weight,
            objective.settings,
        )
        loss, _ = one.loss(rows, outputs, objective.answers.mask_NA, Shared(8.0))
        found.append(torch.autograd.grad(loss, logprobs_BA)[0])
    assert torch.allclose(found[0] - found[1], torch.full((4, 2), BETA * weight / 8), atol=1e-6)
