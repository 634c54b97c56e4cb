"""DAPO against eq. 8–12 of arXiv 2503.14476, by hand."""

import pytest
import torch

from rlhf_online.training.policy.algorithms.dapo import DAPO
from rlhf_online.training.policy.measured import AlgorithmState
from tests.support.few_answers import evaluate, scored


def test_clip_higher_and_the_mean_over_all_tokens():
    """Ratios of a token: 1.25, .75 and 1.4; eight tokens in the minibatch, whatever answers they are of."""
    answers = scored([1.0, 0.0, 4.0, 0.0], lengths=(1, 3, 2, 2))
    ratios = torch.tensor([[1.25, 1, 1], [0.75, 1, 1], [1.4, 1, 1], [1, 1, 1]])
    loss, stats, gradient = evaluate(
        DAPO(kl_coef=0.0).objective(answers, AlgorithmState()), answers.measured.start_NA + ratios.log()
    )
    assert loss == pytest.approx(-(1.25 - 0.8 - 2 + 1.28 + 1 - 2) / 8, rel=1e-5)
    assert stats["clip_fraction"].item() == pytest.approx(2 / 8)
    expected = -torch.tensor([[1.25, 0, 0], [0, -1, -1], [0, 1, 0], [-1, -1, 0]]) / 8
    assert torch.allclose(gradient, expected, atol=1e-6), ".75 and 1.4 are clipped, and 1.25 is not"


def test_a_group_that_ties_is_left_out_of_the_loss_and_of_its_denominator():
    objective = DAPO(kl_coef=0.0).objective(scored([1.0, 1.0, 0.5, 3.0]), AlgorithmState())
    assert objective.examples == [(2,), (3,)] and objective.left_out == {"tied": 2}
    _, _, gradient = evaluate(objective)
    assert torch.allclose(gradient, torch.tensor([[1.0, 1.0], [-1.0, -1.0]]) / 4, atol=1e-6)


def test_a_tie_is_one_of_scores_whatever_the_kl():
    """Equal scores, and half a nat of KL a token: the advantages differ, and say nothing of what people want."""
    answers = scored([1.0, 1.0, 0.5, 3.0], lengths=(1, 3, 2, 2))
    assert DAPO(kl_coef=0.5).objective(answers, AlgorithmState()).left_out == {"tied": 2}


def test_older_answers_may_be_decoupled():
    dapo = DAPO(correction="decoupled", max_weight=1.1)
    _, stats, _ = evaluate(dapo.objective(scored(behaviour=-1.2), AlgorithmState()))
    assert stats["weight"].item() == pytest.approx(1.1), "e^.2, truncated"
    assert stats["ratio"].item() == pytest.approx(1.0), "to the policy as the update began"
