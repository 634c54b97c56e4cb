"""The policy's losses: hand-computed numbers, and how they are special cases of one another."""

import math

import pytest
import torch
from torch import Tensor

from rlhf_online.algorithms import policy_losses
from rlhf_online.algorithms.importance import Per, answer_weights, outside, ratio, truncated_weights


def _f64(values: object) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


OLD_BT = _f64([[-1.0, -0.3, -2.0, -0.7], [-0.2, -1.5, -0.9, -3.0]])
MASK_BT = torch.tensor([[True, True, True, True], [True, True, True, False]])
RATIOS_BT = _f64([[0.5, 0.9, 1.1, 1.5], [0.5, 0.9, 1.1, 1.5]])
NEW_BT = OLD_BT + RATIOS_BT.log()
ADVANTAGES_BT = _f64([[1.0, 2.0, 0.5, 1.5], [-1.0, -2.0, -0.5, -1.5]])


def test_ppo_by_hand():
    loss, stats = policy_losses.ppo_loss(NEW_BT, OLD_BT, ADVANTAGES_BT, MASK_BT, clip=0.2)
    terms = [0.5, 1.8, 0.55, 1.2 * 1.5, -0.8, -1.8, -0.55]
    assert loss.item() == pytest.approx(-sum(terms) / 7)
    assert stats["clip_fraction"].item() == pytest.approx(2 / 7)
    assert stats["dual_clip_fraction"].item() == 0
    assert stats["ratio"].item() == pytest.approx((0.5 + 0.9 + 1.1 + 1.5 + 0.5 + 0.9 + 1.1) / 7)


def test_dual_clip_by_hand():
    ratios_BT, advantages_BT = _f64([[4.0, 2.0, 4.0, 0.5]]), _f64([[-1.0, -1.0, 1.0, -1.0]])
    loss, stats = policy_losses.ppo_loss(
        ratios_BT.log(), torch.zeros(1, 4).double(), advantages_BT, MASK_BT[:1], clip=0.2, dual_clip=3.0
    )
    assert loss.item() == pytest.approx(-(-3.0 - 2.0 + 1.2 - 0.8) / 4)
    assert stats["dual_clip_fraction"].item() == pytest.approx(1 / 4)


def test_clip_higher_by_hand():
    """DAPO's eq. 8 with ε_low = .2 and ε_high = .28: 1.5 is clipped to 1.28, .5 to .8."""
    loss, stats = policy_losses.ppo_loss(NEW_BT, OLD_BT, ADVANTAGES_BT, MASK_BT, clip=(0.2, 0.28))
    terms = [0.5, 1.8, 0.55, 1.28 * 1.5, -0.8, -1.8, -0.55]
    assert loss.item() == pytest.approx(-sum(terms) / 7)
    assert stats["clip_fraction"].item() == pytest.approx(2 / 7)


def test_dr_grpo_divides_by_answers_times_a_constant():
    """Two answers, of four tokens and of three, and L = 10: every token weighs 1 / 20."""
    loss, _ = policy_losses.ppo_loss(NEW_BT, OLD_BT, ADVANTAGES_BT, MASK_BT, clip=0.2, denominator=20)
    terms = [0.5, 1.8, 0.55, 1.2 * 1.5, -0.8, -1.8, -0.55]
    assert loss.item() == pytest.approx(-sum(terms) / 20)


def test_gspo_by_hand():
    """Ratios 1.2, 1.2, 1.3, 1.0 have the geometric mean 1.168, ratios .9, 1.1, 1.0 that of .9966."""
    ratios_BT = _f64([[1.2, 1.2, 1.3, 1.0], [0.9, 1.1, 1.0, 7.0]])
    loss, stats = policy_losses.gspo_loss(
        OLD_BT + ratios_BT.log(), OLD_BT, _f64([2.0, -3.0]), MASK_BT, clip=(0.05, 0.1)
    )
    first, second = (1.2 * 1.2 * 1.3) ** (1 / 4), (0.9 * 1.1) ** (1 / 3)
    assert (first, second) == pytest.approx((1.1697, 0.99666), abs=1e-4)
    assert loss.item() == pytest.approx(-(1.1 * 2.0 - 3.0 * second) / 2), "the first is clipped as a whole"
    assert stats["ratio"].item() == pytest.approx((first + second) / 2)
    assert stats["clip_fraction"].item() == pytest.approx(1 / 2)


