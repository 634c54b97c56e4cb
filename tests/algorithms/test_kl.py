"""KL estimators against an exact divergence, and the adaptive coefficient."""

import math

import pytest
import torch

from rlhf_online.algorithms import kl


def test_k1_and_k3_are_unbiased_over_an_enumerated_distribution():
    p = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    q = torch.tensor([0.2, 0.2, 0.6], dtype=torch.float64)
    exact = (p * (p / q).log()).sum().item()
    assert (p * kl.k1(p.log(), q.log())).sum().item() == pytest.approx(exact)
    assert (p * kl.k3(p.log(), q.log())).sum().item() == pytest.approx(exact)
    assert (p * kl.k2(p.log(), q.log())).sum().item() == pytest.approx((p * 0.5 * (p / q).log() ** 2).sum().item())


def test_estimators_vanish_where_the_policies_agree():
    logprobs = torch.tensor([-1.0, -2.0])
    for estimate in (kl.k1, kl.k2, kl.k3):
        assert estimate(logprobs, logprobs).tolist() == [0, 0]


def test_k2_has_the_gradient_of_the_divergence_on_policy():
    logits = torch.tensor([0.3, -0.2, 0.9], dtype=torch.float64, requires_grad=True)
    ref = torch.tensor([0.1, 0.4, -0.3], dtype=torch.float64).log_softmax(0)
    logp = logits.log_softmax(0)
    (exact,) = torch.autograd.grad((logp.exp() * (logp - ref)).sum(), logits, retain_graph=True)
    (found,) = torch.autograd.grad((logp.exp().detach() * kl.k2(logp, ref)).sum(), logits)
    assert torch.allclose(exact, found, atol=1e-12)


def test_in_float32_k3_and_its_gradient_stay_numbers_however_far_the_policies_are_apart():
    apart = torch.tensor([-1e4, -100.0, -1.0, 1.0, 100.0, 1e4], requires_grad=True)
    k3 = kl.k3(apart, torch.zeros(6))
    k3.sum().backward()
    assert k3.tolist() == pytest.approx(
        [math.exp(20) - 21] * 2 + [math.exp(1) - 2, math.exp(-1), 99, 1e4 - 1], rel=1e-6
    )
    assert apart.grad is not None
    assert apart.grad.tolist() == pytest.approx([0, 0, 1 - math.exp(1), 1 - math.exp(-1), 1, 1], rel=1e-6)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"coef": -0.1}, "coef must be at least 0, got -0.1"),
        ({"coef": 0.1, "target": -1.0}, "target must be at least 0, got -1"),
        ({"coef": 0.1, "horizon": 0.0}, "horizon must be above 0, got 0"),
    ],
)
def test_a_controller_that_the_settings_forbid_is_refused(values: dict[str, float], message: str):
    with pytest.raises(ValueError, match=f"^{message}$"):
        kl.KLController(**values)


def test_a_fixed_coefficient_stays():
    assert kl.KLController(0.03).after(100.0, 512).coef == 0.03


@pytest.mark.parametrize(("nats", "factor"), [(6.6, 1.1), (60.0, 1.2), (0.0, 0.8), (6.0, 1.0)])
def test_an_adaptive_coefficient_follows_ziegler(nats: float, factor: float):
    moved = kl.KLController(0.15, target=6.0, horizon=10_000).after(nats, 512)
    assert moved.coef == pytest.approx(0.15 * (1 + (factor - 1) * 512 / 10_000))
    assert moved.target == 6.0


def test_a_short_horizon_does_not_turn_the_coefficient_around():
    assert kl.KLController(0.15, target=6.0, horizon=10).after(0.0, 512).coef == pytest.approx(0.15 * 0.8)
