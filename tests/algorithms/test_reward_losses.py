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


def test_efron_approximates_the_mean_over_the_orders_of_a_tie():
    """Exactly where the tied utilities are equal, closely where they are close."""
    for apart, error in [(0.0, 1e-12), (0.2, 0.01), (1.0, 0.2)]:
        utilities = _f64([0.4 + apart, 0.4, 0.9])
        orders = [math.exp(-_nll(utilities, tiers).item()) for tiers in ((0, 1, 2), (1, 0, 2))]
        found = math.exp(-_nll(utilities, (0, 0, 1)).item())
        assert found == pytest.approx(sum(orders) / 2, rel=error)
        assert apart == 0 or found != pytest.approx(sum(orders) / 2, rel=error / 10)


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


# Bradley–Terry by maximum likelihood (oracle 2): 20 items with utilities N(0, 1), votes on random pairs.

ITEMS, EXPERIMENTS = 20, 100
WON, LOST = (torch.tensor(side) for side in zip(*itertools.permutations(range(ITEMS), 2), strict=True))


def _slopes_and_curvatures(utilities_EI: Tensor, votes_EW: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients (E, I) and Hessians (E, I, I) of −log likelihood; the votes of a pair of items are its weight."""
    leaf_EI = utilities_EI.clone().requires_grad_(True)
    never_EW, none_EW = torch.zeros_like(votes_EW, dtype=torch.bool), torch.zeros_like(votes_EW)
    nll, _ = reward_losses.bradley_terry_loss(
        leaf_EI[:, WON], leaf_EI[:, LOST], never_EW, none_EW, votes_EW, denominator=1.0
    )
    (slopes_EI,) = torch.autograd.grad(nll, leaf_EI, create_graph=True)
    rows = [torch.autograd.grad(slopes_EI[:, item].sum(), leaf_EI, retain_graph=True)[0] for item in range(ITEMS)]
    return slopes_EI.detach(), torch.stack(rows, 1)


def _fit(votes_EW: Tensor) -> tuple[Tensor, Tensor]:
    """Maximum-likelihood utilities of every experiment by Newton's method, mean 0, and the standard errors that the
    observed information gives; both (E, I)."""
    utilities_EI = torch.zeros(len(votes_EW), ITEMS, dtype=torch.float64)
    for _ in range(20):
        slopes_EI, curvatures_EII = _slopes_and_curvatures(utilities_EI, votes_EW)
        # The likelihood does not see the level of the utilities; the pseudo-inverse leaves it where it is.
        covariances_EII = torch.linalg.pinv(curvatures_EII, hermitian=True)
        if slopes_EI.abs().max() <= 1e-8:
            return utilities_EI, covariances_EII.diagonal(dim1=1, dim2=2).sqrt()
        utilities_EI = utilities_EI - (covariances_EII @ slopes_EI.unsqueeze(2)).squeeze(2)
    raise AssertionError("no maximum: an item won or lost all its votes")


@pytest.mark.parametrize(("votes", "expected"), [(500, 0.33), (2_000, 0.155), (20_000, 0.050)])
def test_bradley_terry_estimates_have_the_error_and_the_intervals_they_should(votes: int, expected: float):
    generator = torch.Generator().manual_seed(votes)
    truth_EI = torch.randn(EXPERIMENTS, ITEMS, generator=generator, dtype=torch.float64)
    truth_EI = truth_EI - truth_EI.mean(1, keepdim=True)
    chance_EW = torch.sigmoid(truth_EI[:, WON] - truth_EI[:, LOST])
    drawn_EN = torch.multinomial(chance_EW, votes, replacement=True, generator=generator)
    votes_EW = torch.zeros_like(chance_EW).scatter_add(1, drawn_EN, torch.ones_like(drawn_EN, dtype=torch.float64))
    found_EI, error_EI = _fit(votes_EW)
    assert (found_EI - truth_EI).square().mean(1).sqrt().mean().item() == pytest.approx(expected, rel=0.1)
    covered = ((found_EI - truth_EI).abs() <= 1.96 * error_EI).double().mean().item()
    assert 0.93 <= covered <= 0.97


def test_margins_grow_with_strength():
    assert reward_losses.MARGINS == (0.0, 1.0, 2.0, 3.0)


def test_thumbs_by_hand():
    utilities_B, rater_bias_B = _f64([0.5, -1.0, 2.0]), _f64([0.0, 1.5, -1.0])
    up_B, weights_B = torch.tensor([True, False, True]), _f64([1.0, 2.0, 1.0])
    loss, stats = reward_losses.thumbs_loss(utilities_B, rater_bias_B, up_B, weights_B)
    terms = [math.log1p(math.exp(-0.5)), 2 * math.log1p(math.exp(0.5)), math.log1p(math.exp(-1.0))]
    assert loss.item() == pytest.approx(sum(terms) / 4)
    assert stats["accuracy"].item() == pytest.approx(2 / 4)


def test_implicit_signals_by_hand():
    utilities_B, baseline_B, rho_B = _f64([0.5, -1.0, 2.0]), _f64([0.0, 0.5, 2.0]), _f64([0.5, 1.0, 0.0])
    loss, stats = reward_losses.implicit_loss(utilities_B, baseline_B, rho_B, _f64([1.0, 2.0, 1.0]))
    sigma = [1 / (1 + math.exp(0.5)), 1 / (1 + math.exp(-1.5))]
    terms = [-math.log(0.5 * sigma[0] + 0.25), -2 * math.log(sigma[1]), math.log(2)]
    assert loss.item() == pytest.approx(sum(terms) / 4)
    assert stats["agreement"].item() == pytest.approx(2 / 4)


def test_a_signal_that_says_nothing_moves_nothing_and_one_that_is_wrong_costs_little():
    utilities_B = _f64([3.0, -3.0, 50.0]).requires_grad_()
    one_B = torch.ones(3, dtype=torch.float64)
    loss, _ = reward_losses.implicit_loss(utilities_B, 0 * one_B, 0 * one_B, one_B)
    loss.backward()
    assert utilities_B.grad is not None and not utilities_B.grad.any()
    worst, _ = reward_losses.implicit_loss(utilities_B[2:], one_B[:1], 0.6 * one_B[:1], one_B[:1])
    assert worst.item() == pytest.approx(math.log(2) - math.log(0.4))


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


def test_where_nothing_has_any_weight_the_loss_and_its_gradient_are_0():
    """A head's bootstrap may leave out all of a micro-batch."""
    nothing_B, no_B = torch.zeros(2), torch.zeros(2, dtype=torch.bool)
    tiers_BG, everywhere_BG = torch.tensor([[0, 1], [1, 0]]), torch.ones(2, 2, dtype=torch.bool)
    for loss_of in (
        lambda u_BG: reward_losses.plackett_luce_loss(u_BG, tiers_BG, nothing_B),
        lambda u_BG: reward_losses.bradley_terry_loss(u_BG[:, 0], u_BG[:, 1], no_B, nothing_B, nothing_B),
        lambda u_BG: reward_losses.thumbs_loss(u_BG[:, 0], nothing_B, no_B, nothing_B),
        lambda u_BG: reward_losses.implicit_loss(u_BG[:, 0], u_BG[:, 1], torch.full((2,), 0.5), nothing_B),
        lambda u_BG: reward_losses.centring_loss(u_BG, everywhere_BG, nothing_B),
    ):
        utilities_BG = torch.tensor([[1.0, -2.0], [0.5, 3.0]], requires_grad=True)
        loss, stats = loss_of(utilities_BG)
        loss.backward()
        assert loss.item() == 0 and utilities_BG.grad is not None and not utilities_BG.grad.any()
        assert all(value.item() == 0 for value in stats.values())
