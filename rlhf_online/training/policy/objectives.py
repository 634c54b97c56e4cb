"""What each algorithm learns from an update's answers, and its loss on any of them.

    ppo · grpo · rloo · reinforce    PolicyGradient   every answer, with advantages
    online-dpo                       Pairs            the best and the worst answer to each prompt
    kto                              Labels           answers that people called good or bad; no reward model
    best-of-n                        Imitation        the best answer to each prompt; demonstrations too

A *unit* is what a micro-batch may not divide: the rows of one answer, or of a pair. Every loss is a sum over the units
of a micro-batch divided by the `denominator` of the whole minibatch, so that micro-batches add up to its gradient.

Shapes: N answers, A tokens of the longest, B answers of a micro-batch, P pairs.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from rlhf_online.algorithms import advantages, kl, policy_losses, preference_losses
from rlhf_online.algorithms.advantages import RunningMean
from rlhf_online.algorithms.masked import Stats, masked_variance, row_sums, whiten
from rlhf_online.models.policy import Outputs
from rlhf_online.models.tokens import Pair
from rlhf_online.rollout.eligibility import drop_tied_groups
from rlhf_online.rollout.types import LabelledAnswer, ScoredRollout, groups
from rlhf_online.training.policy.settings import Algorithm, PolicyTraining

Unit = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Answers:
    """Answers and what was said of them as the update began: (N, A) on the CPU, 0 where masked."""

    pairs: Sequence[Pair]
    temperature_N: Tensor
    mask_NA: Tensor
    start_NA: Tensor
    """Log-probabilities by the policy."""
    reference_NA: Tensor
    values_NA: Tensor


@dataclass(frozen=True, slots=True)
class Shared:
    """What the micro-batches of one minibatch share. `reference_point` is KTO's, nats an answer."""

    denominator: float
    reference_point: float = 0.0


Sums = Callable[[Answers, Sequence[int]], Tensor]
"""Log-probability of each of these rows under the policy of this moment, (N,), without gradient."""


class Objective(Protocol):
    """What an update learns from."""

    @property
    def answers(self) -> Answers: ...

    @property
    def units(self) -> Sequence[Unit]:
        """All of one size."""
        ...

    @property
    def entropies(self) -> bool:
        """Whether the loss reads them."""
        ...

    def shared(self, rows: Sequence[int], sums: Sums) -> Shared:
        """For a minibatch of these rows."""
        ...

    def loss(self, rows: Sequence[int], outputs: Outputs, mask_BA: Tensor, shared: Shared) -> tuple[Tensor, Stats]:
        """Of a micro-batch: `rows` are those of whole units, one after another."""
        ...


def _part(tensor_NA: Tensor, rows: Sequence[int], like_BA: Tensor) -> Tensor:
    """These rows, cut to the micro-batch's width, on its device."""
    return tensor_NA[list(rows), : like_BA.shape[1]].to(like_BA.device)


