"""The enumerable world's closed form (oracle 1), and sampled gradients against exact ones (oracle 6)."""

import pytest
import torch
from torch import Tensor

from rlhf_online.algorithms import advantages, kl, policy_losses
from rlhf_online.algorithms.masked import row_sums
from tests.support import enumerable
from tests.support.enumerable import EnumerableWorld, all_answers, answer_logprobs, divergence, sample

BETA = 0.2


@pytest.fixture(scope="module")
def world() -> EnumerableWorld:
    return EnumerableWorld.drawn(1)


def _policy(world: EnumerableWorld, seed: int) -> Tensor:
    noise_PXV = torch.randn(
        world.reference_PXV.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )
    return (world.reference_PXV + 0.5 * noise_PXV).log_softmax(-1)


def test_counts():
    answers = all_answers()
    assert answers.prefixes == 1 + 5 + 25 + 125
    assert answers.tokens_AT.shape == (781, 4) and len(set(map(tuple, answers.tokens_AT.tolist()))) == 781
    assert [int((answers.mask_AT.sum(1) == size).sum()) for size in (1, 2, 3, 4)] == [1, 5, 25, 125 + 625]


def test_answers_are_walks_through_the_prefixes():
    """The prefix after a word follows from the one before it; an answer of three words and its end is 4 prefixes."""
    answers = all_answers()
    for tokens, prefixes, mask in zip(answers.tokens_AT, answers.prefixes_AT, answers.mask_AT, strict=True):
        assert prefixes[0] == 0
        for t in range(1, int(mask.sum())):
            assert prefixes[t] == prefixes[t - 1] * 5 + tokens[t - 1]
        assert (enumerable.END in tokens[mask].tolist()) == (tokens[mask][-1] == enumerable.END)


def test_probabilities_of_all_answers_sum_to_one(world: EnumerableWorld):
    for policy_PXV in (world.reference_PXV, _policy(world, 3)):
        assert answer_logprobs(policy_PXV).exp().sum(1).tolist() == pytest.approx([1.0] * 4, abs=1e-12)


def test_rewards_have_the_mean_and_deviation_that_they_promise(world: EnumerableWorld):
    p_PA = answer_logprobs(world.reference_PXV).exp()
    assert (p_PA * world.rewards_PA).sum(1).tolist() == pytest.approx([0.0] * 4, abs=1e-12)
    assert (p_PA * world.rewards_PA.square()).sum(1).sqrt().tolist() == pytest.approx([0.5] * 4)
    assert world.objective(world.reference_PXV, BETA).item() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("beta", [0.05, 0.2, 1.0])
def test_what_a_policy_misses_is_its_divergence_from_the_optimum(world: EnumerableWorld, beta: float):
    best_PA, best = world.optimum(beta)
    for seed in range(3):
        policy_PXV = _policy(world, seed)
        missed = best - world.objective(policy_PXV, beta).item()
        assert missed == pytest.approx(beta * divergence(answer_logprobs(policy_PXV), best_PA).item(), abs=1e-6)
        assert missed > 0


def test_the_objective_at_the_optimum_is_the_best_one(world: EnumerableWorld):
    best_PA, best = world.optimum(BETA)
    ref_PA = answer_logprobs(world.reference_PXV)
    value = (best_PA.exp() * world.rewards_PA).sum(1).mean() - BETA * divergence(best_PA, ref_PA)
    assert value.item() == pytest.approx(best, abs=1e-12)
    assert world.gap(world.reference_PXV, BETA) == 1


def test_samples_come_as_often_as_the_policy_says(world: EnumerableWorld):
    prompts_N, answers_N = sample(world.reference_PXV, 20_000, torch.Generator().manual_seed(0))
    first_N = all_answers().tokens_AT[answers_N, 0]
    for prompt in range(4):
        found_V = torch.bincount(first_N[prompts_N == prompt], minlength=6) / 20_000
        assert (found_V - world.reference_PXV[prompt, 0].exp()).abs().max() <= 4 * (0.25 / 20_000) ** 0.5


# The gradient of J, exact by autograd over all answers, against what the losses give for sampled ones.

GROUP, BATCHES = 8, 400


