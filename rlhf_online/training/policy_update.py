"""One update of the policy on scored answers, or on labelled ones.

    answers ──▶ usable? ──▶ measure: policy, reference, values ──▶ objective (`objectives`) ──▶ passes of minibatches
                                                                                                  │
                                            kept, or undone: not finite, too far, out of memory ◀─┘

A token's ratio is against the log-probability that it was *sampled* with, so that an answer of an older version is
corrected exactly; where trainer and engine agree it is 1 as the update begins.

Shapes: N answers, A tokens of the longest, B answers of a micro-batch. Invariants: micro-batches add up to exactly the
gradient of their minibatch, also when memory runs out and they are cut anew; an update whose numbers are not finite, or
that moved the policy by more than `max_step_kl` nats, leaves all as it was; every random choice comes from the seed and
the number of updates that were kept.
"""

import math
from collections import Counter
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from rlhf_online.algorithms import kl
from rlhf_online.algorithms.advantages import RunningMean
from rlhf_online.algorithms.masked import masked_mean, masked_sum
from rlhf_online.models import trunk
from rlhf_online.models.limits import ModelLimits
from rlhf_online.models.policy import Policy
from rlhf_online.models.tokens import Pair
from rlhf_online.rollout.eligibility import drop_singleton_groups, usable_labels, usable_rollouts
from rlhf_online.rollout.types import LabelledAnswer, ScoredRollout
from rlhf_online.training import distributed
from rlhf_online.training.optimiser import NamedAdam
from rlhf_online.training.policy import objectives
from rlhf_online.training.policy.average import WeightAverage
from rlhf_online.training.policy.micro_batches import MicroBatches, out_of_memory
from rlhf_online.training.policy.objectives import Answers, Objective, Rewards, Unit
from rlhf_online.training.policy.settings import Algorithm, PolicyStage, PolicyTraining

