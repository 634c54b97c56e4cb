"""The reward model's losses: hand-computed numbers, Plackett–Luce's identities and Bradley–Terry's estimates."""

import itertools
import math

import pytest
import torch
from torch import Tensor

from rlhf_online.algorithms import reward_losses

UTILITIES = (0.3, -1.2, 0.8, 0.05, 2.0)


def _f64(values: object) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


# Plackett–Luce


def _nll(utilities: Tensor, tiers: tuple[int, ...]) -> Tensor:
    return reward_losses.plackett_luce_nll(utilities.unsqueeze(0), torch.tensor([tiers]))[0]


def test_all_orders_sum_to_one():
    utilities = _f64(UTILITIES)
    total = sum(math.exp(-_nll(utilities, tiers).item()) for tiers in itertools.permutations(range(5)))
    assert total == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize(("i", "j"), list(itertools.combinations(range(5), 2)))
def test_a_pair_marginal_is_the_logistic_of_the_difference(i: int, j: int):
    utilities = _f64(UTILITIES)
    orders = (tiers for tiers in itertools.permutations(range(5)) if tiers[i] < tiers[j])
    marginal = sum(math.exp(-_nll(utilities, tiers).item()) for tiers in orders)
    assert marginal == pytest.approx(1 / (1 + math.exp(UTILITIES[j] - UTILITIES[i])), abs=1e-12)


def test_efron_ties_by_hand():
    a, b, c = (math.exp(u) for u in (0.4, -0.3, 0.9))
    found = _nll(_f64([0.4, -0.3, 0.9]), (0, 0, 1)).item()
    assert math.exp(-found) == pytest.approx(a * b / ((a + b + c) * ((a + b) / 2 + c)))


def test_tied_answers_are_likeliest_at_equal_utilities_whatever_their_place_in_the_list():
    tied = [_nll(_f64([u, 0.0, 1.0]), (0, 0, 1)).item() for u in (-1.0, 0.0, 1.0)]
    pair = [_nll(_f64([u, 0.0]), (0, 0)).item() for u in (-0.5, 0.0, 0.5)]
    assert pair[1] == pytest.approx(math.log(2))
    assert pair[1] < pair[0] and pair[1] < pair[2] and tied[1] < tied[0]
    assert _nll(_f64([0.2, 0.7, 1.0]), (0, 0, 1)).item() == pytest.approx(_nll(_f64([1.0, 0.7, 0.2]), (1, 0, 0)).item())


def test_plackett_luce_weights_and_denominator():
    utilities_BG, tiers_BG = _f64([UTILITIES, UTILITIES]), torch.tensor([(0, 1, 2, 3, 4), (2, 0, 1, 0, 2)])
    nll = reward_losses.plackett_luce_nll(utilities_BG, tiers_BG)
    loss, stats = reward_losses.plackett_luce_loss(utilities_BG, tiers_BG, _f64([3.0, 1.0]))
    assert loss.item() == pytest.approx((3 * nll[0] + nll[1]).item() / 4)
    assert stats["top1"].item() == 0
    part, _ = reward_losses.plackett_luce_loss(utilities_BG, tiers_BG, _f64([3.0, 1.0]), denominator=8)
    assert part.item() == pytest.approx(loss.item() / 2)
    hit = reward_losses.plackett_luce_loss(utilities_BG[:1], torch.tensor([[1, 2, 3, 4, 0]]), _f64([1.0]))[1]
    assert hit["top1"].item() == 1


# Bradley–Terry

CHOSEN_B, REJECTED_B = _f64([1.0, -0.5, 0.2]), _f64([0.4, 0.3, 0.2])
TIED_B, MARGINS_B, WEIGHTS_B = torch.tensor([False, False, True]), _f64([0.0, 2.0, 3.0]), _f64([1.0, 2.0, 0.5])


def test_bradley_terry_by_hand():
    terms = [math.log1p(math.exp(-0.6)), 2 * math.log1p(math.exp(0.8 + 2.0)), 0.5 * math.log(2)]
    loss, stats = reward_losses.bradley_terry_loss(CHOSEN_B, REJECTED_B, TIED_B, MARGINS_B, WEIGHTS_B)
    assert loss.item() == pytest.approx(sum(terms) / 3.5)
    assert stats["accuracy"].item() == pytest.approx(1 / 3)
    assert stats["decided"].item() == 3


def test_bradley_terry_is_plackett_luce_over_two():
    for chosen, rejected in zip(CHOSEN_B, REJECTED_B, strict=True):
        one, zero = _f64([1.0]), _f64([0.0])
        bt = reward_losses.bradley_terry_loss(chosen[None], rejected[None], torch.tensor([False]), zero, one)[0]
        assert bt.item() == pytest.approx(_nll(torch.stack([chosen, rejected]), (0, 1)).item())


def test_margins_grow_with_strength():
    assert reward_losses.MARGINS == (0.0, 1.0, 2.0, 3.0)


def test_thumbs_by_hand():
    utilities_B, intercepts_B = _f64([0.5, -1.0, 2.0]), _f64([0.0, 1.5, -1.0])
    up_B, weights_B = torch.tensor([True, False, True]), _f64([1.0, 2.0, 1.0])
    loss, stats = reward_losses.thumbs_loss(utilities_B, intercepts_B, up_B, weights_B)
    terms = [math.log1p(math.exp(-0.5)), 2 * math.log1p(math.exp(0.5)), math.log1p(math.exp(-1.0))]
    assert loss.item() == pytest.approx(sum(terms) / 4)
    assert stats["accuracy"].item() == pytest.approx(2 / 4)


def test_centring_by_hand():
    utilities_BG = _f64([[1.0, 0.5, 9.0], [1.0, 2.0, -6.0]])
    mask_BG = torch.tensor([[True, True, False], [True, True, True]])
    loss, stats = reward_losses.centring_loss(utilities_BG, mask_BG, _f64([3.0, 1.0]))
    assert loss.item() == pytest.approx((3 * (1.0 + 0.5) ** 2 + (2 * -1.0) ** 2) / 4)
    assert stats["level"].item() == pytest.approx((3 * 0.75 - 1) / 4)


def test_padding_does_not_change_a_ranking():
    short = _nll(_f64(UTILITIES[:3]), (0, 1, 1))
    padded = _nll(_f64(UTILITIES), (0, 1, 1, -1, -1))
    assert short.item() == pytest.approx(padded.item(), abs=1e-15)
