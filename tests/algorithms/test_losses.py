"""The losses: hand-computed numbers, Plackett–Luce's identities (oracle 3), gradients and masks (oracle 5)."""

import itertools
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from rlhf_online.algorithms import losses

UTILITIES = (0.3, -1.2, 0.8, 0.05, 2.0)


def _f64(values: object) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def _numeric(function: Callable[[Tensor], Tensor], at: Tensor, step: float = 1e-6) -> Tensor:
    """Central differences in float64."""
    gradient = torch.zeros_like(at)
    for index in range(at.numel()):
        up, down = at.clone().view(-1), at.clone().view(-1)
        up[index] += step
        down[index] -= step
        difference = function(up.view_as(at)) - function(down.view_as(at))
        gradient.view(-1)[index] = difference.detach() / (2 * step)
    return gradient


def _check_gradient(function: Callable[[Tensor], Tensor], at: Tensor) -> Tensor:
    leaf = at.clone().requires_grad_(True)
    function(leaf).backward()
    assert leaf.grad is not None
    assert (leaf.grad - _numeric(function, at)).abs().max() <= 1e-6
    return leaf.grad


# PPO. ε = .2; the rows' ratios and advantages are on either side of either clip.

RATIOS_BT = _f64([[0.5, 0.9, 1.1, 1.5], [0.5, 0.9, 1.1, 1.5]])
ADVANTAGES_BT = _f64([[1.0, 2.0, 0.5, 1.5], [-1.0, -2.0, -0.5, -1.5]])
OLD_BT = _f64([[-1.0, -0.3, -2.0, -0.7], [-0.2, -1.5, -0.9, -3.0]])
MASK_BT = torch.tensor([[True, True, True, True], [True, True, True, False]])


def _ppo(logprobs_BT: Tensor, mask_BT: Tensor = MASK_BT) -> Tensor:
    return losses.ppo_policy_loss(logprobs_BT, OLD_BT, ADVANTAGES_BT, mask_BT, clip=0.2)[0]


def test_ppo_loss_by_hand():
    loss, stats = losses.ppo_policy_loss(OLD_BT + RATIOS_BT.log(), OLD_BT, ADVANTAGES_BT, MASK_BT, clip=0.2)
    terms = [0.5, 1.8, 0.55, 1.2 * 1.5, -0.8, -1.8, -0.55]
    assert loss.item() == pytest.approx(-sum(terms) / 7)
    assert stats["clip_fraction"].item() == pytest.approx(2 / 7)
    assert stats["ratio"].item() == pytest.approx((0.5 + 0.9 + 1.1 + 1.5 + 0.5 + 0.9 + 1.1) / 7)


def test_ppo_gradient_on_both_sides_of_each_clip():
    gradient = _check_gradient(_ppo, OLD_BT + RATIOS_BT.log())
    assert gradient[0, 3] == 0 and gradient[1, 0] == 0, "clipped"
    assert gradient[0, 0] != 0 and gradient[1, 2] != 0, "beyond a clip on the side that still learns"
    everywhere = torch.ones_like(MASK_BT)
    assert _check_gradient(lambda x: _ppo(x, everywhere), OLD_BT + RATIOS_BT.log())[1, 3] != 0


def test_micro_batches_with_the_minibatch_denominator_add_up():
    logprobs_BT = OLD_BT + RATIOS_BT.log()
    parts = [
        losses.ppo_policy_loss(
            logprobs_BT[row], OLD_BT[row], ADVANTAGES_BT[row], MASK_BT[row], clip=0.2, denominator=7
        )[0]
        for row in ([0], [1])
    ]
    assert sum(part.item() for part in parts) == pytest.approx(_ppo(logprobs_BT).item(), abs=1e-15)


# The value: clip .2; new values within and beyond it, returns on either side.

VALUES_BT = _f64([[0.1, 0.5, -0.5, 0.6], [0.05, 0.9, -0.7, 0.3]])
OLD_VALUES_BT = torch.zeros_like(VALUES_BT)
RETURNS_BT = _f64([[1.0, 1.0, 1.0, -1.0], [-1.0, 0.3, -0.3, 0.4]])


