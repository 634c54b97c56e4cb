"""One PPO update of the policy on scored answers.

A token's reward is −β (log π − log π_ref), π the policy as the update begins, and the last token's has the score added:
clipped, less a penalty where the answer did not end by itself. GAE makes advantages of it, whitened over all tokens
(biased variance). The ratio of the clipped loss is against the log-probabilities that the answers were *sampled* with,
so that an answer of an older version is corrected exactly; where trainer and engine agree it is 1 as the update begins.

Shapes: N answers, A tokens of the longest, B answers of a micro-batch. Invariants: micro-batches add up to exactly the
gradient of their minibatch; an update whose numbers are not finite, or that moved the policy by more than `max_step_kl`
nats leaves weights and optimiser as they were; every random choice comes from the seed and the number of the update.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from rlhf_online.algorithms import advantages, kl, policy_losses
from rlhf_online.algorithms.masked import masked_mean, masked_sum, whiten
from rlhf_online.config import PolicyTraining
from rlhf_online.errors import InvalidInput
from rlhf_online.models import trunk
from rlhf_online.models.policy import Policy
from rlhf_online.models.reward import RewardModel
from rlhf_online.models.tokens import Batch, by_budget, length
from rlhf_online.rollout.buffer import ScoredRollout
from rlhf_online.training.optimiser import NamedAdam


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyReport:
    """What an update did. `kl` is nats an answer from the reference as the update began (k1 on its answers), `step_kl`
    nats an answer from before to after it (k3), `reward` the mean score less β·KL, `score` before clip and penalty."""

    kl: float = 0.0
    step_kl: float = 0.0
    reward: float = 0.0
    score: float = 0.0
    length: float = 0.0
    clip_fraction: float = 0.0
    policy_loss: float = 0.0
    value_loss: float = 0.0
    behaviour_k3: float = 0.0
    """Mean k3 a token between the sampling and the policy as the update began: staleness, or engine and trainer."""
    kl_coef: float = 0.0
    rollouts: int = 0
    undone: bool = False
    reason: str = ""


@dataclass(frozen=True, slots=True)
class _Experience:
    """The answers of an update in (N, A) tensors on the CPU, before the first step."""

    old_logprobs_NA: Tensor
    start_logprobs_NA: Tensor
    values_NA: Tensor
    advantages_NA: Tensor
    returns_NA: Tensor
    mask_NA: Tensor
    temperature_N: Tensor


class PolicyUpdater:
    """Trains `policy` in place."""

    def __init__(self, policy: Policy, settings: PolicyTraining, seed: int) -> None:
        self.policy = policy
        self.updates = 0
        self.controller = kl.KLController(settings.kl_coef, settings.kl_target, settings.kl_horizon)
        self.value_ready = False
        self._settings = settings
        self._seed = seed
        own, value = policy.parameters(), {f"value.{n}": p for n, p in policy.value_parameters().items()}
        rates = dict.fromkeys(own, settings.lr) | dict.fromkeys(value, settings.value_lr)
        self._adam = NamedAdam(own | value, rates, betas=(0.9, 0.999), eps=1e-5)

    def init_value(self, reward_model: RewardModel) -> None:
        """Begin with the mean of the reward heads, in the unit of the scores, as the value head (once)."""
        if self.value_ready:
            return
        with torch.no_grad():
            head = self.policy.value_head
            head.weight.copy_(reward_model.heads.weight.mean(0, keepdim=True) / reward_model.std)
            offset = reward_model.heads.bias.mean() - reward_model.mean_K.mean()
            head.bias.copy_((offset / reward_model.std).reshape(1))
        self.value_ready = True

    def update(self, rollouts: Sequence[ScoredRollout]) -> PolicyReport:
        """Raises InvalidInput for no rollouts, or one that is empty or was sampled greedily."""
        self._check(rollouts)
        before, before_adam = self.policy.state(), self._adam.state()
        experience, report = self._experience(rollouts)
        losses_seen = self._learn(rollouts, experience) if math.isfinite(report.reward) else None
        if losses_seen is None:
            report = replace(report, undone=True, reason="a loss, a gradient or a score was not finite")
        else:
            step_kl = self._step_kl(rollouts, experience)
            report = replace(report, step_kl=step_kl, **losses_seen)
            if not step_kl <= self._settings.max_step_kl:
                reason = f"the update moved the policy by {step_kl:.3g} nats an answer"
                report = replace(report, undone=True, reason=f"{reason}, more than {self._settings.max_step_kl:g}")
        if report.undone:
            self.policy.load_state(before)
            self._adam.load_state(before_adam)
        else:
            self.controller = self.controller.after(report.kl, len(rollouts))
        self.updates += 1
        return report

    def _check(self, rollouts: Sequence[ScoredRollout]) -> None:
        if not rollouts:
            raise InvalidInput("a policy update needs at least one answer")
        for rollout in (scored.rollout for scored in rollouts):
            if not rollout.token_ids or len(rollout.logprobs) != len(rollout.token_ids) or rollout.temperature <= 0:
                raise InvalidInput(
                    f"rollout {rollout.rollout_id}: it needs tokens, a log-prob for each, and a temperature above 0"
                )

    @torch.no_grad()
    def _experience(self, rollouts: Sequence[ScoredRollout]) -> tuple[_Experience, PolicyReport]:
        settings, coef = self._settings, self.controller.coef
        width = max(len(scored.rollout.token_ids) for scored in rollouts)
        shape = (len(rollouts), width)
        start_NA, reference_NA, values_NA = torch.zeros(shape), torch.zeros(shape), torch.zeros(shape)
        old_NA = torch.zeros(shape)
        mask_NA = torch.zeros(shape, dtype=torch.bool)
        temperature_N = torch.tensor([scored.rollout.temperature for scored in rollouts])
        for rows in self._micro_batches(rollouts, range(len(rollouts))):
            batch, size = self._batch(rollouts, rows)
            temperature_B = temperature_N[rows].to(self.policy.device)
            logprobs_BA, values_BA = self.policy.forward(batch, temperature_B)
            start_NA[rows, :size], values_NA[rows, :size] = logprobs_BA.cpu(), values_BA.float().cpu()
            reference_NA[rows, :size] = self.policy.reference_logprobs(batch, temperature_B).cpu()
            mask_NA[rows, :size] = batch.mask_BA.cpu()
        for row, scored in enumerate(rollouts):
            old_NA[row, : len(scored.rollout.logprobs)] = torch.tensor(scored.rollout.logprobs)
        score_N = torch.tensor([scored.score for scored in rollouts])
        finished_N = torch.tensor([scored.rollout.finished for scored in rollouts])
        shaped_N = score_N.clamp(-settings.reward_clip, settings.reward_clip)
        shaped_N = shaped_N - settings.missing_eos_penalty * ~finished_N
        kl_NA = kl.k1(start_NA, reference_NA)
        rewards_NA = advantages.token_rewards(shaped_N, kl_NA, mask_NA, coef)
        advantages_NA, returns_NA = advantages.gae(
            rewards_NA, values_NA, mask_NA, gamma=settings.gamma, gae_lambda=settings.gae_lambda
        )
        experience = _Experience(
            old_NA, start_NA, values_NA, whiten(advantages_NA, mask_NA), returns_NA, mask_NA, temperature_N
        )
        count = len(rollouts)
        return experience, PolicyReport(
            kl=masked_sum(kl_NA, mask_NA).item() / count,
            reward=rewards_NA.sum().item() / count,
            score=score_N.mean().item(),
            length=mask_NA.sum().item() / count,
            behaviour_k3=masked_mean(kl.k3(old_NA, start_NA), mask_NA).item(),
            kl_coef=coef,
            rollouts=count,
        )

    def _learn(self, rollouts: Sequence[ScoredRollout], experience: _Experience) -> dict[str, float] | None:
        """All passes; the means over the steps of what a report says, or None as soon as a number is not finite."""
        settings = self._settings
        generator = torch.Generator().manual_seed(self._seed * 1_000_003 + self.updates)
        sums: dict[str, float] = {"policy_loss": 0.0, "value_loss": 0.0, "clip_fraction": 0.0}
        steps = 0
        for _ in range(settings.epochs):
            order = torch.randperm(len(rollouts), generator=generator)
            for chunk in order.tensor_split(min(settings.minibatches, len(rollouts))):
                found = self._step(rollouts, chunk.tolist(), experience)
                if found is None:
                    return None
                sums = {name: total + found[name] for name, total in sums.items()}
                steps += 1
        return {name: total / steps for name, total in sums.items()}

    def _step(
        self, rollouts: Sequence[ScoredRollout], rows: list[int], experience: _Experience
    ) -> dict[str, float] | None:
        """One optimiser step on a minibatch, in micro-batches; None if it is not finite."""
        settings, tokens = self._settings, int(experience.mask_NA[rows].sum())
        sums = {"policy_loss": 0.0, "value_loss": 0.0, "clip_fraction": 0.0}
        self._adam.zero_grad()
        for micro in self._micro_batches(rollouts, rows):
            batch, size = self._batch(rollouts, micro)

            def part(tensor_NA: Tensor, micro: list[int] = micro, size: int = size) -> Tensor:
                return tensor_NA[micro, :size].to(self.policy.device)

            logprobs_BA, values_BA = self.policy.forward(batch, experience.temperature_N[micro].to(self.policy.device))
            policy_loss, stats = policy_losses.ppo_loss(
                logprobs_BA,
                part(experience.old_logprobs_NA),
                part(experience.advantages_NA),
                batch.mask_BA,
                clip=settings.clip,
                denominator=tokens,
            )
            value_loss, _ = policy_losses.value_loss(
                values_BA.float(),
                part(experience.values_NA),
                part(experience.returns_NA),
                batch.mask_BA,
                clip=settings.value_clip,
                denominator=tokens,
            )
            (policy_loss + settings.value_coef * value_loss).backward()
            sums["policy_loss"] += policy_loss.item()
            sums["value_loss"] += value_loss.item()
            sums["clip_fraction"] += stats["clip_fraction"].item()
        norm = self._adam.clip(settings.max_grad_norm)
        if not all(map(math.isfinite, (norm, *sums.values()))):
            return None
        self._adam.step()
        return sums

    @torch.no_grad()
    def _step_kl(self, rollouts: Sequence[ScoredRollout], experience: _Experience) -> float:
        total = 0.0
        for rows in self._micro_batches(rollouts, range(len(rollouts))):
            batch, size = self._batch(rollouts, rows)
            logprobs_BA, _ = self.policy.forward(batch, experience.temperature_N[rows].to(self.policy.device))
            start_BA = experience.start_logprobs_NA[rows, :size].to(logprobs_BA)
            total += masked_sum(kl.k3(start_BA, logprobs_BA), batch.mask_BA).item()
        return total / len(rollouts)

    def _batch(self, rollouts: Sequence[ScoredRollout], rows: Sequence[int]) -> tuple[Batch, int]:
        """The rows' batch, and how many answer tokens wide it is."""
        chosen = [rollouts[row].rollout for row in rows]
        batch = self.policy.collate([(rollout.prompt_token_ids, rollout.token_ids) for rollout in chosen])
        return batch, batch.mask_BA.shape[1]

    def _micro_batches(self, rollouts: Sequence[ScoredRollout], rows: Sequence[int]) -> list[list[int]]:
        limit = self.policy.token_budget(self._settings.micro_batch_tokens)
        lengths = [length((rollouts[row].rollout.prompt_token_ids, rollouts[row].rollout.token_ids)) for row in rows]
        return [[rows[index] for index in group] for group in by_budget(lengths, limit)]

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """The policy, the value head, the optimiser and the controller: tensors, and JSON values."""
        tensors = self.policy.state() | trunk.named("adam", self._adam.state())
        values = {"updates": self.updates, "kl_coef": self.controller.coef, "value_ready": self.value_ready}
        return tensors, values

    def load_state(self, tensors: dict[str, Tensor], values: dict[str, Any]) -> None:
        """Put back what `state` gave. Raises VersionCorrupt for another model's."""
        self.policy.load_state(tensors)
        self._adam.load_state(trunk.unnamed("adam", tensors))
        self.updates, self.value_ready = values["updates"], values["value_ready"]
        self.controller = replace(self.controller, coef=values["kl_coef"])
