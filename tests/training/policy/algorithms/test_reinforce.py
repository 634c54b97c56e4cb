"""REINFORCE: its baseline, by hand."""

from typing import Literal

import pytest
import torch

from rlhf_online.algorithms.advantages import RunningMean
from rlhf_online.training.policy.algorithms.reinforce import REINFORCE
from rlhf_online.training.policy.measured import AlgorithmState
from tests.support.few_answers import SCORES, evaluate, scored


@pytest.mark.parametrize("whiten", ["off", "scale", "shift"])
def test_it_takes_its_baseline_off_before_it_whitens(whiten: Literal["off", "scale", "shift"]):
    above = torch.tensor(SCORES) - 0.5
    unit = (above - above.mean()) / above.std(unbiased=False)
    expected = {"off": above, "scale": unit + above.mean(), "shift": unit}[whiten]
    state = AlgorithmState(baseline=RunningMean(total=0.5, weight=1.0))
    _, _, gradient = evaluate(REINFORCE(kl_coef=0.0, whiten_rewards=whiten).objective(scored(), state))
    assert torch.allclose(-8 * gradient, expected.unsqueeze(1).expand(-1, 2), atol=1e-4)


@pytest.mark.parametrize(("place", "paid"), [("reward", 0.1), ("loss", 0.0)])
def test_its_baseline_is_the_mean_of_what_it_compares(place: Literal["reward", "loss"], paid: float):
    """The KL of each answer is 1 nat."""
    reinforce, state = REINFORCE(kl_coef=0.1, kl_in=place), AlgorithmState()
    after = reinforce.state_after(state, scored())
    assert after.baseline.mean == pytest.approx(sum(SCORES) / 4 - paid) and after.kl_coef is None
