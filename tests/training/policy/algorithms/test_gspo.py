"""GSPO against eq. 5–7 of arXiv 2507.18071, by hand."""

import math

import pytest
import torch

from rlhf_online.training.policy.algorithms.gspo import GSPO
from rlhf_online.training.policy.measured import AlgorithmState
from tests.support.few_answers import evaluate, scored

ADVANTAGES = (1.0, -1.0, 1.0, -1.0)
"""Of the better and the worse of two, divided by their deviation."""


def test_an_answers_ratio_is_the_geometric_mean_of_its_tokens():
    """The policy has moved by these log-ratios a token: means of .02, −.01, .10 and −.10 an answer."""
    answers = scored([1.0, 0.0, 4.0, 0.0], lengths=(1, 3, 2, 2))
    moved = torch.tensor([[0.02, 0, 0], [0.05, -0.05, -0.03], [0.2, 0.0, 0], [-0.3, 0.1, 0]])
    objective = GSPO(kl_coef=0.0, clip=0.03, clip_high=0.04).objective(answers, AlgorithmState())
    loss, stats, gradient = evaluate(objective, answers.measured.start_NA + moved)
    ratios = [math.exp(0.02), math.exp(-0.01), 1.04, 0.97]
    assert loss == pytest.approx(-sum(r * a for r, a in zip(ratios, ADVANTAGES, strict=True)) / 4, rel=1e-5)
    assert stats["clip_fraction"].item() == 0.5
    one, two = -ratios[0] * 1.0 / 1 / 4, -ratios[1] * -1.0 / 3 / 4
    expected = torch.tensor([[one, 0, 0], [two, two, two], [0, 0, 0], [0, 0, 0]])
    assert torch.allclose(gradient, expected, atol=1e-6), "an answer is clipped as a whole"


def test_older_answers_are_corrected_by_the_policy_that_sampled_them():
    _, stats, _ = evaluate(GSPO(clip=0.5, clip_high=0.5).objective(scored(behaviour=-1.1), AlgorithmState()))
    assert stats["ratio"].item() == pytest.approx(math.exp(0.1), rel=1e-5)


def test_the_kl_is_in_the_reward():
    """Equal scores; the longer answer of each prompt has paid for more KL."""
    answers = scored([1.0, 1.0, 1.0, 1.0], lengths=(1, 3, 1, 3))
    _, _, gradient = evaluate(GSPO(kl_coef=0.1).objective(answers, AlgorithmState()))
    assert torch.allclose(gradient.sum(1), torch.tensor([-1.0, 1.0, -1.0, 1.0]) / 4, atol=1e-4)
