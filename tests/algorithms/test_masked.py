"""Masked arithmetic: hand-computed numbers, and masked positions that change nothing."""

import math

import pytest
import torch

from rlhf_online.algorithms.masked import (
    masked_mean,
    masked_sum,
    masked_variance,
    row_sums,
    token_entropies,
    token_logprobs,
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


def test_token_logprobs_divide_the_logits_by_the_temperature():
    logits_NV = torch.tensor([[0.0, math.log(3.0)], [0.0, math.log(3.0)]], dtype=torch.float64)
    tokens_N = torch.tensor([1, 1])
    plain = token_logprobs(logits_NV, tokens_N)
    assert plain.exp().tolist() == pytest.approx([0.75, 0.75])
    mixed = token_logprobs(logits_NV, tokens_N, torch.tensor([1.0, 0.5], dtype=torch.float64))
    assert mixed.exp().tolist() == pytest.approx([0.75, 0.9])
    assert token_logprobs(logits_NV, tokens_N, 0.5).exp().tolist() == pytest.approx([0.9, 0.9])


def test_logits_may_have_any_number_of_leading_dimensions():
    """And each token is what it is alone."""
    generator = torch.Generator().manual_seed(3)
    logits_BTV = torch.randn(2, 3, 4, generator=generator, dtype=torch.float64)
    tokens_BT = torch.randint(4, (2, 3), generator=generator)
    temperature_BT = 0.5 + torch.rand(2, 3, generator=generator, dtype=torch.float64)
    logprobs_BT = token_logprobs(logits_BTV, tokens_BT, temperature_BT)
    entropies_BT = token_entropies(logits_BTV, temperature_BT)
    assert logprobs_BT.shape == entropies_BT.shape == (2, 3)
    for b in range(2):
        for t in range(3):
            p_V = (logits_BTV[b, t] / temperature_BT[b, t]).exp()
            p_V /= p_V.sum()
            assert logprobs_BT[b, t].item() == pytest.approx(p_V[tokens_BT[b, t]].log().item())
            assert entropies_BT[b, t].item() == pytest.approx(-(p_V * p_V.log()).sum().item())


def test_a_temperature_of_0_is_refused():
    for function in (
        lambda: token_logprobs(torch.zeros(1, 2), torch.tensor([0]), 0.0),
        lambda: token_entropies(torch.zeros(1, 2), -1.0),
    ):
        with pytest.raises(ValueError, match="temperature must be above 0, got "):
            function()


def test_a_mask_of_numbers_is_refused():
    with pytest.raises(ValueError, match=r"mask must be a tensor of bool, got torch.int64: pass mask.bool\(\)"):
        masked_mean(VALUES_BT, MASK_BT.long())


def test_token_entropies_are_those_of_the_sampled_distribution():
    logits_NV = torch.tensor([[0.0, math.log(3.0)], [0.0, 0.0]], dtype=torch.float64)

    def of(p: float) -> float:
        return -p * math.log(p) - (1 - p) * math.log(1 - p)

    assert token_entropies(logits_NV).tolist() == pytest.approx([of(0.75), math.log(2)])
    assert token_entropies(logits_NV, torch.tensor([0.5, 2.0])).tolist() == pytest.approx([of(0.9), math.log(2)])


def test_a_token_that_cannot_be_adds_nothing_to_an_entropy_nor_to_its_gradient():
    possible_NV = torch.tensor([[0.3, -1.0, 2.0]], dtype=torch.float64, requires_grad=True)
    never = torch.tensor([[-math.inf]], dtype=torch.float64, requires_grad=True)
    with_it, without = token_entropies(torch.cat([possible_NV, never], 1)), token_entropies(possible_NV)
    assert with_it.tolist() == pytest.approx(without.tolist())
    gradients = torch.autograd.grad(with_it.sum(), (possible_NV, never))
    assert gradients[0][0].tolist() == pytest.approx(torch.autograd.grad(without.sum(), possible_NV)[0][0].tolist())
    assert gradients[1].tolist() == [[0.0]]
