"""DPO, IPO and KTO: hand-computed numbers."""

import math

import pytest
import torch
from torch import Tensor

from rlhf_online.algorithms.preference_losses import dpo_loss, kto_loss

# log π − log π_ref is 0.5, −1 and 0 for what was chosen, and −0.5, 0.2 and 0 for what was rejected.
CHOSEN_B, CHOSEN_REF_B = torch.tensor([-1.0, -3.0, -2.0]), torch.tensor([-1.5, -2.0, -2.0])
REJECTED_B, REJECTED_REF_B = torch.tensor([-2.5, -0.8, -4.0]), torch.tensor([-2.0, -1.0, -4.0])
MARGINS = (1.0, -1.2, 0.0)


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def test_dpo_by_hand():
    loss, stats = dpo_loss(CHOSEN_B, REJECTED_B, CHOSEN_REF_B, REJECTED_REF_B, beta=0.5)
    assert loss.item() == pytest.approx(-sum(math.log(_sigmoid(0.5 * h)) for h in MARGINS) / 3)
    assert stats["accuracy"].item() == pytest.approx(1.5 / 3), "a margin of 0 is half right"
    assert stats["margin"].item() == pytest.approx(0.5 * sum(MARGINS) / 3)
    assert stats["chosen_reward"].item() == pytest.approx(0.5 * -0.5 / 3)
    assert stats["rejected_reward"].item() == pytest.approx(0.5 * -0.3 / 3)


def test_ipo_by_hand():
    loss, _ = dpo_loss(CHOSEN_B, REJECTED_B, CHOSEN_REF_B, REJECTED_REF_B, beta=0.5, kind="ipo")
    assert loss.item() == pytest.approx(sum((h - 1) ** 2 for h in MARGINS) / 3)


def _kto(kl: float | Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    return kto_loss(
        torch.cat([CHOSEN_B, REJECTED_B[:1]]),
        torch.cat([CHOSEN_REF_B, REJECTED_REF_B[:1]]),
        torch.tensor([True, True, False, False]),
        kl,
        beta=0.5,
        desirable_weight=2.0,
        undesirable_weight=3.0,
    )


@pytest.mark.parametrize(("kl", "z"), [(0.4, 0.4), (-0.4, 0.0)])
def test_kto_by_hand(kl: float, z: float):
    loss, stats = _kto(kl)
    desirable = [2 * (1 - _sigmoid(0.5 * (r - z))) for r in (0.5, -1.0)]
    undesirable = [3 * (1 - _sigmoid(0.5 * (z - r))) for r in (0.0, -0.5)]
    assert loss.item() == pytest.approx(sum(desirable + undesirable) / 4)
    assert stats["desirable_reward"].item() == pytest.approx(0.5 * -0.5 / 4)
    assert stats["undesirable_reward"].item() == pytest.approx(0.5 * -0.5 / 4)
    assert stats["reference_point"].item() == pytest.approx(z)


def test_no_gradient_flows_through_ktos_reference_point():
    log_ratio = torch.tensor(0.4, requires_grad=True)
    loss, _ = _kto(log_ratio)
    assert not loss.requires_grad


def test_ktos_weights_are_as_exact_as_its_log_probs():
    """1.1 and 0.7 are rounded in float32."""
    zeros_B = torch.zeros(2, dtype=torch.float64)
    loss, _ = kto_loss(
        zeros_B, zeros_B, torch.tensor([True, False]), 0.0, beta=1.0, desirable_weight=1.1, undesirable_weight=0.7
    )
    assert loss.item() == pytest.approx((1.1 + 0.7) / 4, rel=1e-14)