@dataclass(frozen=True, slots=True)
class PolicyGradient:
    """Clipped ratios times advantages; with a critic the value's loss too. `kl_weight` is β of the KL loss, if any."""

    answers: Answers
    behaviour_NA: Tensor
    advantages_NA: Tensor
    returns_NA: Tensor | None
    kl_weight: float
    settings: PolicyTraining

    @property
    def entropies(self) -> bool:
        return self.settings.entropy_coef > 0

    @property
    def units(self) -> Sequence[Unit]:
        return [(row,) for row in range(len(self.answers.pairs))]

    def shared(self, rows: Sequence[int], sums: Sums) -> Shared:
        return Shared(int(self.answers.mask_NA[list(rows)].sum()))

    def loss(self, rows: Sequence[int], outputs: Outputs, mask_BA: Tensor, shared: Shared) -> tuple[Tensor, Stats]:
        settings, total = self.settings, shared.denominator
        loss, stats = self._policy_loss(rows, outputs.logprobs_BA, mask_BA, total)
        stats["policy_loss"] = loss.detach()
        if self.returns_NA is not None:
            value_loss, found = policy_losses.value_loss(
                outputs.values_BA.float(),
                _part(self.answers.values_NA, rows, mask_BA),
                _part(self.returns_NA, rows, mask_BA),
                mask_BA,
                clip=settings.value_clip,
                denominator=total,
            )
            loss = loss + settings.value_coef * value_loss
            stats |= found | {"value_loss": value_loss.detach()}
        if self.kl_weight:
            kl_loss = self._kl_loss(rows, outputs.logprobs_BA, mask_BA, total)
            loss = loss + self.kl_weight * kl_loss
            stats["kl_loss"] = kl_loss.detach()
        if outputs.entropies_BA is not None:
            entropy_loss, found = policy_losses.entropy_loss(outputs.entropies_BA, mask_BA, denominator=total)
            loss = loss + settings.entropy_coef * entropy_loss
            stats |= found
        return loss, stats

    def _kl_loss(self, rows: Sequence[int], logprobs_BA: Tensor, mask_BA: Tensor, total: float) -> Tensor:
        """k2 of whole answers; those that another policy wrote weigh what this one would write them, truncated."""

        def of_answers(tensor_NA: Tensor) -> Tensor:
            return row_sums(_part(tensor_NA, rows, mask_BA), mask_BA).unsqueeze(1)

        logprobs_B1 = row_sums(logprobs_BA, mask_BA).unsqueeze(1)
        weights_B1 = (logprobs_B1.detach() - of_answers(self.behaviour_NA)).exp().clamp(max=self.settings.max_weight)
        return policy_losses.kl_loss(
            logprobs_B1,
            of_answers(self.answers.reference_NA),
            torch.ones_like(logprobs_B1, dtype=torch.bool),
            estimator="k2",
            weights_BT=weights_B1,
            denominator=total,
        )[0]

    def _policy_loss(
        self, rows: Sequence[int], logprobs_BA: Tensor, mask_BA: Tensor, total: float
    ) -> tuple[Tensor, Stats]:
        settings = self.settings
        advantages_BA = _part(self.advantages_NA, rows, mask_BA)
        start_BA = _part(self.answers.start_NA, rows, mask_BA)
        behaviour_BA = _part(self.behaviour_NA, rows, mask_BA)
        if settings.correction == "decoupled":
            return policy_losses.decoupled_ppo_loss(
                logprobs_BA,
                start_BA,
                behaviour_BA,
                advantages_BA,
                mask_BA,
                clip=settings.clip,
                max_weight=settings.max_weight,
                reject_above=settings.reject_above,
                dual_clip=settings.dual_clip,
                denominator=total,
            )
        return policy_losses.ppo_loss(
            logprobs_BA,
            behaviour_BA if settings.correction == "behaviour" else start_BA,
            advantages_BA,
            mask_BA,
            clip=settings.clip,
            dual_clip=settings.dual_clip,
            denominator=total,
        )