def test_gspos_gradient_of_a_token_is_the_ratio_of_its_answer_over_its_length():
    """Eq. 10 of the paper: s A / |y| for each token, of the mean over two answers."""
    logprobs_BT = (OLD_BT + _f64([[1.2, 0.9, 1.0, 1.0], [0.9, 1.1, 1.0, 7.0]]).log()).requires_grad_(True)
    policy_losses.gspo_loss(logprobs_BT, OLD_BT, _f64([2.0, -3.0]), MASK_BT, clip=0.5)[0].backward()
    first, second = (1.2 * 0.9) ** (1 / 4), (0.9 * 1.1) ** (1 / 3)
    expected_BT = -_f64([[first * 2.0 / 4] * 4, [second * -3.0 / 3] * 3 + [0.0]]) / 2
    assert logprobs_BT.grad is not None and torch.allclose(logprobs_BT.grad, expected_BT)


def test_decoupled_ppo_by_hand():
    weights_BT = _f64([[0.5, 1.0, 3.0, 1.0], [5.0, 1.0, 1.5, 1.0]])
    truncated_BT, weight_stats = truncated_weights(
        OLD_BT, OLD_BT - weights_BT.log(), MASK_BT, max_weight=2.0, reject_above=4.0
    )
    assert torch.allclose(truncated_BT, _f64([[0.5, 1.0, 2.0, 1.0], [0.0, 1.0, 1.5, 0.0]]))
    assert weight_stats["weight"].item() == pytest.approx((0.5 + 1 + 2 + 1 + 0 + 1 + 1.5) / 7)
    assert weight_stats["truncated_fraction"].item() == pytest.approx(1 / 7)
    assert weight_stats["rejected_fraction"].item() == pytest.approx(1 / 7)
    loss, stats = policy_losses.ppo_loss(NEW_BT, OLD_BT, ADVANTAGES_BT, MASK_BT, clip=0.2, weights_BT=truncated_BT)
    terms = [0.5 * 0.5, 1.8, 2 * 0.55, 1.2 * 1.5, 0.0, -1.8, 1.5 * -0.55]
    assert loss.item() == pytest.approx(-sum(terms) / 7), "what is rejected stays in the denominator"
    assert stats["clip_fraction"].item() == pytest.approx(1 / 7)


def test_decoupled_ppo_is_ppo_where_the_proximal_policy_is_the_one_that_sampled():
    plain, _ = policy_losses.ppo_loss(NEW_BT, OLD_BT, ADVANTAGES_BT, MASK_BT, clip=0.2)
    weights_BT, _ = truncated_weights(OLD_BT, OLD_BT, MASK_BT, max_weight=2.0, reject_above=math.inf)
    decoupled, _ = policy_losses.ppo_loss(NEW_BT, OLD_BT, ADVANTAGES_BT, MASK_BT, clip=0.2, weights_BT=weights_BT)
    assert torch.equal(plain, decoupled)


def test_what_is_rejected_does_no_harm_however_far_it_is():
    """Its ratio and its weight overflow to infinity, and 0 · ∞ would be no number."""
    logprobs_BT = torch.tensor([[0.0, -1.0]], requires_grad=True)
    proximal_BT, mask_BT = torch.tensor([[-200.0, -1.0]]), torch.tensor([[True, True]])
    weights_BT, _ = truncated_weights(
        proximal_BT, torch.tensor([[-400.0, -1.0]]), mask_BT, max_weight=2.0, reject_above=10.0
    )
    loss, _ = policy_losses.ppo_loss(
        logprobs_BT, proximal_BT, torch.tensor([[-1.0, 2.0]]), mask_BT, clip=0.2, weights_BT=weights_BT
    )
    loss.backward()
    assert loss.item() == -1 and logprobs_BT.grad is not None and logprobs_BT.grad.tolist() == [[0, -1]]


