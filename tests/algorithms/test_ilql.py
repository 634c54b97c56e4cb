"""Implicit language Q-learning against exact values, in the world where every answer can be written down.

Of a log of answers the values that it defines are known: backwards from the ends, Q(h, a) is the reward or the value of
where a leads, and V(h) is the expectile of Q over the tokens that were logged there.
"""

from collections import defaultdict
from functools import cache

import pytest
import torch
from torch import Tensor

from rlhf_online.algorithms.ilql import Valued, ilql_loss, steered
from rlhf_online.errors import InvalidInput
from tests.benches.ilql import Logged, expectile, learned, logged, values_of
from tests.support.enumerable import EnumerableWorld, all_answers, answer_logprobs


@cache
def tables(tau: float, cql_coef: float) -> tuple[Tensor, Tensor]:
    """Q and V that were learned from the log."""
    return learned(logged(EnumerableWorld.drawn(0), per_prompt=120, seed=0), tau=tau, cql_coef=cql_coef)


@pytest.fixture(scope="module")
def world() -> EnumerableWorld:
    return EnumerableWorld.drawn(0)


@pytest.fixture(scope="module")
def log(world: EnumerableWorld) -> Logged:
    return logged(world, per_prompt=120, seed=0)


def exact(log: Logged, tau: float) -> tuple[dict[tuple[int, int, int], float], dict[tuple[int, int], float]]:
    """Q of every logged (prompt, prefix, token) and V of every logged (prompt, prefix), by recursion."""
    answers = all_answers()
    leads: dict[tuple[int, int], list[tuple[int, float, int]]] = defaultdict(list)
    rows = zip(log.prompts_N.tolist(), log.answers_N.tolist(), log.rewards_N.tolist(), strict=True)
    for prompt, answer, reward in rows:
        length = int(answers.mask_AT[answer].sum())
        for t in range(length):
            following = int(answers.prefixes_AT[answer, t + 1]) if t + 1 < length else -1
            token, prefix = int(answers.tokens_AT[answer, t]), int(answers.prefixes_AT[answer, t])
            leads[prompt, prefix].append((token, reward, following))
    q: dict[tuple[int, int, int], float] = {}
    v: dict[tuple[int, int], float] = {}
    for prompt, prefix in sorted(leads, reverse=True):  # prefixes are numbered by length
        found = [(token, v[prompt, to] if to >= 0 else reward) for token, reward, to in leads[prompt, prefix]]
        q |= {(prompt, prefix, token): value for token, value in found}
        v[prompt, prefix] = expectile([value for _, value in found], tau)
    return q, v


@pytest.mark.parametrize("tau", [0.5, 0.7, 0.9])
def test_without_the_conservative_term_values_are_those_of_the_log(log: Logged, tau: float):
    q_PXV, v_PX = tables(tau, 0.0)
    q, v = exact(log, tau)
    assert max(abs(q_PXV[at].item() - value) for at, value in q.items()) < 2e-3
    assert max(abs(v_PX[at].item() - value) for at, value in v.items()) < 2e-3
    assert len(v) > 100 and len(q) > 200


def test_at_one_half_a_value_is_the_mean_reward_of_what_was_logged_from_there(log: Logged):
    _, v_PX = tables(0.5, 0.0)
    for prompt in range(4):
        assert v_PX[prompt, 0].item() == pytest.approx(log.rewards_N[log.prompts_N == prompt].mean().item(), abs=2e-3)


def test_what_nobody_wrote_is_worth_less_with_the_conservative_term(log: Logged):
    """Without it the Q of such a token stays where it began, above what was logged and is bad."""
    seen = {at[:2]: set() for at in exact(log, 0.7)[0]}
    for prompt, prefix, token in exact(log, 0.7)[0]:
        seen[prompt, prefix].add(token)
    q_PXV, _ = tables(0.7, 0.1)
    often = [at for at, tokens in seen.items() if 1 < len(tokens) < 6]
    assert often
    for at in often:
        unseen = [token for token in range(6) if token not in seen[at]]
        assert q_PXV[at][unseen].max() < q_PXV[at][sorted(seen[at])].min()