def _value(values_BT: Tensor) -> Tensor:
    return losses.value_loss(values_BT, OLD_VALUES_BT, RETURNS_BT, MASK_BT, clip=0.2)[0]


def test_value_loss_by_hand():
    plain = [0.81, 0.25, 2.25, 2.56, 1.1025, 0.36, 0.16]
    near = [0.81, 0.64, 1.44, 1.44, 1.1025, 0.01, 0.01]
    loss, stats = losses.value_loss(VALUES_BT, OLD_VALUES_BT, RETURNS_BT, MASK_BT, clip=0.2)
    assert loss.item() == pytest.approx(0.5 * sum(map(max, plain, near)) / 7)
    assert stats["value_clip_fraction"].item() == pytest.approx(1 / 7)


def test_value_gradient_on_both_sides_of_the_clip():
    gradient = _check_gradient(_value, VALUES_BT)
    assert gradient[0, 1] == 0, "it moved towards the return already, and further than the clip"
    assert gradient[0, 0] != 0 and gradient[0, 2] != 0 and gradient[1, 1] != 0


# Plackett–Luce

_TIERS = [(0, 1, 2, 3, 4), (2, 0, 1, 0, 2), (0, 0, 0, 0, 0), (1, 0, 1, 1, 1)]


def _nll(utilities: Tensor, tiers: tuple[int, ...]) -> Tensor:
    return losses.plackett_luce_nll(utilities.unsqueeze(0), torch.tensor([tiers]))[0]


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


@pytest.mark.parametrize("tiers", _TIERS)
def test_plackett_luce_gradient(tiers: tuple[int, ...]):
    gradient = _check_gradient(lambda x: _nll(x, tiers), _f64(UTILITIES))
    assert gradient.sum().item() == pytest.approx(0, abs=1e-12), "only differences count"


def test_plackett_luce_weights_and_denominator():
    utilities_BG, tiers_BG = _f64([UTILITIES, UTILITIES]), torch.tensor(_TIERS[:2])
    nll = losses.plackett_luce_nll(utilities_BG, tiers_BG)
    loss, stats = losses.plackett_luce_loss(utilities_BG, tiers_BG, _f64([3.0, 1.0]))
    assert loss.item() == pytest.approx((3 * nll[0] + nll[1]).item() / 4)
    assert stats["top1"].item() == 0
    part, _ = losses.plackett_luce_loss(utilities_BG, tiers_BG, _f64([3.0, 1.0]), denominator=8)
    assert part.item() == pytest.approx(loss.item() / 2)
    hit = losses.plackett_luce_loss(utilities_BG[:1], torch.tensor([[1, 2, 3, 4, 0]]), _f64([1.0]))[1]
    assert hit["top1"].item() == 1


# Bradley–Terry

CHOSEN_B, REJECTED_B = _f64([1.0, -0.5, 0.2]), _f64([0.4, 0.3, 0.2])
TIED_B, MARGINS_B, WEIGHTS_B = torch.tensor([False, False, True]), _f64([0.0, 2.0, 3.0]), _f64([1.0, 2.0, 0.5])


def _bt(chosen_B: Tensor) -> Tensor:
    return losses.bradley_terry_loss(chosen_B, REJECTED_B, TIED_B, MARGINS_B, WEIGHTS_B)[0]


def test_bradley_terry_by_hand():
    terms = [math.log1p(math.exp(-0.6)), 2 * math.log1p(math.exp(0.8 + 2.0)), 0.5 * math.log(2)]
    assert _bt(CHOSEN_B).item() == pytest.approx(sum(terms) / 3.5)
    stats = losses.bradley_terry_loss(CHOSEN_B, REJECTED_B, TIED_B, MARGINS_B, WEIGHTS_B)[1]
    assert stats["accuracy"].item() == pytest.approx(1 / 3)
    assert stats["decided"].item() == 3


def test_bradley_terry_gradient():
    _check_gradient(_bt, CHOSEN_B)
    _check_gradient(
        lambda x: losses.bradley_terry_loss(CHOSEN_B, x, TIED_B, MARGINS_B, WEIGHTS_B, denominator=7)[0], REJECTED_B
    )