@dataclass(frozen=True, slots=True)
class Pairs:
    """A chosen and a rejected answer to one prompt: two rows a unit."""

    answers: Answers
    units: Sequence[Unit]
    settings: PolicyTraining
    entropies: bool = False

    def shared(self, rows: Sequence[int], sums: Sums) -> Shared:
        return Shared(len(rows) // 2)

    def loss(self, rows: Sequence[int], outputs: Outputs, mask_BA: Tensor, shared: Shared) -> tuple[Tensor, Stats]:
        logprobs_P2 = row_sums(outputs.logprobs_BA, mask_BA).reshape(-1, 2)
        reference_P2 = row_sums(_part(self.answers.reference_NA, rows, mask_BA), mask_BA).reshape(-1, 2)
        loss, stats = preference_losses.dpo_loss(
            *logprobs_P2.unbind(1),
            *reference_P2.unbind(1),
            beta=self.settings.beta,
            kind=self.settings.dpo_loss,
            denominator=shared.denominator,
        )
        return loss, stats | {"policy_loss": loss.detach()}


@dataclass(frozen=True, slots=True)
class Labels:
    """Answers with a label. `others` are the same prompts with answers to other prompts, from which the reference
    point, KL(π ‖ π_ref), is estimated anew for each minibatch, as KTO's authors do; empty where all prompts are one."""

    answers: Answers
    others: Answers
    desirable_N: Tensor
    settings: PolicyTraining
    entropies: bool = False

    @property
    def units(self) -> Sequence[Unit]:
        return [(row,) for row in range(len(self.answers.pairs))]

    def shared(self, rows: Sequence[int], sums: Sums) -> Shared:
        if not self.others.pairs:
            return Shared(len(rows))
        reference_N = row_sums(self.others.reference_NA, self.others.mask_NA)[list(rows)]
        return Shared(len(rows), (sums(self.others, rows) - reference_N).mean().item())

    def loss(self, rows: Sequence[int], outputs: Outputs, mask_BA: Tensor, shared: Shared) -> tuple[Tensor, Stats]:
        desirable_N, count = self.desirable_N, len(self.desirable_N)
        good = max(1, int(desirable_N.sum()))
        loss, stats = preference_losses.kto_loss(
            row_sums(outputs.logprobs_BA, mask_BA),
            row_sums(_part(self.answers.reference_NA, rows, mask_BA), mask_BA),
            desirable_N[list(rows)].to(mask_BA.device),
            shared.reference_point,
            beta=self.settings.beta,
            # Both kinds weigh the same together: λ_D n_D = λ_U n_U, the paper's section 4.2.
            desirable_weight=count / (2 * good),
            undesirable_weight=count / (2 * max(1, count - good)),
            denominator=shared.denominator,
        )
        # Not a mean over the micro-batch, as all else is that is added up.
        del stats["reference_point"]
        return loss, stats | {"policy_loss": loss.detach()}


@dataclass(frozen=True, slots=True)
class Imitation:
    """Answers to be made more likely, with the log-likelihood of their tokens as the loss."""

    answers: Answers
    units: Sequence[Unit]
    entropies: bool = False

    def shared(self, rows: Sequence[int], sums: Sums) -> Shared:
        return Shared(int(self.answers.mask_NA[list(rows)].sum()))

    def loss(self, rows: Sequence[int], outputs: Outputs, mask_BA: Tensor, shared: Shared) -> tuple[Tensor, Stats]:
        loss, stats = policy_losses.nll_loss(outputs.logprobs_BA, mask_BA, denominator=shared.denominator)
        return loss, stats | {"policy_loss": loss.detach()}


@dataclass(frozen=True, slots=True)
class Rewards:
    """What answers are worth to an update: `shaped_N` the clipped score less the penalty for not ending by itself,
    `kl_NA` the k1 of each token, `total_N` the one less β times the sum of the other."""

    shaped_N: Tensor
    kl_NA: Tensor
    total_N: Tensor


def rewards_of(
    answers: Answers, rollouts: Sequence[ScoredRollout], kl_coef: float, settings: PolicyTraining
) -> Rewards:
    score_N = torch.tensor([scored.score for scored in rollouts])
    cut_N = torch.tensor([not scored.rollout.finished for scored in rollouts])
    shaped_N = score_N.clamp(-settings.reward_clip, settings.reward_clip) - settings.missing_eos_penalty * cut_N
    kl_NA = kl.k1(answers.start_NA, answers.reference_NA)
    return Rewards(shaped_N, kl_NA, shaped_N - kl_coef * row_sums(kl_NA, answers.mask_NA))


def behaviour_of(answers: Answers, rollouts: Sequence[ScoredRollout]) -> Tensor:
    """The log-probabilities that the tokens were sampled with, (N, A)."""
    width = answers.mask_NA.shape[1]
    rows = [scored.rollout.logprobs for scored in rollouts]
    return torch.tensor([[*logprobs, *[0.0] * (width - len(logprobs))] for logprobs in rows])


def policy_gradient(
    algorithm: Algorithm,
    answers: Answers,
    rollouts: Sequence[ScoredRollout],
    rewards: Rewards,
    kl_coef: float,
    baseline: RunningMean,
    settings: PolicyTraining,
) -> PolicyGradient:
    """PPO's advantages are those of tokens, by GAE, whitened; the others' are those of whole answers, the KL of which
    is paid by the answer, and are not whitened.

    A KL *loss* is scaled as the advantages are, so that β means the same as in the reward: by 1/σ for each whitening,
    by 1 − 1/n for the mean of a group of n, which GRPO's contain. Its division by each group's deviation is left alone,
    and undoes whitening.
    """
    mask_NA = answers.mask_NA
    in_reward = settings.kl_in == "reward"
    kl_weight, returns_NA = 0.0 if in_reward else kl_coef, None
    if algorithm == "ppo":
        rewards_NA = advantages.token_rewards(rewards.shaped_N, rewards.kl_NA, mask_NA, kl_coef if in_reward else 0.0)
        rewards_NA, scale = _whitened(rewards_NA, mask_NA, settings)
        raw_NA, returns_NA = advantages.gae(
            rewards_NA, answers.values_NA, mask_NA, gamma=settings.gamma, gae_lambda=settings.gae_lambda
        )
        advantages_NA = whiten(raw_NA, mask_NA)
        kl_weight *= scale * _scale(raw_NA, mask_NA)
    else:
        reward_N = rewards.total_N if in_reward else rewards.shaped_N
        if algorithm == "reinforce":
            reward_N = advantages.reinforce(reward_N, baseline.mean)
        reward_N, scale = _whitened(reward_N, torch.ones_like(reward_N, dtype=torch.bool), settings)
        if algorithm != "grpo" or not settings.grpo_std:
            kl_weight *= scale
        groups_N = _groups(rollouts)
        match algorithm:
            case "grpo":
                advantages_N = advantages.grpo(reward_N, groups_N, std=settings.grpo_std)
                kl_weight *= 1 - len(groups_N.unique()) / len(groups_N)
            case "rloo":
                advantages_N = advantages.rloo(reward_N, groups_N)
            case _:
                advantages_N = reward_N
        advantages_NA = advantages.per_token(advantages_N, mask_NA)
    return PolicyGradient(answers, behaviour_of(answers, rollouts), advantages_NA, returns_NA, kl_weight, settings)


def _whitened(rewards: Tensor, mask: Tensor, settings: PolicyTraining) -> tuple[Tensor, float]:
    """As the settings say, and what that multiplied their differences by."""
    if settings.whiten_rewards == "off":
        return rewards, 1.0
    return whiten(rewards, mask, shift_mean=settings.whiten_rewards == "shift"), _scale(rewards, mask)


def _scale(values: Tensor, mask: Tensor) -> float:
    """1/σ, by which `whiten` multiplies."""
    return torch.rsqrt(masked_variance(values, mask) + 1e-8).item()


def _groups(rollouts: Sequence[ScoredRollout]) -> Tensor:
    """The number of each answer's prompt."""
    groups_N = torch.zeros(len(rollouts), dtype=torch.long)
    for number, rows in enumerate(groups(scored.rollout.prompt_token_ids for scored in rollouts)):
        groups_N[rows] = number
    return groups_N


def best_and_worst(
    answers: Answers, rollouts: Sequence[ScoredRollout], rewards: Rewards, settings: PolicyTraining
) -> tuple[Pairs, int]:
    """A pair of each prompt's answers; and how many answers have no pair, since all to their prompt are worth the same.

    They are told apart by what they are worth without the KL, which is in the loss.
    """
    prompts = [scored.rollout.prompt_token_ids for scored in rollouts]
    kept, left_out = drop_tied_groups(prompts, rewards.shaped_N.tolist())
    units = [(rows[int(rewards.shaped_N[rows].argmax())], rows[int(rewards.shaped_N[rows].argmin())]) for rows in kept]
    return Pairs(answers, units, settings), left_out["tied"]


def best_of_each(answers: Answers, rollouts: Sequence[ScoredRollout], rewards: Rewards) -> Imitation:
    """Rejection-sampling fine-tuning: the answer to each prompt that is worth most, the first of several."""
    best_N = advantages.best_of_group(rewards.shaped_N, _groups(rollouts))
    return Imitation(answers, [(row,) for row in best_N.nonzero().flatten().tolist()])


def demonstrations(pairs: Sequence[Pair]) -> Imitation:
    """People's own answers, at temperature 1. Nothing needs to be measured for imitating them."""
    width = max(len(answer) for _, answer in pairs)
    mask_NA = torch.arange(width) < torch.tensor([len(answer) for _, answer in pairs]).unsqueeze(1)
    nothing_NA = torch.zeros(mask_NA.shape)
    answers = Answers(pairs, torch.ones(len(pairs)), mask_NA, nothing_NA, nothing_NA, nothing_NA)
    return Imitation(answers, [(row,) for row in range(len(pairs))])


def of_other_prompts(labelled: Sequence[LabelledAnswer]) -> list[Pair]:
    """Each prompt with the next answer that was given to another prompt; none if all prompts are the same."""
    count = len(labelled)
    pairs: list[Pair] = []
    for row, item in enumerate(labelled):
        later = (labelled[(row + step) % count] for step in range(1, count))
        other = next((found for found in later if found.prompt_token_ids != item.prompt_token_ids), None)
        if other is None:
            return []
        pairs.append((item.prompt_token_ids, other.token_ids))
    return pairs
