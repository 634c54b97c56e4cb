"""Masked arithmetic: hand-computed numbers, and masked positions that change nothing."""

import math

import pytest
import torch

from rlhf_online.algorithms.masked import (
    masked_mean,
    masked_sum,
    masked_variance,
    row_sums,
    whiten,
    whitening_scale,
)

VALUES_BT = torch.tensor([[1.0, 2.0, 99.0], [6.0, -99.0, 99.0]], dtype=torch.float64)
MASK_BT = torch.tensor([[True, True, False], [True, False, False]])


def test_sum_and_mean_count_only_real_positions():
    assert masked_sum(VALUES_BT, MASK_BT).item() == 9
    assert masked_mean(VALUES_BT, MASK_BT).item() == 3
    assert masked_mean(VALUES_BT, MASK_BT, denominator=6).item() == 1.5
    assert row_sums(VALUES_BT, MASK_BT).tolist() == [3, 6]


def test_mean_over_nothing_is_zero():
    assert masked_mean(VALUES_BT, torch.zeros_like(MASK_BT)).item() == 0


def test_variance_is_biased_unless_asked_otherwise():
    assert masked_variance(VALUES_BT, MASK_BT).item() == pytest.approx((4 + 1 + 9) / 3)
    assert masked_variance(VALUES_BT, MASK_BT, unbiased=True).item() == pytest.approx((4 + 1 + 9) / 2)


def test_whitened_values_have_mean_zero_and_variance_one():
    white_BT = whiten(VALUES_BT, MASK_BT)
    assert masked_mean(white_BT, MASK_BT).item() == pytest.approx(0, abs=1e-12)
    assert masked_variance(white_BT, MASK_BT).item() == pytest.approx(1, abs=1e-6)
    assert white_BT[~MASK_BT].tolist() == [0, 0, 0]


def test_the_scale_is_what_whitening_multiplies_differences_by_also_where_they_are_tiny():
    for size in (1.0, 1e-4, 0.0):
        tiny_BT = size * VALUES_BT
        difference = (whiten(tiny_BT, MASK_BT)[0, 1] - whiten(tiny_BT, MASK_BT)[0, 0]).item()
        assert difference == pytest.approx(size * whitening_scale(tiny_BT, MASK_BT), rel=1e-12)
    assert whitening_scale(0 * VALUES_BT, MASK_BT) == pytest.approx(1e4)


def test_whitening_without_shift_keeps_the_mean():
    assert masked_mean(whiten(VALUES_BT, MASK_BT, shift_mean=False), MASK_BT).item() == pytest.approx(3)


@pytest.mark.parametrize("junk", [0.0, 1e30, math.inf, -math.inf, math.nan])
def test_masked_positions_change_neither_results_nor_gradients_by_one_bit(junk: float):
    def results(values_BT: torch.Tensor) -> list[torch.Tensor]:
        leaf = values_BT.clone().requires_grad_(True)
        loss = whiten(leaf, MASK_BT).pow(3).sum() + masked_mean(leaf, MASK_BT) + row_sums(leaf, MASK_BT).square().sum()
        loss.backward()
        assert leaf.grad is not None
        return [loss.detach(), leaf.grad]

    expected = results(VALUES_BT)
    found = results(torch.where(MASK_BT, VALUES_BT, torch.full_like(VALUES_BT, junk)))
    for a, b in zip(expected, found, strict=True):
        assert torch.equal(a, b)


def test_a_mask_of_numbers_is_refused():
    with pytest.raises(ValueError, match=r"mask must be a tensor of bool, got torch.int64: pass mask.bool\(\)"):
        masked_mean(VALUES_BT, MASK_BT.long())
