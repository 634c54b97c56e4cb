"""GAE against the O(T²) double sum (oracle 4), rewards a token, and the advantages of whole answers."""

import pytest
import torch

from rlhf_online.algorithms.advantages import (
    RunningMean,
    best_of_group,
    gae,
    grpo,
    per_token,
    reinforce,
    rloo,
    token_rewards,
)


def _random(seed: int, shape: tuple[int, int] = (5, 9)) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    rewards_BT = torch.randn(shape, generator=generator, dtype=torch.float64)
    values_BT = torch.randn(shape, generator=generator, dtype=torch.float64)
    lengths_B = torch.randint(1, shape[1] + 1, (shape[0],), generator=generator)
    return rewards_BT, values_BT, torch.arange(shape[1]) < lengths_B.unsqueeze(1)


def _double_sum(rewards: list[float], values: list[float], gamma: float, lam: float) -> list[float]:
    """A_t = Σ_l (γλ)^l δ_{t+l}, written out."""
    size = len(rewards)
    ahead = [*values[1:], 0.0]
    deltas = [rewards[t] + gamma * ahead[t] - values[t] for t in range(size)]
    return [sum((gamma * lam) ** (s - t) * deltas[s] for s in range(t, size)) for t in range(size)]


@pytest.mark.parametrize(("gamma", "lam"), [(1.0, 0.95), (0.9, 0.5), (0.99, 1.0), (1.0, 0.0)])
def test_gae_is_the_double_sum(gamma: float, lam: float):
    rewards_BT, values_BT, mask_BT = _random(1)
    advantages_BT, returns_BT = gae(rewards_BT, values_BT, mask_BT, gamma=gamma, gae_lambda=lam)
    for row, size in enumerate(mask_BT.sum(1).tolist()):
        expected = _double_sum(rewards_BT[row, :size].tolist(), values_BT[row, :size].tolist(), gamma, lam)
        found = advantages_BT[row, :size]
        assert (found - torch.tensor(expected, dtype=torch.float64)).abs().max() <= 1e-10
        assert torch.equal(returns_BT[row, :size], found + values_BT[row, :size])
        assert not advantages_BT[row, size:].any() and not returns_BT[row, size:].any()


def test_lambda_one_gives_return_minus_value():
    rewards_BT, values_BT, mask_BT = _random(2)
    advantages_BT, returns_BT = gae(rewards_BT, values_BT, mask_BT, gamma=1.0, gae_lambda=1.0)
    to_go_BT = (rewards_BT * mask_BT).flip(1).cumsum(1).flip(1) * mask_BT
    assert torch.allclose(returns_BT, to_go_BT, atol=1e-10, rtol=0)
    assert torch.allclose(advantages_BT, (to_go_BT - values_BT) * mask_BT, atol=1e-10, rtol=0)


def test_padding_changes_nothing():
    rewards_BT, values_BT, mask_BT = _random(3)
    expected = gae(rewards_BT, values_BT, mask_BT, gamma=0.97, gae_lambda=0.9)
    junk_BT = torch.full((5, 4), float("nan"), dtype=torch.float64)
    padded = gae(
        torch.cat([torch.where(mask_BT, rewards_BT, torch.inf), junk_BT], 1),
        torch.cat([torch.where(mask_BT, values_BT, torch.nan), junk_BT], 1),
        torch.cat([mask_BT, torch.zeros(5, 4, dtype=torch.bool)], 1),
        gamma=0.97,
        gae_lambda=0.9,
    )
    for before, after in zip(expected, padded, strict=True):
        assert torch.equal(before, after[:, :9])
        assert not after[:, 9:].any()


def test_the_score_lands_on_the_last_real_token():
    kl_BT = torch.tensor([[1.0, 2.0, torch.nan], [4.0, torch.nan, torch.nan]])
    mask_BT = torch.tensor([[True, True, False], [True, False, False]])
    rewards_BT = token_rewards(torch.tensor([10.0, -3.0]), kl_BT, mask_BT, 0.5)
    assert rewards_BT.tolist() == [[-0.5, 9.0, 0.0], [-5.0, 0.0, 0.0]]


# Groups 7 and 3, mingled, and a group of one. Means 2 and −1; biased variances 14/3 and 4.

SCORES_N = torch.tensor([5.0, -3.0, 1.0, 0.0, 1.0, 9.0], dtype=torch.float64)
GROUPS_N = torch.tensor([7, 3, 3, 7, 7, 5])


def test_grpo_by_hand():
    assert grpo(SCORES_N, GROUPS_N, std=False).tolist() == pytest.approx([3, -2, 2, -2, -1, 0])
    root = (14 / 3) ** 0.5
    expected = [3 / root, -1, 1, -2 / root, -1 / root, 0]
    assert grpo(SCORES_N, GROUPS_N, std=True).tolist() == pytest.approx(expected, abs=1e-6)


def test_a_group_that_agrees_has_no_advantage():
    same_N = torch.full((8,), 0.1)
    for advantages_N in (grpo(same_N, torch.zeros(8), std=False), grpo(same_N, torch.zeros(8), std=True)):
        assert advantages_N.abs().max() <= 1e-3


def test_rloo_leaves_the_answer_itself_out():
    expected = [5 - 0.5, -3 - 1, 1 + 3, 0 - 3, 1 - 2.5, 0]
    assert rloo(SCORES_N, GROUPS_N).tolist() == pytest.approx(expected)


def test_rloo_is_as_exact_as_its_scores():
    """Of four the factor is 4/3, which float32 rounds."""
    scores_N = torch.tensor([0.1, 0.2, 0.4, 0.8], dtype=torch.float64)
    expected = [0.1 - 1.4 / 3, 0.2 - 1.3 / 3, 0.4 - 1.1 / 3, 0.8 - 0.7 / 3]
    assert rloo(scores_N, torch.zeros(4)).tolist() == pytest.approx(expected, rel=1e-14)


def test_a_running_mean_forgets_at_most_all():
    for decay in (-0.1, 1.1):
        with pytest.raises(ValueError, match=f"decay must be at least 0 and at most 1, got {decay}"):
            RunningMean(decay=decay)


def test_answers_without_a_token_have_no_advantages():
    nothing_BT = torch.zeros(2, 0)
    for found in gae(nothing_BT, nothing_BT, nothing_BT.bool(), gamma=1.0, gae_lambda=0.95):
        assert found.shape == (2, 0)


def test_reinforce_subtracts_the_mean_of_earlier_updates():
    baseline = RunningMean(decay=0.5)
    assert reinforce(SCORES_N, baseline.mean).tolist() == SCORES_N.tolist()
    baseline = baseline.after(torch.tensor([1.0, 3.0]))
    assert baseline.mean == 2
    assert reinforce(SCORES_N, baseline.mean).tolist() == (SCORES_N - 2).tolist()
    assert baseline.after(torch.tensor([5.0])).mean == pytest.approx((0.5 * 2 + 5) / 1.5)


def test_the_best_of_each_group_is_the_first_of_equals():
    scores_N = torch.tensor([1.0, 4.0, 4.0, -1.0, -2.0])
    assert best_of_group(scores_N, torch.tensor([2, 2, 2, 0, 0])).tolist() == [False, True, False, True, False]
    assert best_of_group(scores_N, torch.tensor([2, 0, 2, 1, 0])).tolist() == [False, True, True, True, False]


def test_an_answers_advantage_goes_to_its_tokens():
    mask_BT = torch.tensor([[True, True, False], [True, False, False]])
    assert per_token(torch.tensor([2.0, -1.0]), mask_BT).tolist() == [[2, 2, 0], [-1, 0, 0]]
