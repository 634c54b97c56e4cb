"""What holds for every loss (oracle 5): gradients, masks, extremes, micro-batches. A new loss is a line in CASES."""

import inspect
import itertools
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor

from rlhf_online.algorithms import advantages, importance, masked, policy_losses, preference_losses, reward_losses

LOSS_MODULES = (policy_losses, preference_losses, reward_losses)


def _f64(values: object) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


MASK_BT = torch.tensor([[True, True, True, True], [True, True, True, False]])
OLD_BT = _f64([[-1.0, -0.3, -2.0, -0.7], [-0.2, -1.5, -0.9, -3.0]])
REF_BT = _f64([[-1.4, -0.2, -0.9, -1.7], [-1.2, -1.1, -2.9, -0.5]])
UP_BT = _f64([[1.0, 2.0, 0.5, 1.5], [1.5, 0.7, 2.0, 3.0]])
MIXED_BT = _f64([[1.0, 2.0, 0.5, 1.5], [-1.0, -2.0, -0.5, -1.5]])
RATIOS_BT = _f64([[0.5, 0.9, 1.1, 1.5], [1.1, 0.5, 1.5, 0.9]])
CHOSEN_B, REJECTED_B = _f64([1.0, -0.5, 0.2]), _f64([0.4, 0.3, 0.2])
UTILITIES_BG = _f64([[0.3, -1.2, 0.8, 0.05, 2.0], [1.0, 0.2, 0.1, -0.4, 0.6], [0.0, 0.5, 1.0, 1.5, -2.0]])
TIERS_BG = torch.tensor([[0, 1, 1, -1, -1], [2, 0, 1, 2, 0], [0, 0, 0, 0, 0]])
WEIGHTS_B = _f64([1.0, 2.0, 0.0])


@dataclass(frozen=True, kw_only=True)
class Case:
    """A loss at one point. `learned`: arguments that a gradient flows to; `hidden`: True at what is behind a mask;
    `denominator`: its default one; `flat`: where the gradient of what is learned first must be exactly 0."""

    function: Callable[..., Any]
    arguments: Mapping[str, Any]
    learned: tuple[str, ...]
    hidden: Mapping[str, Tensor] = field(default_factory=dict)
    denominator: float = 1.0
    flat: Tensor | None = None

    def run(self, **changed: Any) -> tuple[Tensor, dict[str, Tensor]]:
        found = self.function(**{**self.arguments, **changed})
        return found if isinstance(found, tuple) else (found.sum(), {})

    def backward(self, **changed: Any) -> tuple[Tensor, list[Tensor], dict[str, Tensor]]:
        """The loss, the gradients of what is learned, and the stats."""
        leaves = {name: changed.get(name, self.arguments[name]).clone().requires_grad_(True) for name in self.learned}
        loss, stats = self.run(**{**changed, **leaves})
        return loss.detach(), list(torch.autograd.grad(loss, list(leaves.values()))), stats


def _tokens(function: Callable[..., Any], flat: list[list[int]] | None = None, **arguments: Any) -> Case:
    """A loss over tokens, with MASK_BT; the first argument is learned."""
    return Case(
        function=function,
        arguments={**arguments, "mask_BT": MASK_BT},
        learned=(next(iter(arguments)),),
        hidden={name: ~MASK_BT for name, value in arguments.items() if isinstance(value, Tensor)},
        denominator=7.0,
        flat=None if flat is None else torch.tensor(flat, dtype=torch.bool),
    )


def _ppo(ratios_BT: Tensor, advantages_BT: Tensor, flat: list[list[int]], **options: Any) -> Case:
    given = {"logprobs_BT": OLD_BT + ratios_BT.log(), "old_logprobs_BT": OLD_BT, "advantages_BT": advantages_BT}
    return _tokens(policy_losses.ppo_loss, flat, **given, **{"clip": 0.2} | options)


def _gspo(ratios: list[list[float]], advantages: list[float], flat: list[list[int]]) -> Case:
    return Case(
        function=policy_losses.gspo_loss,
        arguments={
            "logprobs_BT": OLD_BT + _f64(ratios).log(),
            "old_logprobs_BT": OLD_BT,
            "advantages_B": _f64(advantages),
            "mask_BT": MASK_BT,
            "clip": (0.1, 0.2),
        },
        learned=("logprobs_BT",),
        hidden={"logprobs_BT": ~MASK_BT, "old_logprobs_BT": ~MASK_BT},
        denominator=2.0,
        flat=torch.tensor(flat, dtype=torch.bool),
    )