@pytest.mark.parametrize("advantage", [1.0, -1.0])
@pytest.mark.parametrize("run_away", [21.0, 88.0, 89.0, 500.0, math.inf])
def test_a_ratio_that_has_run_away_has_no_gradient_and_leaves_the_other_tokens_theirs(
    advantage: float, run_away: float
):
    """In float32 e^89 is infinite, and its gradient 0 · ∞ even where the clip holds it."""
    logprobs_BT = torch.tensor([[run_away, -run_away, 0.0]], requires_grad=True)
    loss, stats = policy_losses.ppo_loss(
        logprobs_BT, torch.zeros(1, 3), torch.full((1, 3), advantage), torch.ones(1, 3, dtype=torch.bool), clip=0.2
    )
    loss.backward()
    assert logprobs_BT.grad is not None and logprobs_BT.grad.tolist() == [[0, 0, pytest.approx(-advantage / 3)]]
    assert loss.isfinite() and stats["ratio"].item() == pytest.approx((math.exp(20) + 1) / 3)
    if advantage > 0:
        assert loss.item() == pytest.approx(-(1.2 + 0 + 1) / 3)


def test_a_ratio_is_exact_up_to_e_to_the_20th():
    for log_ratio, expected in [(19.5, 19.5), (-19.5, -19.5), (20.5, 20.0), (-20.5, -20.0)]:
        assert ratio(_f64(log_ratio)).item() == pytest.approx(math.exp(expected), rel=1e-14)


def test_a_weight_beyond_float32_is_truncated_or_rejected_as_any_other():
    far_BT, zeros_BT, mask_BT = torch.tensor([[500.0, 0.0]]), torch.zeros(1, 2), torch.ones(1, 2, dtype=torch.bool)
    for reject_above, expected in [(10.0, 0.0), (math.inf, 2.0)]:
        weights_BT, _ = truncated_weights(far_BT, zeros_BT, mask_BT, max_weight=2.0, reject_above=reject_above)
        assert weights_BT.tolist() == [[expected, 1.0]]
    assert answer_weights(far_BT, zeros_BT, mask_BT, max_weight=math.inf).isfinite().all()


def test_the_weight_of_a_sequence_is_the_product_of_its_tokens_and_is_truncated_or_rejected_as_a_whole():
    ratios_BT = _f64([[0.5, 1.0, 3.0, 1.0], [5.0, 1.0, 1.5, 9.0]])
    for limits, expected in [((2.0, 10.0), (1.5, 2.0)), ((10.0, 10.0), (1.5, 7.5)), ((1.0, 7.0), (1.0, 0.0))]:
        weights_BT, stats = truncated_weights(
            OLD_BT, OLD_BT - ratios_BT.log(), MASK_BT, max_weight=limits[0], reject_above=limits[1], per="sequence"
        )
        assert torch.allclose(weights_BT, _f64([[expected[0]] * 4, [expected[1]] * 3 + [0.0]]))
        assert stats["rejected_fraction"].item() == pytest.approx(3 / 7 if expected[1] == 0 else 0)


def test_weights_of_sequences_give_the_gradient_of_the_proximal_policys_own_answers_and_those_of_tokens_do_not():
    """All answers of two tokens, each as often as a policy samples it that depends on the first token."""
    behaviour, proximal = _f64([0.7, 0.4, 0.9]), _f64([0.5, 0.6, 0.2])  # of "a" first, after "a", after "b"

    def logprobs(of: Tensor) -> Tensor:
        rows = [(of[0], of[1]), (of[0], 1 - of[1]), (1 - of[0], of[2]), (1 - of[0], 1 - of[2])]
        return torch.stack([torch.stack(row) for row in rows]).log()

    rewards_B1, mask_BT = _f64([[1.0], [-2.0], [0.5], [3.0]]), torch.ones(4, 2, dtype=torch.bool)

    def gradient(sampled: Tensor, per: Per) -> Tensor:
        policy = proximal.clone().requires_grad_(True)
        weights_BT, _ = truncated_weights(
            logprobs(proximal), logprobs(sampled), mask_BT, max_weight=math.inf, reject_above=math.inf, per=per
        )
        chances_B1 = logprobs(sampled).sum(1, keepdim=True).exp()
        (chances_B1 * weights_BT * rewards_B1 * logprobs(policy)).sum().backward()
        assert policy.grad is not None
        return policy.grad

    expected = gradient(proximal, "token")
    assert torch.allclose(gradient(behaviour, "sequence"), expected, atol=1e-12)
    assert not torch.allclose(gradient(behaviour, "token"), expected, atol=1e-2)


