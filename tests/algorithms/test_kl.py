"""KL estimators against an exact divergence, and the adaptive coefficient."""

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


def test_a_fixed_coefficient_stays():
    assert kl.KLController(0.03).after(100.0, 512).coef == 0.03


@pytest.mark.parametrize(("nats", "factor"), [(6.6, 1.1), (60.0, 1.2), (0.0, 0.8), (6.0, 1.0)])
def test_an_adaptive_coefficient_follows_ziegler(nats: float, factor: float):
    moved = kl.KLController(0.15, target=6.0, horizon=10_000).after(nats, 512)
    assert moved.coef == pytest.approx(0.15 * (1 + (factor - 1) * 512 / 10_000))
    assert moved.target == 6.0


def test_a_short_horizon_does_not_turn_the_coefficient_around():
    assert kl.KLController(0.15, target=6.0, horizon=10).after(0.0, 512).coef == pytest.approx(0.15 * 0.8)