def _decoupled(
    weights_BT: Tensor,
    flat: list[list[int]],
    ratios_BT: Tensor = RATIOS_BT,
    advantages_BT: Tensor = UP_BT,
    **options: Any,
) -> Case:
    return _ppo(ratios_BT, advantages_BT, flat, weights_BT=weights_BT, **options)


def _value(returns_BT: Tensor, flat: list[list[int]]) -> Case:
    given = {"values_BT": VALUES_BT, "old_values_BT": torch.zeros_like(VALUES_BT), "returns_BT": returns_BT}
    return _tokens(policy_losses.value_loss, flat, **given, clip=0.2)


def _kl(estimator: str) -> Case:
    return _tokens(policy_losses.kl_loss, logprobs_BT=OLD_BT, ref_logprobs_BT=REF_BT, estimator=estimator)


def _dpo(kind: str) -> Case:
    given = {"chosen_logprobs_B": CHOSEN_B, "rejected_logprobs_B": REJECTED_B, "beta": 0.7, "kind": kind}
    return Case(
        function=preference_losses.dpo_loss,
        arguments={**given, "chosen_ref_B": _f64([-1.0, -2.0, 0.5]), "rejected_ref_B": _f64([-0.5, -2.5, 0.4])},
        learned=("chosen_logprobs_B", "rejected_logprobs_B"),
        denominator=3.0,
    )


def _kto(kl: float) -> Case:
    given = {"logprobs_B": CHOSEN_B, "ref_logprobs_B": REJECTED_B, "desirable_B": torch.tensor([True, False, True])}
    options = {"beta": 0.7, "desirable_weight": 1.3, "undesirable_weight": 0.6, "kl": kl}
    return Case(
        function=preference_losses.kto_loss, arguments={**given, **options}, learned=("logprobs_B",), denominator=3.0
    )


def _weighted(function: Callable[..., Any], *learned: str, **arguments: Any) -> Case:
    """A loss with WEIGHTS_B; what has weight 0 is hidden, and padding."""
    left_out_B = WEIGHTS_B == 0
    hidden_BG = left_out_B.unsqueeze(1) | (TIERS_BG < 0)
    hidden = {name: left_out_B if arguments[name].ndim == 1 else hidden_BG for name in arguments}
    hidden = {name: mask for name, mask in hidden.items() if arguments[name].is_floating_point()}
    arguments = {**arguments, "weights_B": WEIGHTS_B}
    return Case(function=function, arguments=arguments, learned=learned, hidden=hidden, denominator=3.0)


NONE = [[0, 0, 0, 0], [0, 0, 0, 0]]
FAR_BT = _f64([[2.9, 3.1, 1.1, 9.0], [3.1, 0.5, 2.9, 1.0]])
WEIGHTS_BT = _f64([[0.5, 1.9, 2.0, 1.0], [2.0, 0.0, 1.0, 1.0]])
VALUES_BT = _f64([[0.1, 0.5, -0.5, 0.6], [0.05, 0.9, -0.7, 0.3]])
RANKING = {"utilities_BG": UTILITIES_BG, "tiers_BG": TIERS_BG}
PAIRS = {"chosen_B": CHOSEN_B, "rejected_B": REJECTED_B, "margins_B": _f64([2.0, 3.0, 1.0])}
THUMBS = {"utilities_B": CHOSEN_B, "rater_bias_B": REJECTED_B, "up_B": torch.tensor([True, False, True])}