class _Sampled:
    """8 answers to each prompt, sampled on policy, and the logits as a leaf."""

    def __init__(self, world: EnumerableWorld, generator: torch.Generator) -> None:
        self.logits_PXV = _policy(world, 3).requires_grad_(True)
        policy_PXV = self.logits_PXV.log_softmax(-1)
        prompts_N, answers_N = sample(policy_PXV.detach(), GROUP, generator)
        answers = all_answers()
        self.mask_NT = answers.mask_AT[answers_N]
        at = (prompts_N.unsqueeze(1), answers.prefixes_AT[answers_N], answers.tokens_AT[answers_N])
        self.logprobs_NT, self.ref_NT = policy_PXV[at], world.reference_PXV[at]
        self.groups_N = prompts_N
        k1_NT = kl.k1(self.logprobs_NT.detach(), self.ref_NT)
        rewards_N = world.rewards_PA[prompts_N, answers_N]
        self.rewards_NT = advantages.token_rewards(rewards_N, k1_NT, self.mask_NT, BETA)
        self.bare_NT = advantages.token_rewards(rewards_N, k1_NT, self.mask_NT, 0.0)
        self.values_NT = torch.sin(at[1] + 0.1 * at[0])

    def loss(self, estimator: str) -> Tensor:
        scores_N, bare_N = row_sums(self.rewards_NT, self.mask_NT), row_sums(self.bare_NT, self.mask_NT)
        match estimator:
            case "reinforce":
                return self._reinforce(advantages.reinforce(scores_N, 0.3))
            case "rloo":
                return self._reinforce(advantages.rloo(scores_N, self.groups_N))
            case "grpo":
                return self._reinforce(advantages.grpo(scores_N, self.groups_N, std=False))
            case "ppo":
                advantages_NT, _ = advantages.gae(
                    self.rewards_NT, self.values_NT, self.mask_NT, gamma=1.0, gae_lambda=1.0
                )
                old_NT = self.logprobs_NT.detach()
                loss, stats = policy_losses.ppo_loss(
                    self.logprobs_NT, old_NT, advantages_NT, self.mask_NT, clip=0.2, denominator=len(self.mask_NT)
                )
                assert stats["clip_fraction"].item() == 0
                return loss
            case "k2 loss":
                return self._reinforce(advantages.rloo(bare_N, self.groups_N)) + BETA * self._answer_kl("k2")
            case "k1 loss":
                return self._reinforce(advantages.rloo(bare_N, self.groups_N)) + BETA * self._answer_kl("k1")
            case _:
                raise AssertionError(estimator)

    def _reinforce(self, advantages_N: Tensor) -> Tensor:
        advantages_NT, count = advantages.per_token(advantages_N, self.mask_NT), len(self.mask_NT)
        return policy_losses.reinforce_loss(self.logprobs_NT, advantages_NT, self.mask_NT, denominator=count)[0]

    def _answer_kl(self, estimator) -> Tensor:
        own_N1, ref_N1 = (row_sums(x, self.mask_NT).unsqueeze(1) for x in (self.logprobs_NT, self.ref_NT))
        return policy_losses.kl_loss(own_N1, ref_N1, torch.ones_like(own_N1, dtype=torch.bool), estimator=estimator)[0]


def _exact_gradient(world: EnumerableWorld) -> Tensor:
    logits_PXV = _policy(world, 3).requires_grad_(True)
    (gradient_PXV,) = torch.autograd.grad(world.objective(logits_PXV.log_softmax(-1), BETA), logits_PXV)
    return gradient_PXV


def _gradients(world: EnumerableWorld, estimator: str) -> tuple[Tensor, Tensor, Tensor]:
    """Along the exact gradient and 7 random directions: the mean of sampled ones, its standard error, the exact one."""
    exact_PXV = _exact_gradient(world)
    directions_DPXV = torch.randn(8, *exact_PXV.shape, generator=torch.Generator().manual_seed(2)).double()
    directions_DPXV[0] = exact_PXV
    generator, found = torch.Generator().manual_seed(7), []
    for _ in range(BATCHES):
        batch = _Sampled(world, generator)
        (gradient_PXV,) = torch.autograd.grad(-batch.loss(estimator), batch.logits_PXV)
        found.append((directions_DPXV * gradient_PXV).sum((1, 2, 3)))
    found_MD = torch.stack(found)
    return found_MD.mean(0), found_MD.std(0) / BATCHES**0.5, (directions_DPXV * exact_PXV).sum((1, 2, 3))