def test_steering_is_the_best_that_a_state_has_at_its_price(world: EnumerableWorld):
    """E[A] − β KL(π ‖ π_β) is greatest there: by its closed form, β log Σ π_β exp(A / β), and against others."""
    generator = torch.Generator().manual_seed(0)
    before_NV = torch.randn(50, 6, generator=generator, dtype=torch.float64).log_softmax(-1)
    advantages_NV = torch.randn(50, 6, generator=generator, dtype=torch.float64)

    def worth(logprobs_NV: Tensor) -> Tensor:
        return (logprobs_NV.exp() * (advantages_NV - 0.3 * (logprobs_NV - before_NV))).sum(1)

    best_N = worth(steered(before_NV, advantages_NV, 0.3))
    torch.testing.assert_close(best_N, 0.3 * (before_NV + advantages_NV / 0.3).logsumexp(1))
    assert (worth((before_NV + torch.randn(50, 6, generator=generator)).log_softmax(-1)) < best_N).all()
    torch.testing.assert_close(steered(before_NV, 0 * advantages_NV, 0.3), before_NV)


def test_the_steered_policy_is_better_than_what_was_logged_and_the_more_the_higher_the_expectile(
    world: EnumerableWorld,
):
    def reward(policy_PXV: Tensor) -> float:
        return (answer_logprobs(policy_PXV).exp() * world.rewards_PA).sum(1).mean().item()

    found = [reward(values_of(world, *tables(tau, 0.1), beta=0.1)) for tau in (0.5, 0.7, 0.9)]
    assert found[0] > reward(world.reference_PXV) + 0.3 and found == sorted(found)


def test_its_gradient_is_that_of_finite_differences_and_flows_into_no_target():
    generator = torch.Generator().manual_seed(1)
    mask_BT = torch.tensor([[True, True, True], [True, False, False]])

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_()

    chosen, total, target, values, rewards = normal(2, 2, 3), normal(2, 2, 3), normal(2, 3), normal(2, 3), normal(2, 3)

    def loss(chosen: Tensor, total: Tensor, target: Tensor, values: Tensor) -> Tensor:
        valued = Valued(chosen, total, target, values)
        return ilql_loss(valued, rewards, mask_BT, expectile=0.8, cql_coef=0.3, gamma=0.9)[0]

    assert torch.autograd.gradcheck(lambda chosen, total: loss(chosen, total, target, values), (chosen, total))
    (of_values,) = torch.autograd.grad(loss(chosen, total, target, values), values)
    error = (target - values).detach()
    weight = torch.where(error < 0, 0.2, 0.8)
    torch.testing.assert_close(of_values, torch.where(mask_BT, -2 * weight * error, 0.0) / 4, msg="V learns from eq. 5")
    assert torch.autograd.grad(loss(chosen, total, target, values), target, allow_unused=True) == (None,)


def test_by_hand():
    """Two tokens, one head: Q = (1, 2), log-sum-exp = (3, 3), Q̂ = (1, 0), V = (.5, 1), the answer worth 4."""
    mask_BT = torch.ones(1, 2, dtype=torch.bool)
    chosen, total = torch.tensor([[[1.0, 2.0]]]), torch.tensor([[[3.0, 3.0]]])
    valued = Valued(chosen, total, torch.tensor([[1.0, 0.0]]), torch.tensor([[0.5, 1.0]]))
    loss, stats = ilql_loss(valued, torch.tensor([[0.0, 4.0]]), mask_BT, expectile=0.75, cql_coef=0.5)
    assert stats["td"] == ((1 - 1) ** 2 + (4 - 2) ** 2) / 2
    assert stats["expectile"] == (0.75 * 0.25 + 0.25 * 1) / 2
    assert stats["cql"] == (2 + 1) / 2 and stats["value"] == 0.75
    assert loss == stats["td"] + stats["expectile"] + 0.5 * stats["cql"]


@pytest.mark.parametrize(
    ("changed", "told"),
    [({"expectile": 0.0}, "expectile must be above 0"), ({"cql_coef": -1.0}, "cql_coef"), ({"gamma": 2.0}, "gamma")],
)
def test_arguments_of_no_use_are_refused(changed: dict[str, float], told: str):
    given = {"expectile": 0.7, "cql_coef": 0.1} | changed
    row = torch.zeros(1, 1)
    with pytest.raises(InvalidInput, match=told):
        ilql_loss(Valued(row[None], row[None], row, row), row, torch.ones(1, 1, dtype=torch.bool), **given)