CASES = {
    "ppo, A > 0": _ppo(RATIOS_BT, UP_BT, [[0, 0, 0, 1], [0, 0, 1, 0]]),
    "ppo, A < 0": _ppo(RATIOS_BT, -UP_BT, [[1, 0, 0, 0], [0, 1, 0, 0]]),
    "dual clip, A > 0": _ppo(FAR_BT, UP_BT, [[1, 1, 0, 1], [1, 0, 1, 0]], dual_clip=3.0),
    "dual clip, A < 0": _ppo(FAR_BT, -UP_BT, [[0, 1, 0, 1], [1, 1, 0, 0]], dual_clip=3.0),
    "clip-higher, A > 0": _ppo(RATIOS_BT, UP_BT, NONE, clip=(0.2, 0.6)),
    "clip-higher, A < 0": _ppo(RATIOS_BT, -UP_BT, [[1, 0, 0, 0], [0, 1, 0, 0]], clip=(0.2, 0.6)),
    "decoupled": _decoupled(WEIGHTS_BT, [[0, 0, 0, 1], [0, 1, 1, 0]]),
    "decoupled, dual clip": _decoupled(WEIGHTS_BT, [[0, 1, 0, 1], [1, 1, 0, 0]], FAR_BT, -UP_BT, dual_clip=3.0),
    "gspo, A > 0": _gspo([[0.9, 1.5, 1.2, 1.4], [0.9, 1.1, 1.2, 1.0]], [1.0, 2.0], [[1, 1, 1, 1], [0, 0, 0, 0]]),
    "gspo, A < 0": _gspo([[0.9, 0.5, 0.7, 1.1], [0.9, 1.1, 1.2, 1.0]], [-1.0, -2.0], [[1, 1, 1, 1], [0, 0, 0, 0]]),
    "reinforce": _tokens(policy_losses.reinforce_loss, logprobs_BT=OLD_BT, advantages_BT=MIXED_BT),
    "value, below the return": _value(torch.ones(2, 4).double(), [[0, 1, 0, 1], [0, 1, 0, 0]]),
    "value, above the return": _value(-torch.ones(2, 4).double(), [[0, 0, 1, 0], [0, 0, 1, 0]]),
    "kl as k1": _kl("k1"),
    "kl as k2": _kl("k2"),
    "kl as k3": _kl("k3"),
    "entropy": _tokens(policy_losses.entropy_loss, entropies_BT=UP_BT),
    "nll": _tokens(policy_losses.nll_loss, logprobs_BT=OLD_BT),
    "dpo": _dpo("dpo"),
    "ipo": _dpo("ipo"),
    "kto": _kto(0.4),
    "kto, estimate below 0": _kto(-0.4),
    "plackett-luce, each ranking": Case(
        function=reward_losses.plackett_luce_nll,
        arguments=RANKING,
        learned=("utilities_BG",),
        hidden={"utilities_BG": TIERS_BG < 0},
    ),
    "plackett-luce": _weighted(reward_losses.plackett_luce_loss, "utilities_BG", **RANKING),
    "bradley-terry": _weighted(
        reward_losses.bradley_terry_loss, "chosen_B", "rejected_B", **PAIRS, tied_B=torch.tensor([False, True, False])
    ),
    "thumbs": _weighted(reward_losses.thumbs_loss, "utilities_B", "rater_bias_B", **THUMBS),
    "implicit": _weighted(
        reward_losses.implicit_loss,
        *("utilities_B", "baseline_B", "reliability_B"),
        **{"utilities_B": CHOSEN_B, "baseline_B": REJECTED_B, "reliability_B": _f64([0.2, 0.9, 0.7])},
    ),
    "centring": _weighted(
        reward_losses.centring_loss, "utilities_BG", utilities_BG=UTILITIES_BG, mask_BG=TIERS_BG >= 0
    ),
}
MEANS = {name: case for name, case in CASES.items() if "denominator" in inspect.signature(case.function).parameters}
each_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


def test_every_public_loss_is_in_the_table():
    public = {
        function
        for module in LOSS_MODULES
        for name, function in inspect.getmembers(module, inspect.isfunction)
        if function.__module__ == module.__name__ and not name.startswith("_")
    }
    assert {case.function for case in CASES.values()} == public


@each_case
def test_the_gradient_is_that_of_central_differences(case: Case):
    _, gradients, _ = case.backward()
    for name, gradient in zip(case.learned, gradients, strict=True):
        at = case.arguments[name]
        for index in itertools.product(*map(range, at.shape)):
            step = torch.zeros_like(at)
            step[index] = 1e-6
            slope = (case.run(**{name: at + step})[0] - case.run(**{name: at - step})[0]) / 2e-6
            assert gradient[index].item() == pytest.approx(slope.item(), rel=0, abs=1e-6)
    if case.flat is not None:
        assert torch.equal(gradients[0] == 0, case.flat | ~MASK_BT), "which side of a clip a token is on"


@each_case
@pytest.mark.parametrize("junk", [1e30, math.inf, -math.inf, math.nan])
def test_what_is_behind_the_mask_changes_nothing_by_one_bit(case: Case, junk: float):
    soiled = {
        name: torch.where(hidden, torch.full_like(case.arguments[name], junk), case.arguments[name])
        for name, hidden in case.hidden.items()
    }
    (loss, gradients, stats), (again, others, other_stats) = case.backward(), case.backward(**soiled)
    assert torch.equal(loss, again)
    for clean, soiled_gradient in zip(gradients, others, strict=True):
        assert torch.equal(clean, soiled_gradient)
    assert stats.keys() == other_stats.keys() and all(torch.equal(stats[name], other_stats[name]) for name in stats)