def test_bradley_terry_is_plackett_luce_over_two():
    for chosen, rejected in zip(CHOSEN_B, REJECTED_B, strict=True):
        one, zero = _f64([1.0]), _f64([0.0])
        bt = losses.bradley_terry_loss(chosen[None], rejected[None], torch.tensor([False]), zero, one)[0]
        assert bt.item() == pytest.approx(_nll(torch.stack([chosen, rejected]), (0, 1)).item())


def test_margins_grow_with_strength():
    assert losses.MARGINS == (0.0, 1.0, 2.0, 3.0)


# Thumbs


def test_thumbs_by_hand_and_gradient():
    utilities_B, intercepts_B = _f64([0.5, -1.0, 2.0]), _f64([0.0, 1.5, -1.0])
    up_B, weights_B = torch.tensor([True, False, True]), _f64([1.0, 2.0, 1.0])
    loss, stats = losses.thumbs_loss(utilities_B, intercepts_B, up_B, weights_B)
    terms = [math.log1p(math.exp(-0.5)), 2 * math.log1p(math.exp(0.5)), math.log1p(math.exp(-1.0))]
    assert loss.item() == pytest.approx(sum(terms) / 4)
    assert stats["accuracy"].item() == pytest.approx(2 / 4)
    _check_gradient(lambda x: losses.thumbs_loss(x, intercepts_B, up_B, weights_B)[0], utilities_B)
    _check_gradient(lambda x: losses.thumbs_loss(utilities_B, x, up_B, weights_B)[0], intercepts_B)


# Masks


def _backward(loss: Callable[[Tensor], tuple[Tensor, losses.Stats]], at: Tensor) -> list[Tensor]:
    leaf = at.clone().requires_grad_(True)
    value, stats = loss(leaf)
    value.backward()
    assert leaf.grad is not None
    return [value.detach(), leaf.grad, *stats.values()]


@pytest.mark.parametrize("junk", [1e30, math.inf, -math.inf, math.nan])
def test_masked_positions_change_no_loss_by_one_bit(junk: float):
    def dirty(values_BT: Tensor) -> Tensor:
        return torch.where(MASK_BT, values_BT, torch.full_like(values_BT, junk))

    def ppo(make: Callable[[Tensor], Tensor]) -> list[Tensor]:
        old, advantages = make(OLD_BT), make(ADVANTAGES_BT)
        return _backward(
            lambda x: losses.ppo_policy_loss(x, old, advantages, MASK_BT, clip=0.2), make(OLD_BT + RATIOS_BT.log())
        )

    def value(make: Callable[[Tensor], Tensor]) -> list[Tensor]:
        old, returns = make(OLD_VALUES_BT), make(RETURNS_BT)
        return _backward(lambda x: losses.value_loss(x, old, returns, MASK_BT, clip=0.2), make(VALUES_BT))

    for loss in (ppo, value):
        for clean, soiled in zip(loss(lambda x: x), loss(dirty), strict=True):
            assert torch.equal(clean, soiled)


@pytest.mark.parametrize("junk", [1e30, math.inf, -math.inf, math.nan])
def test_absent_answers_change_no_ranking_by_one_bit(junk: float):
    tiers_BG, weights_B = torch.tensor([[0, 1, 1, -1, -1], [1, 0, 2, 3, -1]]), _f64([1.0, 2.0])

    def run(fill: float) -> list[Tensor]:
        utilities_BG = torch.where(tiers_BG >= 0, _f64([UTILITIES, UTILITIES]), torch.full((2, 5), fill).double())
        return _backward(lambda x: losses.plackett_luce_loss(x, tiers_BG, weights_B), utilities_BG)

    for clean, soiled in zip(run(0.0), run(junk), strict=True):
        assert torch.equal(clean, soiled)
    short = losses.plackett_luce_nll(_f64([UTILITIES[:3]]), torch.tensor([[0, 1, 1]]))
    padded = losses.plackett_luce_nll(_f64([UTILITIES]), torch.tensor([[0, 1, 1, -1, -1]]))
    assert short.item() == pytest.approx(padded.item(), abs=1e-15)
