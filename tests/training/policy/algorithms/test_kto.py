"""KTO: its reference point and its weights, by hand."""

import math
from dataclasses import replace

import pytest
import torch

from rlhf_online.models.policy import Outputs
from rlhf_online.training.policy.algorithms.kto import KTO, with_other_answers
from rlhf_online.training.policy.measured import LabelledAnswers
from rlhf_online.training.policy.objectives import MicroBatch
from tests.support.few_answers import LABELLED, measured


def test_the_reference_point_is_of_answers_to_other_prompts():
    assert with_other_answers(LABELLED) == [
        ((1, 10), (32, 2)), ((1, 10), (32, 2)), ((1, 11), (33, 2)), ((1, 12), (30, 2)),
    ]  # fmt: skip
    assert with_other_answers(LABELLED[:2]) == [], "there are none"


def test_both_kinds_weigh_the_same_and_are_measured_from_the_reference_point():
    """Three good answers and a bad one, of log-ratio ½ an answer, and a reference point of 0.2 nats."""
    answers = measured(reference=-1.25)
    asked: list[object] = []

    def measure(pairs):
        asked.extend(pairs)
        return replace(answers, pairs=pairs)

    objective = KTO(beta=0.5).objective(LabelledAnswers(measured=answers, labelled=LABELLED, measure=measure))
    assert asked == with_other_answers(LABELLED)
    minibatch = objective.minibatch([3, 0], lambda others, rows: torch.tensor([-2.2, -2.4]))
    assert minibatch.denominator == 2
    assert minibatch.reference_point == pytest.approx(0.2), (
        "of −2.5 by the reference, nats an answer, in this minibatch"
    )
    mask_BA = answers.mask_NA[:2]
    outputs = Outputs(-1.0 * mask_BA, 0.0 * mask_BA)
    loss, stats = objective.loss(MicroBatch([3, 0], outputs, mask_BA, minibatch))
    good, bad = (1 / (1 + math.exp(sign * 0.5 * (0.5 - 0.2))) for sign in (1, -1))
    assert loss.item() == pytest.approx((4 / 6 * good + 4 / 2 * bad) / 2, rel=1e-5)
    assert set(stats) == {"desirable_reward", "undesirable_reward"}


def test_where_all_prompts_are_one_the_reference_point_is_0():
    labelled = [replace(item, prompt_token_ids=(1, 10)) for item in LABELLED]
    objective = KTO().objective(
        LabelledAnswers(measured=measured(), labelled=labelled, measure=lambda pairs: replace(measured(), pairs=pairs))
    )
    assert objective.minibatch([0, 1], lambda others, rows: torch.ones(2)).reference_point == 0