@each_case
@pytest.mark.parametrize("far", [-1e4, -300.0, -100.0, -25.0, 25.0, 100.0, 300.0, 1e4])
def test_in_float32_the_gradient_is_a_number_however_far_a_policy_has_run_away(case: Case, far: float):
    """One argument at a time, all of it or every second number."""
    single = {
        name: value.float()
        for name, value in case.arguments.items()
        if isinstance(value, Tensor) and value.is_floating_point()
    }
    for name in set(case.learned) - {"reliability_B"}:
        every_second = torch.arange(single[name].numel()).reshape(single[name].shape) % 2 == 0
        for moved in (single[name] + far, single[name] + far * every_second):
            loss, gradients, stats = case.backward(**single | {name: moved})
            assert loss.isfinite() and all(gradient.isfinite().all() for gradient in gradients)
            assert all(value.isfinite() for value in stats.values())


def _masks(case: Case) -> list[str]:
    return [
        name for name in ("mask_BT", "mask_BG", "desirable_B", "tied_B") if isinstance(case.arguments.get(name), Tensor)
    ]


@pytest.mark.parametrize("case", [case for case in CASES.values() if _masks(case)])
def test_a_mask_of_numbers_is_refused(case: Case):
    for name in _masks(case):
        for dtype in (torch.float64, torch.int64):
            with pytest.raises(ValueError, match=rf"must be a tensor of bool, got {dtype}"):
                case.run(**{name: case.arguments[name].to(dtype)})


@pytest.mark.parametrize(
    ("name", "refused", "message"),
    [
        ("ppo, A > 0", {"clip": 0.0}, "clip must be above 0, got 0"),
        ("ppo, A > 0", {"clip": (0.2, -0.1)}, "clip must be above 0, got -0.1"),
        ("ppo, A > 0", {"clip": (math.nan, 0.2)}, "clip must be above 0, got nan"),
        ("ppo, A > 0", {"dual_clip": 0.5}, "dual_clip must be above 1, got 0.5"),
        ("ppo, A > 0", {"dual_clip": 1.0}, "dual_clip must be above 1, got 1"),
        ("gspo, A > 0", {"clip": -0.2}, "clip must be above 0, got -0.2"),
        ("value, below the return", {"clip": 0.0}, "clip must be above 0, got 0"),
        ("kl as k1", {"estimator": "k4"}, "estimator must be one of k1, k2, k3, got 'k4'"),
        ("dpo", {"beta": 0.0}, "beta must be above 0, got 0"),
        ("dpo", {"kind": "sigmoid"}, "kind must be dpo or ipo, got 'sigmoid'"),
        ("kto", {"beta": -1.0}, "beta must be above 0, got -1"),
        ("kto", {"desirable_weight": -1.0}, "desirable_weight must be at least 0, got -1"),
        ("kto", {"undesirable_weight": -1.0}, "undesirable_weight must be at least 0, got -1"),
    ],
)
def test_what_the_settings_forbid_is_refused(name: str, refused: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        CASES[name].run(**refused)


@pytest.mark.parametrize("case", MEANS.values(), ids=MEANS)
def test_micro_batches_with_the_whole_denominator_add_up(case: Case):
    loss, gradients, stats = case.backward()
    total, sums = torch.zeros_like(loss), [torch.zeros_like(gradient) for gradient in gradients]
    for row in range(len(gradients[0])):
        rows = {name: value[[row]] for name, value in case.arguments.items() if isinstance(value, Tensor)}
        part, slopes, _ = case.backward(**rows, denominator=case.denominator)
        total += part
        for whole, slope in zip(sums, slopes, strict=True):
            whole[row] = slope[0]
    assert total.item() == pytest.approx(loss.item(), rel=1e-15, abs=1e-15)
    for whole, gradient in zip(sums, gradients, strict=True):
        assert torch.equal(whole, gradient)
    assert not any(value.requires_grad for value in stats.values())


# What comes before a loss has masks too.

SCORES_B = _f64([1.0, -2.0])
BEFORE: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
    "token_rewards": (
        lambda kl_BT: advantages.token_rewards(SCORES_B, kl_BT, MASK_BT, 0.1),
        {"kl_BT": MIXED_BT},
    ),
    "gae": (
        lambda **given: advantages.gae(**given, mask_BT=MASK_BT, gamma=0.9, gae_lambda=0.8),
        {"rewards_BT": MIXED_BT, "values_BT": VALUES_BT},
    ),
    "truncated_weights": (
        lambda **given: importance.truncated_weights(**given, mask_BT=MASK_BT, max_weight=2.0, reject_above=4.0)[0],
        {"proximal_logprobs_BT": OLD_BT, "behaviour_logprobs_BT": REF_BT},
    ),
    "truncated_weights of sequences": (
        lambda **given: importance.truncated_weights(
            **given, mask_BT=MASK_BT, max_weight=2.0, reject_above=4.0, per="sequence"
        )[0],
        {"proximal_logprobs_BT": OLD_BT, "behaviour_logprobs_BT": REF_BT},
    ),
    "answer_weights": (
        lambda **given: importance.answer_weights(**given, mask_BT=MASK_BT, max_weight=2.0),
        {"logprobs_BT": OLD_BT, "behaviour_logprobs_BT": REF_BT},
    ),
    "row_sums": (lambda values_BT: masked.row_sums(values_BT, MASK_BT), {"values_BT": MIXED_BT}),
    "whiten": (lambda values_BT: masked.whiten(values_BT, MASK_BT), {"values_BT": MIXED_BT}),
}