@pytest.mark.parametrize(("ratio_to_it", "far"), [(1.09, 0), (1.11, 1), (0.91, 0), (0.89, 1), (0.0, 1), (math.inf, 1)])
def test_a_ratio_is_outside_beyond_a_tenth(ratio_to_it: float, far: int):
    assert outside(_f64([[ratio_to_it]]).log(), _f64([[0.0]])).tolist() == [[bool(far)]]


def test_a_weight_at_a_limit_is_neither_truncated_nor_rejected():
    same_BT, mask_BT = torch.zeros(1, 2), torch.ones(1, 2, dtype=torch.bool)
    weights_BT, stats = truncated_weights(same_BT, same_BT, mask_BT, max_weight=1.0, reject_above=1.0)
    assert weights_BT.tolist() == [[1.0, 1.0]]
    assert stats["truncated_fraction"].item() == stats["rejected_fraction"].item() == 0


def test_values_within_the_clip_range_are_not_counted_as_clipped():
    """In float32 V_old + (V − V_old) is seldom V."""
    generator = torch.Generator().manual_seed(0)
    old_BT = torch.randn(50, 20, generator=generator)
    values_BT = old_BT + 0.4 * torch.rand(50, 20, generator=generator) - 0.2
    values_BT = values_BT.clamp(old_BT - 0.199, old_BT + 0.199)
    returns_BT, mask_BT = torch.randn(50, 20, generator=generator), torch.ones(50, 20, dtype=torch.bool)
    _, stats = policy_losses.value_loss(values_BT, old_BT, returns_BT, mask_BT, clip=0.2)
    assert stats["value_clip_fraction"].item() == 0


def test_value_loss_by_hand():
    values_BT = _f64([[0.1, 0.5, -0.5, 0.6], [0.05, 0.9, -0.7, 0.3]])
    returns_BT = _f64([[1.0, 1.0, 1.0, -1.0], [-1.0, 0.3, -0.3, 0.4]])
    plain = [0.81, 0.25, 2.25, 2.56, 1.1025, 0.36, 0.16]
    near = [0.81, 0.64, 1.44, 1.44, 1.1025, 0.01, 0.01]
    loss, stats = policy_losses.value_loss(values_BT, torch.zeros_like(values_BT), returns_BT, MASK_BT, clip=0.2)
    assert loss.item() == pytest.approx(0.5 * sum(map(max, plain, near)) / 7)
    assert stats["value_clip_fraction"].item() == pytest.approx(1 / 7)
    mirrored, stats = policy_losses.value_loss(-values_BT, torch.zeros_like(values_BT), -returns_BT, MASK_BT, clip=0.2)
    assert mirrored.item() == pytest.approx(loss.item()) and stats["value_clip_fraction"].item() == pytest.approx(1 / 7)


def test_simple_means_by_hand():
    total, count = -1.0 - 0.3 - 2.0 - 0.7 - 0.2 - 1.5 - 0.9, 7
    loss, stats = policy_losses.nll_loss(OLD_BT, MASK_BT)
    assert loss.item() == pytest.approx(-total / count) and stats["nll"].item() == pytest.approx(-total / count)
    loss, stats = policy_losses.entropy_loss(-OLD_BT, MASK_BT)
    assert loss.item() == pytest.approx(total / count) and stats["entropy"].item() == pytest.approx(-total / count)
    loss, stats = policy_losses.reinforce_loss(OLD_BT, 2 * torch.ones_like(OLD_BT), MASK_BT)
    assert loss.item() == pytest.approx(-2 * total / count)
    assert stats["logprob"].item() == pytest.approx(total / count)


