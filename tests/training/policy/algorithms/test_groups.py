"""GRPO, RLOO and best of n: what an answer is worth beside the others to its prompt, by hand."""

from dataclasses import replace

import pytest
import torch

from rlhf_online.training.policy.algorithms.best_of_n import BestOfN
from rlhf_online.training.policy.algorithms.grpo import GRPO
from rlhf_online.training.policy.algorithms.rloo import RLOO
from rlhf_online.training.policy.measured import AlgorithmState
from tests.support.few_answers import evaluate, scored

CENTRED = torch.tensor([1.5, -1.5, -1.25, 1.25])
"""SCORES less the mean of their group of two."""


@pytest.mark.parametrize(
    ("algorithm", "advantages"),
    [
        (GRPO(kl_coef=0.0), CENTRED.sign()),
        (GRPO(kl_coef=0.0, std=False), CENTRED),
        (RLOO(kl_coef=0.0), 2 * CENTRED),
    ],
)
def test_advantages_over_the_tokens_of_the_minibatch(algorithm: GRPO | RLOO, advantages: torch.Tensor):
    _, _, gradient = evaluate(algorithm.objective(scored(), AlgorithmState()))
    assert torch.allclose(gradient, -advantages.unsqueeze(1).expand(-1, 2) / 8, atol=1e-6)


def test_the_kl_is_paid_by_the_answer():
    """Answers of one and of three tokens pay half a nat and one and a half: at β = 1 a nat apart."""
    answers = scored([1.0, 1.0], lengths=(1, 3))
    _, _, gradient = evaluate(RLOO(kl_coef=1.0).objective(answers, AlgorithmState()))
    assert torch.allclose(gradient, torch.tensor([[-1.0, 0.0, 0.0], [1.0, 1.0, 1.0]]) / 4)


def test_scores_are_clipped_on_both_sides():
    answers = scored([9.0, -9.0, 3.0, -3.0])
    for algorithm in (RLOO(reward_clip=2.5, kl_coef=0.0), BestOfN(reward_clip=2.5)):
        assert algorithm.shaped(answers).tolist() == [2.5, -2.5, 2.5, -2.5]


def test_an_answer_that_did_not_end_by_itself_pays_for_it_beyond_the_clip():
    answers = replace(scored([9.0, 9.0, 0.0, 0.0]), finished_N=torch.tensor([True, False, True, False]))
    assert RLOO(reward_clip=2.5, missing_eos_penalty=0.5).shaped(answers).tolist() == [2.5, 2.0, 0.0, -0.5]


def test_the_best_of_each_prompt_becomes_likelier():
    objective = BestOfN().objective(scored(), AlgorithmState())
    assert objective.examples == [(0,), (3,)]
    loss, _, gradient = evaluate(objective)
    assert loss == pytest.approx(1.0) and torch.allclose(gradient, torch.full((2, 2), -1 / 4))