@pytest.mark.parametrize("name", BEFORE)
@pytest.mark.parametrize("junk", [1e30, math.inf, -math.inf, math.nan])
def test_what_is_behind_the_mask_changes_no_advantage_by_one_bit(name: str, junk: float):
    function, clean = BEFORE[name]
    soiled = {key: torch.where(MASK_BT, value, torch.full_like(value, junk)) for key, value in clean.items()}
    for expected, found in zip(function(**clean), function(**soiled), strict=True):
        assert torch.equal(expected, found)


@pytest.mark.parametrize(
    ("function", "refused", "message"),
    [
        ("token_rewards", {"kl_coef": -0.1}, "kl_coef must be at least 0, got -0.1"),
        ("gae", {"gamma": 0.0}, "gamma must be above 0 and at most 1, got 0"),
        ("gae", {"gamma": 1.1}, "gamma must be above 0 and at most 1, got 1.1"),
        ("gae", {"gae_lambda": -0.1}, "gae_lambda must be at least 0 and at most 1, got -0.1"),
        ("gae", {"gae_lambda": 1.1}, "gae_lambda must be at least 0 and at most 1, got 1.1"),
        ("truncated_weights", {"max_weight": 0.0}, "max_weight must be above 0, got 0"),
        ("truncated_weights", {"reject_above": 0.0}, "reject_above must be above 0, got 0"),
        ("answer_weights", {"max_weight": 0.0}, "max_weight must be above 0, got 0"),
    ],
)
def test_what_the_settings_forbid_is_refused_before_a_loss_too(function: str, refused: dict[str, Any], message: str):
    given = {
        "token_rewards": {"scores_B": SCORES_B, "kl_BT": MIXED_BT, "kl_coef": 0.1},
        "gae": {"rewards_BT": MIXED_BT, "values_BT": VALUES_BT, "gamma": 1.0, "gae_lambda": 0.95},
        "truncated_weights": {
            "proximal_logprobs_BT": OLD_BT, "behaviour_logprobs_BT": REF_BT, "max_weight": 2.0, "reject_above": 4.0
        },
        "answer_weights": {"logprobs_BT": OLD_BT, "behaviour_logprobs_BT": REF_BT, "max_weight": 2.0},
    }[function]  # fmt: skip
    call = getattr(advantages if hasattr(advantages, function) else importance, function)
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        call(**given | {"mask_BT": MASK_BT} | refused)
    with pytest.raises(ValueError, match=r"must be a tensor of bool, got torch\.float32"):
        call(**given | {"mask_BT": MASK_BT.float()})


@pytest.mark.parametrize("function", ["token_rewards", "gae"])
def test_a_mask_with_a_hole_is_refused_naming_the_row(function: str):
    holes_BT = torch.tensor([[True, True, True, True], [True, False, True, False]])
    left_padded_BT = torch.tensor([[True, False, False, False], [False, True, True, True]])
    for mask_BT in (holes_BT, left_padded_BT):
        with pytest.raises(ValueError, match="row 1 is True again after False"):
            if function == "gae":
                advantages.gae(MIXED_BT, VALUES_BT, mask_BT, gamma=1.0, gae_lambda=0.95)
            else:
                advantages.token_rewards(SCORES_B, MIXED_BT, mask_BT, 0.1)
