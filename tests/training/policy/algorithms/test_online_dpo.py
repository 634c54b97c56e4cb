"""Online DPO: the best against the worst answer to each prompt, by hand."""

import math

import pytest

from rlhf_online.training.policy.algorithms.online_dpo import OnlineDPO
from rlhf_online.training.policy.measured import AlgorithmState
from tests.support.few_answers import evaluate, scored


def test_the_best_and_the_worst_make_a_pair():
    """Of log-ratios ½ and 1½ nats; the second prompt's are the other way round."""
    answers = scored(lengths=(1, 3, 1, 3))
    objective = OnlineDPO(beta=0.5).objective(answers, AlgorithmState())
    assert objective.examples == [(0, 1), (3, 2)] and not objective.left_out
    loss, stats, _ = evaluate(objective)
    assert loss == pytest.approx((math.log1p(math.exp(0.5)) + math.log1p(math.exp(-0.5))) / 2)
    assert stats["accuracy"].item() == 0.5
    assert evaluate(OnlineDPO(beta=0.5, loss="ipo").objective(answers, AlgorithmState()))[0] == pytest.approx(2.0)


def test_the_kl_has_no_say_in_what_is_best():
    """The better answer is three times as long and a nat further from the reference; the loss holds it near, not the
    choice."""
    answers = scored([1.0, 1.2, 0.4, 0.6], lengths=(1, 3, 1, 3))
    assert OnlineDPO().objective(answers, AlgorithmState()).examples == [(1, 0), (3, 2)]


def test_what_is_worth_the_same_makes_none():
    """Both scores of the first prompt are beyond the clip."""
    objective = OnlineDPO(reward_clip=2.0).objective(scored([2.5, 9.0, 1.0, 0.0]), AlgorithmState())
    assert objective.examples == [(2, 3)] and objective.left_out == {"tied": 2}