@pytest.mark.parametrize("estimator", ["reinforce", "rloo", "ppo", "k2 loss"])
def test_the_sampled_gradient_is_the_exact_one(world: EnumerableWorld, estimator: str):
    mean_D, error_D, exact_D = _gradients(world, estimator)
    assert ((mean_D - exact_D).abs() <= 3 * error_D).all()
    assert exact_D[0] > 10 * error_D[0], "enough samples to see a gradient at all"


def test_grpos_own_baseline_shrinks_the_gradient(world: EnumerableWorld):
    mean_D, error_D, exact_D = _gradients(world, "grpo")
    assert ((mean_D - (1 - 1 / GROUP) * exact_D).abs() <= 3 * error_D).all()
    assert mean_D[0] < exact_D[0] - 3 * error_D[0]


def test_k1_as_a_loss_leaves_the_penalty_out(world: EnumerableWorld):
    mean_D, error_D, exact_D = _gradients(world, "k1 loss")
    assert (mean_D - exact_D)[0].abs() > 10 * error_D[0]


# Estimators as losses: expected gradients, exact.


def _expected_loss_gradient(world: EnumerableWorld, estimate, by_token: bool) -> Tensor:
    logits_PXV = _policy(world, 3).requires_grad_(True)
    own_PAT, ref_PAT = (enumerable.token_logprobs(x) for x in (logits_PXV.log_softmax(-1), world.reference_PXV))
    estimate_PA = estimate(own_PAT, ref_PAT).sum(2) if by_token else estimate(own_PAT.sum(2), ref_PAT.sum(2))
    loss = (own_PAT.sum(2).exp().detach() * estimate_PA).sum(1).mean()
    return torch.autograd.grad(loss, logits_PXV)[0]


def test_which_kl_losses_have_the_gradient_of_the_kl(world: EnumerableWorld):
    logits_PXV = _policy(world, 3).requires_grad_(True)
    (exact_PXV,) = torch.autograd.grad(world.kl(logits_PXV.log_softmax(-1)), logits_PXV)

    def error(estimate, by_token: bool) -> float:
        found_PXV = _expected_loss_gradient(world, estimate, by_token)
        return ((found_PXV - exact_PXV).norm() / exact_PXV.norm()).item()

    assert error(kl.k2, by_token=False) <= 1e-12
    assert error(kl.k2, by_token=True) > 0.1, "it leaves out what a token does to the KL of later ones"
    assert error(kl.k3, by_token=False) > 0.1 and error(kl.k3, by_token=True) > 0.1
    assert _expected_loss_gradient(world, kl.k1, by_token=False).abs().max() <= 1e-12, "no penalty at all"


def test_k3_as_a_loss_is_the_other_divergence(world: EnumerableWorld):
    logits_PXV = _policy(world, 3).requires_grad_(True)
    own_PA, ref_PA = answer_logprobs(logits_PXV.log_softmax(-1)), answer_logprobs(world.reference_PXV)
    (other_PXV,) = torch.autograd.grad(divergence(ref_PA, own_PA), logits_PXV)
    assert (_expected_loss_gradient(world, kl.k3, by_token=False) - other_PXV).abs().max() <= 1e-12


def test_at_step_zero_the_ratio_is_one_and_the_kl_zero(world: EnumerableWorld):
    """Oracle 7, the part that is maths: bit for bit."""
    logprobs_PAT, mask_AT = enumerable.token_logprobs(world.reference_PXV), all_answers().mask_AT
    ones_PAT = torch.ones_like(logprobs_PAT)
    _, stats = policy_losses.ppo_loss(logprobs_PAT, logprobs_PAT, ones_PAT, mask_AT.expand_as(ones_PAT), clip=0.2)
    assert stats["ratio"].item() == 1 and stats["clip_fraction"].item() == 0
    assert world.kl(world.reference_PXV).item() == 0
    for estimator in ("k1", "k2", "k3"):
        loss, _ = policy_losses.kl_loss(logprobs_PAT, logprobs_PAT, mask_AT.expand_as(ones_PAT), estimator=estimator)
        assert loss.item() == 0
