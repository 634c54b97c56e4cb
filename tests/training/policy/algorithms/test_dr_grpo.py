"""Dr. GRPO against section 3.2 and listing 1 of arXiv 2503.20783, by hand."""

import pytest
import torch

from rlhf_online.training.policy.algorithms.dr_grpo import DrGRPO
from rlhf_online.training.policy.measured import AlgorithmState
from tests.support.few_answers import evaluate, scored


def test_neither_length_nor_deviation_divides():
    """Scores 1 and 0 are ½ from their mean, 4 and 0 two; every token of N = 4 answers weighs 1/(N · L), L = 10."""
    answers = scored([1.0, 0.0, 4.0, 0.0], lengths=(1, 3, 2, 2))
    loss, stats, gradient = evaluate(DrGRPO(kl_coef=0.0, max_tokens=10).objective(answers, AlgorithmState()))
    tokens = torch.tensor([[0.5, 0, 0], [-0.5, -0.5, -0.5], [2.0, 2.0, 0], [-2.0, -2.0, 0]])
    assert torch.allclose(gradient, -tokens / 40)
    assert loss == pytest.approx((-0.5 + 1.5 - 4 + 4) / 40) and stats["policy_loss"].item() == pytest.approx(loss)


def test_micro_batches_share_the_denominator_of_the_minibatch():
    objective = DrGRPO(max_tokens=10).objective(scored(), AlgorithmState())
    assert objective.minibatch([0, 3, 1], lambda answers, rows: torch.zeros(3)).denominator == 30
