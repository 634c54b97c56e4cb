"""What an algorithm's loss is made of: how it is scaled and weighed, by hand."""

import math
from typing import Any

import pytest
import torch

from rlhf_online.algorithms.advantages import RunningMean
from rlhf_online.models.policy import Outputs
from rlhf_online.rollout.types import LabelledAnswer, Rollout, ScoredRollout
from rlhf_online.training.policy import objectives
from rlhf_online.training.policy.objectives import Answers, PolicyGradient, Shared
from rlhf_online.training.policy.settings import Algorithm, PolicyTraining

SCORES = (1.0, -2.0, 0.5, 3.0)
BETA = 0.3


def _gradient(algorithm: Algorithm, behaviour: float = -1.0, baseline: float = 0.0, **settings: Any) -> PolicyGradient:
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
    return objectives.policy_gradient(
        algorithm, answers, rollouts, rewards, BETA, RunningMean(total=baseline, weight=1.0), chosen
    )


def test_a_kl_loss_is_scaled_as_the_advantages_are():
    deviation = torch.tensor(SCORES).std(unbiased=False).item()
    assert _gradient("ppo").kl_weight == pytest.approx(BETA / deviation)
    assert _gradient("grpo").kl_weight == pytest.approx(BETA * (1 - 1 / 2)), "its mean contains the answer itself"
    assert _gradient("rloo").kl_weight == _gradient("reinforce").kl_weight == BETA
    assert {_gradient(name, kl_in="reward").kl_weight for name in ("ppo", "grpo", "rloo", "reinforce")} == {0.0}


@pytest.mark.parametrize("whiten", ["scale", "shift"])
def test_a_kl_loss_is_scaled_with_the_rewards_that_are_whitened(whiten: str):
    scores = torch.tensor(SCORES)
    deviation = scores.std(unbiased=False).item()
    for algorithm in ("rloo", "reinforce"):
        assert _gradient(algorithm, whiten_rewards=whiten).kl_weight == pytest.approx(BETA / deviation)
    grouped = [_gradient("grpo", whiten_rewards=whiten, grpo_std=std).kl_weight for std in (False, True)]
    assert grouped == pytest.approx([BETA / 2 / deviation, BETA / 2]), "a group's own deviation undoes whitening"
    tokens = torch.stack([torch.zeros(4), scores], 1)
    rewards = (tokens - tokens.mean()) / tokens.std(unbiased=False) + (tokens.mean() if whiten == "scale" else 0)
    returns = rewards.flip(1).cumsum(1).flip(1)
    once_more = tokens.std(unbiased=False) * returns.std(unbiased=False)
    assert _gradient("ppo", whiten_rewards=whiten).kl_weight == pytest.approx(BETA / once_more.item(), rel=1e-4)


@pytest.mark.parametrize("whiten", ["off", "scale", "shift"])
def test_reinforce_takes_its_baseline_off_before_it_whitens(whiten: str):
    above = torch.tensor(SCORES) - 0.5
    unit = (above - above.mean()) / above.std(unbiased=False)
    expected = {"off": above, "scale": unit + above.mean(), "shift": unit}[whiten]
    found = _gradient("reinforce", baseline=0.5, whiten_rewards=whiten).advantages_NA
    assert torch.allclose(found, expected.unsqueeze(1).expand(-1, 2), atol=1e-4)


LABELLED = [
    LabelledAnswer(prompt_token_ids=(1, prompt), token_ids=(answer, 2), desirable=desirable)
    for prompt, answer, desirable in [(10, 30, True), (10, 31, True), (11, 32, True), (12, 33, False)]
]


def test_the_reference_point_is_of_answers_to_other_prompts():
    assert objectives.of_other_prompts(LABELLED) == [
        ((1, 10), (32, 2)), ((1, 10), (32, 2)), ((1, 11), (33, 2)), ((1, 12), (30, 2)),
    ]  # fmt: skip
    assert objectives.of_other_prompts(LABELLED[:2]) == [], "there are none"


def test_kto_weighs_both_kinds_the_same_and_measures_from_the_reference_point():
    """Three good answers and a bad one, of log-ratio ½ an answer, and a reference point of 0.2 nats."""
    mask_NA, tokens_NA = torch.ones(4, 2).bool(), torch.ones(4, 2)
    answers = Answers(
        pairs=[(item.prompt_token_ids, item.token_ids) for item in LABELLED],
        temperature_N=torch.ones(4),
        mask_NA=mask_NA,
        start_NA=-tokens_NA,
        reference_NA=-1.25 * tokens_NA,
        values_NA=0 * tokens_NA,
    )
    settings = PolicyTraining.model_validate({"algorithm": "kto", "beta": 0.5})
    labels = objectives.Labels(answers, answers, torch.tensor([item.desirable for item in LABELLED]), settings)
    shared = labels.shared([3, 0], lambda others, rows: torch.tensor([-2.2, -2.4]))
    assert shared.denominator == 2
    assert shared.reference_point == pytest.approx(0.2), "of −2.5 by the reference, nats an answer, in this minibatch"
    loss, stats = labels.loss([3, 0], Outputs(-tokens_NA[:2], 0 * tokens_NA[:2]), mask_NA[:2], shared)
    good, bad = (1 / (1 + math.exp(sign * 0.5 * (0.5 - 0.2))) for sign in (1, -1))
    assert loss.item() == pytest.approx((4 / 6 * good + 4 / 2 * bad) / 2, rel=1e-5)
    assert set(stats) == {"desirable_reward", "undesirable_reward", "policy_loss"}


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