PENALISED = frozenset({"ppo", "grpo", "rloo", "reinforce"})
"""Algorithms that pay for the KL with the controller's coefficient; the others hold to the reference by their loss."""
GROUPED = frozenset({"grpo", "rloo", "online-dpo", "best-of-n"})
"""Algorithms that compare the answers to one prompt."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyReport:
    """What an update did. `kl` is nats an answer from the reference as the update began (k1 on its answers), `step_kl`
    nats an answer from before to after it (k3), `reward` the mean score less β·KL, `score` before clip and penalty."""

    algorithm: Algorithm = "ppo"
    kl: float = 0.0
    step_kl: float = 0.0
    reward: float = 0.0
    score: float = 0.0
    length: float = 0.0
    behaviour_k3: float = 0.0
    """Mean k3 a token between the sampling and the policy as the update began: staleness, or engine and trainer."""
    kl_coef: float = 0.0
    rollouts: int = 0
    """Answers that could be learned from; of online-dpo and best-of-n those that the best were chosen among."""
    left_out: dict[str, int] = field(default_factory=dict)
    """Answers that were not, by the reasons of `rollout.eligibility`."""
    stats: dict[str, float] = field(default_factory=dict)
    """What the losses said, means over the steps: `policy_loss`, and others by algorithm."""
    undone: bool = False
    reason: str = ""
    """Why it was undone, or learned nothing."""


class PolicyUpdater:
    """Trains `policy` in place."""

    def __init__(
        self, policy: Policy, settings: PolicyTraining, seed: int, demonstrations: Sequence[Pair] = ()
    ) -> None:
        """`demonstrations` are those of the PTX mix."""
        self.policy = policy
        self.updates = 0
        """Updates that were kept."""
        self.controller = kl.KLController(settings.kl_coef, settings.kl_target, settings.kl_horizon)
        self.baseline = RunningMean()
        self.value_ready = False
        self._settings = settings
        self._seed = seed
        self._passes = MicroBatches(policy, policy.token_budget(settings.micro_batch_tokens))
        self._ptx = objectives.demonstrations(demonstrations) if settings.ptx_coef and demonstrations else None
        self._average = WeightAverage(policy.parameters(), settings.ema) if settings.ema else None
        own, value = policy.parameters(), {f"value.{n}": p for n, p in policy.value_parameters().items()}
        rates = dict.fromkeys(own, settings.lr) | dict.fromkeys(value, settings.value_lr)
        self._adam = NamedAdam(own | value, rates, betas=(0.9, 0.999), eps=1e-5)

    @property
    def algorithm(self) -> Algorithm:
        """That of the next update."""
        return self._stage().algorithm

    def init_value(self, weight_1d: Tensor, bias_1: Tensor) -> bool:
        """Begin with what the reward model says of a state (`RewardModel.linear`) as the value head: once, and not
        before an algorithm needs one. True if it was now."""
        if self.value_ready or self.algorithm != "ppo":
            return False
        with torch.no_grad():
            self.policy.value_head.weight.copy_(weight_1d)
            self.policy.value_head.bias.copy_(bias_1)
        self.value_ready = True
        return True

    def update(self, rollouts: Sequence[ScoredRollout], labelled: Sequence[LabelledAnswer] = ()) -> PolicyReport:
        """One update: of kto on `labelled`, of the others on `rollouts`, which kto needs for measuring the KL alone.

        What cannot be learned from is left out and counted; with nothing left, nothing changes.
        """
        algorithm = self.algorithm
        kept, labels, left_out = self._sort_out(algorithm, rollouts, labelled)
        count = len(labels) if algorithm == "kto" else len(kept)
        report = PolicyReport(algorithm=algorithm, rollouts=count, left_out=dict(left_out))
        if not count:
            return replace(report, reason="no answer that can be learned from")
        before, before_adam = self.policy.state(), self._adam.state()
        try:
            report = self._learn(report, kept, labels)
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
            reason = "out of memory, with one answer at a time: choose a shorter rollout.max_tokens or a smaller model"
            report = replace(report, undone=True, reason=reason)
        if report.undone:
            self.policy.load_state(before)
            self._adam.load_state(before_adam)
        elif report.rollouts:
            self.updates += 1
            if self._average is not None:
                self._average.step()
        return report

    def published(self) -> AbstractContextManager[None]:
        """While the block runs the policy has the weights that are to serve: its own, or their average."""
        return nullcontext() if self._average is None else self._average.in_place()

    def _sort_out(
        self, algorithm: Algorithm, rollouts: Sequence[ScoredRollout], labelled: Sequence[LabelledAnswer]
    ) -> tuple[list[ScoredRollout], list[LabelledAnswer], Counter[str]]:
        limits = ModelLimits(vocabulary=int(self.policy.lm.config.vocab_size), context=self.policy.context)
        kept, left_out = usable_rollouts(rollouts, limits)
        labels: list[LabelledAnswer] = []
        if algorithm == "kto":
            labels, left_out = usable_labels(labelled, limits)
        elif algorithm in GROUPED:
            kept, singletons = drop_singleton_groups(kept)
            left_out += singletons
        return kept, labels, left_out

    def _learn(
        self, report: PolicyReport, kept: Sequence[ScoredRollout], labels: Sequence[LabelledAnswer]
    ) -> PolicyReport:
        """Measure, learn, measure again; the report says whether to keep it."""
        settings = self._settings
        learned = self._measure_labels(labels) if report.algorithm == "kto" else None
        sampled = self._measure_rollouts(kept) if kept else None
        measured = sampled or learned
        assert measured is not None, "kto has labels, the others have rollouts"
        rewards = objectives.rewards_of(sampled, kept, self.controller.coef, settings) if sampled else None
        report = self._describe(report, measured, kept, rewards)
        if learned is not None:
            objective = self._labels(labels, learned)
        else:
            assert sampled is not None and rewards is not None
            objective, tied = self._objective(report.algorithm, sampled, kept, rewards)
            report = replace(report, left_out=report.left_out | ({"tied": tied} if tied else {}))
        if not objective.units:
            return replace(report, rollouts=0, reason="no answer that can be learned from")
        stats = self._train(objective) if math.isfinite(report.reward) else None
        if stats is None:
            return replace(report, undone=True, reason="a loss, a gradient or a score was not finite")
        report = replace(report, stats=stats, step_kl=self._passes.moved(measured))
        if not report.step_kl <= settings.max_step_kl:
            reason = f"the update moved the policy by {report.step_kl:.3g} nats an answer"
            return replace(report, undone=True, reason=f"{reason}, more than {settings.max_step_kl:g}")
        if report.algorithm in PENALISED:
            self.controller = self.controller.after(report.kl, report.rollouts)
        if report.algorithm == "reinforce" and rewards is not None:
            self.baseline = self.baseline.after(rewards.total_N if settings.kl_in == "reward" else rewards.shaped_N)
        return report

    # Before the first step

    def _objective(
        self, algorithm: Algorithm, answers: Answers, rollouts: Sequence[ScoredRollout], rewards: Rewards
    ) -> tuple[Objective, int]:
        """What is learned from, and how many answers a tie leaves out of it."""
        match algorithm:
            case "online-dpo":
                return objectives.best_and_worst(answers, rollouts, rewards, self._settings)
            case "best-of-n":
                return objectives.best_of_each(answers, rollouts, rewards), 0
            case _:
                coef, baseline = self.controller.coef, self.baseline
                return objectives.policy_gradient(
                    algorithm, answers, rollouts, rewards, coef, baseline, self._settings
                ), 0

    def _labels(self, labels: Sequence[LabelledAnswer], answers: Answers) -> Objective:
        pairs = objectives.of_other_prompts(labels)
        others = self._passes.measure(pairs, torch.ones(len(pairs)))
        desirable_N = torch.tensor([item.desirable for item in labels])
        return objectives.Labels(answers, others, desirable_N, self._settings)

    def _describe(
        self, report: PolicyReport, answers: Answers, rollouts: Sequence[ScoredRollout], rewards: Rewards | None
    ) -> PolicyReport:
        count, mask_NA = len(answers.pairs), answers.mask_NA
        kl_NA = kl.k1(answers.start_NA, answers.reference_NA)
        report = replace(
            report,
            kl=masked_sum(kl_NA, mask_NA).item() / count,
            length=mask_NA.sum().item() / count,
            kl_coef=self.controller.coef if report.algorithm in PENALISED else 0.0,
        )
        if rewards is None:
            return report
        behaviour_NA = objectives.behaviour_of(answers, rollouts)
        return replace(
            report,
            reward=rewards.total_N.mean().item(),
            score=sum(scored.score for scored in rollouts) / count,
            behaviour_k3=masked_mean(kl.k3(behaviour_NA, answers.start_NA), mask_NA).item(),
        )

    def _measure_rollouts(self, rollouts: Sequence[ScoredRollout]) -> Answers:
        pairs = [(scored.rollout.prompt_token_ids, scored.rollout.token_ids) for scored in rollouts]
        return self._passes.measure(pairs, torch.tensor([scored.rollout.temperature for scored in rollouts]))

    def _measure_labels(self, labels: Sequence[LabelledAnswer]) -> Answers:
        return self._passes.measure(
            [(item.prompt_token_ids, item.token_ids) for item in labels], torch.ones(len(labels))
        )

    # Learning

    def _train(self, objective: Objective) -> dict[str, float] | None:
        """All passes; the means of their statistics over the steps, or None as soon as a number is not finite."""
        settings, units = self._settings, list(objective.units)
        generator = torch.Generator().manual_seed(self._seed * 1_000_003 + self.updates)
        sums: Counter[str] = Counter()
        steps = 0
        for _ in range(settings.epochs):
            order = torch.randperm(len(units), generator=generator)
            for chunk in order.tensor_split(min(settings.minibatches, len(units))):
                found = self._step(objective, [units[index] for index in chunk.tolist()], generator)
                if found is None:
                    return None
                sums.update(found)
                steps += 1
        return {name: total / steps for name, total in sums.items()}

    def _step(self, objective: Objective, units: Sequence[Unit], generator: torch.Generator) -> dict[str, float] | None:
        """One optimiser step on a minibatch; its statistics, or None if a number is not finite."""
        mixed: list[Unit] = []
        if self._ptx is not None:
            mixed = [self._ptx.units[i] for i in _draw(len(self._ptx.units), len(units), generator)]

        def gradient() -> dict[str, float]:
            self._adam.zero_grad()
            found = self._passes.backward(objective, units)
            if self._ptx is not None:
                found["ptx_loss"] = self._passes.backward(self._ptx, mixed, self._settings.ptx_coef)["policy_loss"]
            return found

        found = distributed.add_up(self._adam.parameters.values(), self._passes.fitting(gradient))
        norm = self._adam.clip(self._settings.max_grad_norm)
        if not all(map(math.isfinite, (norm, *found.values()))):
            return None
        self._adam.step(self._rate())
        return found

    # What depends on the number of updates

    def _stage(self) -> PolicyStage:
        settings, end = self._settings, 0
        for stage in settings.schedule:
            end += stage.updates
            if not stage.updates or self.updates < end:
                return stage
        return settings.schedule[-1] if settings.schedule else PolicyStage(algorithm=settings.algorithm)

    def _rate(self) -> float:
        """What the learning rates are multiplied by."""
        settings = self._settings
        left = 1 - self.updates / settings.lr_decay_updates if settings.lr_decay_updates else 1.0
        return max(0.0, left) * (self._stage().lr or settings.lr) / settings.lr

    # Keeping

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """The policy, value head, optimiser, average, controller and baseline: tensors, and JSON values."""
        tensors = self.policy.state() | trunk.named("adam", self._adam.state())
        if self._average is not None:
            tensors |= trunk.named("average", self._average.state())
        values = {
            "updates": self.updates,
            "kl_coef": self.controller.coef,
            "value_ready": self.value_ready,
            "baseline": [self.baseline.total, self.baseline.weight],
        }
        return tensors, values

    def load_state(self, tensors: dict[str, Tensor], values: dict[str, Any]) -> None:
        """Put back what `state` gave. Raises VersionCorrupt for another model's."""
        self.policy.load_state(tensors)
        self._adam.load_state(trunk.unnamed("adam", tensors))
        if self._average is not None:
            self._average.load_state(trunk.unnamed("average", tensors))
        self.updates, self.value_ready = values["updates"], values["value_ready"]
        self.controller = replace(self.controller, coef=values["kl_coef"])
        total, weight = values["baseline"]
        self.baseline = RunningMean(total=total, weight=weight)


def _draw(total: int, count: int, generator: torch.Generator) -> list[int]:
    """`count` of `total` indices, none twice while there are enough."""
    orders = [torch.randperm(total, generator=generator) for _ in range(-(-count // total))]
    return torch.cat(orders)[:count].tolist()