@pytest.mark.parametrize(
    ("estimator", "expected"),
    [("k1", 0.1), ("k2", (0.09 + 0.25) / 4), ("k3", (math.exp(0.3) - 1.3 + math.exp(-0.5) - 0.5) / 2)],
)
def test_kl_by_hand(estimator, expected: float):
    loss, stats = policy_losses.kl_loss(
        _f64([[-1.0, -0.5, 7.0]]), _f64([[-0.7, -1.0, 9.0]]), torch.tensor([[True, True, False]]), estimator=estimator
    )
    assert loss.item() == pytest.approx(expected)
    assert stats["kl"].item() == pytest.approx(0.1)


def test_a_weighed_kl_by_hand():
    logprobs_BT, weights_BT = _f64([[-1.0, -0.5, 7.0]]).requires_grad_(True), _f64([[2.0, 0.5, math.nan]])
    loss, stats = policy_losses.kl_loss(
        logprobs_BT,
        _f64([[-0.7, -1.0, 9.0]]),
        torch.tensor([[True, True, False]]),
        estimator="k2",
        weights_BT=weights_BT.requires_grad_(True),
    )
    assert loss.item() == pytest.approx((2 * 0.09 + 0.5 * 0.25) / 4) and stats["kl"].item() == pytest.approx(-0.175)
    loss.backward()
    assert logprobs_BT.grad is not None and weights_BT.grad is None
    assert logprobs_BT.grad.tolist() == [pytest.approx([-0.3, 0.125, 0.0])]


class _ActorCritic:
    """Logits and a value for each of 5 states, tokens and states of 3 answers drawn once."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(5)
        self.logits_SV = torch.randn(5, 4, generator=generator).requires_grad_(True)
        self.values_S = torch.randn(5, generator=generator).requires_grad_(True)
        self.states_BT = torch.randint(5, (3, 6), generator=generator)
        self.tokens_BT = torch.randint(4, (3, 6), generator=generator)
        self.mask_BT = torch.arange(6) < torch.tensor([[6], [2], [4]])
        self.advantages_BT = torch.randn(3, 6, generator=generator)
        self.returns_BT = torch.randn(3, 6, generator=generator)

    def logprobs(self) -> Tensor:
        table_BTV = self.logits_SV[self.states_BT].log_softmax(-1)
        return table_BTV.gather(-1, self.tokens_BT.unsqueeze(-1)).squeeze(-1)

    def gradients(self, policy_loss: Tensor, value_loss: Tensor) -> tuple[Tensor, ...]:
        table_BTV = self.logits_SV[self.states_BT].log_softmax(-1)
        entropies_BT = -(table_BTV.exp() * table_BTV).sum(-1)
        entropy_loss, _ = policy_losses.entropy_loss(entropies_BT, self.mask_BT)
        return torch.autograd.grad(
            policy_loss + 0.5 * value_loss + 0.01 * entropy_loss, [self.logits_SV, self.values_S]
        )


def test_one_step_of_ppo_is_a2c():
    """Ratio 1, so no clip bites: the same gradient to the last bit (Huang et al. 2022, arXiv 2205.09123)."""
    model = _ActorCritic()
    ppo, stats = policy_losses.ppo_loss(
        model.logprobs(), model.logprobs().detach(), model.advantages_BT, model.mask_BT, clip=0.2, dual_clip=3.0
    )
    values_BT = model.values_S[model.states_BT]
    clipped, _ = policy_losses.value_loss(values_BT, values_BT.detach(), model.returns_BT, model.mask_BT, clip=0.2)
    assert stats["ratio"].item() == 1 and stats["clip_fraction"].item() == 0
    actor, _ = policy_losses.reinforce_loss(model.logprobs(), model.advantages_BT, model.mask_BT)
    critic = 0.5 * (model.values_S[model.states_BT] - model.returns_BT)[model.mask_BT].square().mean()
    for found, expected in zip(model.gradients(ppo, clipped), model.gradients(actor, critic), strict=True):
        assert found.any() and torch.equal(found, expected)
