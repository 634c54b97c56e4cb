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
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from rlhf_online.algorithms.advantages import RunningMean
from rlhf_online.algorithms.masked import masked_mean
from rlhf_online.models import precision, trunk
from rlhf_online.models.policy import Policy
from rlhf_online.models.tokens import Pair
from rlhf_online.rollout.eligibility import drop_singleton_groups, usable_labels, usable_rollouts
from rlhf_online.rollout.types import LabelledAnswer, ScoredRollout
from rlhf_online.training import distributed
from rlhf_online.training.optimiser import NamedAdam, NoRoomForCopy, OnStep, unseen
from rlhf_online.training.policy import mismatch, objectives
from rlhf_online.training.policy.algorithms import AnyAlgorithm
from rlhf_online.training.policy.algorithms.base import FromLabels
from rlhf_online.training.policy.average import WeightAverage
from rlhf_online.training.policy.measured import AlgorithmState, LabelledAnswers, MeasuredAnswers, ScoredAnswers
from rlhf_online.training.policy.micro_batches import MicroBatches, out_of_memory
from rlhf_online.training.policy.mismatch import Mismatch
from rlhf_online.training.policy.objectives import Example, Objective
from rlhf_online.training.policy.settings import PolicyTraining


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyReport:
    """What an update did. `kl` is nats an answer from the reference as the update began (on its answers), `step_kl`
    nats an answer from before to after it (k3), `reward` the mean score less β·KL, `score` before clip and penalty."""

    algorithm: str = ""
    kl: float = 0.0
    step_kl: float = 0.0
    reward: float = 0.0
    score: float = 0.0
    length: float = 0.0
    behaviour_k3: float = 0.0
    """Mean k3 a token between the sampling and the policy as the update began: staleness, or engine and trainer."""
    mismatch: dict[str, Mismatch] = field(default_factory=dict)
    """The same by the version that wrote the answers."""
    sampling_entropy: float = math.nan
    """Of what the answers were sampled from, nats a token: −log p of their tokens by that; NaN without such."""
    kl_coef: float = 0.0
    rollouts: int = 0
    """Answers that could be learned from, those included that an algorithm chose the best among."""
    learned: tuple[str, ...] = ()
    """Which: their rollout ids, or the event ids of the labels."""
    left_out: dict[str, int] = field(default_factory=dict)
    """Answers that were not, by the reasons of `rollout.eligibility`."""
    stats: dict[str, float] = field(default_factory=dict)
    """What the losses said, and `grad_norm`, the norm of the gradient before it was clipped, means over the steps:
    `policy_loss`, and others by algorithm; and the objective's facts."""
    undone: bool = False
    reason: str = ""
    """Why it was undone, or learned nothing."""


class PolicyUpdater:
    """Trains `policy` in place."""

    def __init__(
        self,
        policy: Policy,
        settings: PolicyTraining,
        seed: int,
        demonstrations: Sequence[Pair] = (),
        *,
        moments_on_cpu: bool = False,
    ) -> None:
        """`demonstrations` are those of the PTX mix. Raises NotEnoughRoom."""
        self.policy = policy
        self.updates = 0
        """Updates that were kept."""
        self.algorithm_state = AlgorithmState()
        self.value_ready = False
        self._settings = settings
        self._seed = seed
        self._passes = MicroBatches(policy, settings.micro_batch_tokens)
        self._ptx = objectives.demonstrations(demonstrations) if settings.ptx_coef and demonstrations else None
        self._average = WeightAverage(policy.parameters(), settings.ema) if settings.ema else None
        value = {f"value.{name}": parameter for name, parameter in policy.value_head.named_parameters()}
        self._adam = NamedAdam(policy.parameters(), value, betas=(0.9, 0.999), eps=1e-5, on_cpu=moments_on_cpu)
        self._undo: Callable[[], None] = _nothing
        """Takes the steps of the update that runs back."""

    @property
    def algorithm(self) -> AnyAlgorithm:
        """That of the next update."""
        return self._settings.stage(self.updates).algorithm

    def init_value(self, weight_1d: Tensor, bias_1: Tensor) -> bool:
        """Begin with what the reward model says of a state (`RewardModel.linear`) as the value head: once, and not
        before an algorithm needs one. True if it was now."""
        if self.value_ready or not self.algorithm.needs.critic:
            return False
        with torch.no_grad():
            self.policy.value_head.weight.copy_(weight_1d)
            self.policy.value_head.bias.copy_(bias_1)
        self.value_ready = True
        return True

    def update(
        self, rollouts: Sequence[ScoredRollout], labelled: Sequence[LabelledAnswer] = (), on_step: OnStep = unseen
    ) -> PolicyReport:
        """One update, on `labelled` where the algorithm learns from labels, and else on `rollouts`, which the other
        kind takes only to measure the KL.

        What cannot be learned from is left out and counted; with nothing left, nothing changes. `on_step` is told how
        far the steps have come; before the first one policy and reference read all answers, after the last one the
        policy some of them.
        """
        algorithm = self.algorithm
        kept, labels, left_out = self._usable(algorithm, rollouts, labelled)
        ids = (
            [item.event_id for item in labels] if algorithm.needs.labels else [item.rollout.rollout_id for item in kept]
        )
        report = PolicyReport(algorithm=algorithm.name, rollouts=len(ids), learned=tuple(ids), left_out=dict(left_out))
        if not ids:
            return replace(report, reason="no answer that can be learned from")
        try:
            with self.policy.lower.kept():
                report = self._learn(algorithm, report, kept, labels, on_step)
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
            reason = "out of memory, with one answer at a time: choose a shorter rollout.max_tokens or a smaller model"
            reason = str(error) if isinstance(error, NoRoomForCopy) else reason
            report = replace(report, undone=True, reason=reason)
        self._adam.zero_grad()  # as large as the weights, and of no use to the reward model's update
        undo, self._undo = self._undo, _nothing
        if report.undone:
            undo()
        elif report.rollouts:
            self.updates += 1
            if self._average is not None:
                self._average.step()
            if self.algorithm is not algorithm:
                # A stage begins: an adaptive β begins at what this stage says.
                self.algorithm_state = replace(self.algorithm_state, kl_coef=None)
        return report

    def fingerprint(self) -> str:
        """Of all that an update changes of the model: equal in processes that learned the same."""
        return distributed.fingerprint(self._adam.parameters)

    @contextmanager
    def published(self, *, reference: bool = False) -> Iterator[None]:
        """While the block runs the policy has the weights that are to serve: its own, or their average, as a version
        holds them. Where it is in pieces it is whole meanwhile, and with `reference` that, too."""
        policy, average = self.policy, nullcontext() if self._average is None else self._average.in_place()
        whole = policy.shards.gathered() if reference else policy.shards.gathered("policy")
        with average, precision.rounded(policy.parameters(), policy.written), whole:
            yield

    def _usable(
        self, algorithm: AnyAlgorithm, rollouts: Sequence[ScoredRollout], labelled: Sequence[LabelledAnswer]
    ) -> tuple[list[ScoredRollout], list[LabelledAnswer], Counter[str]]:
        limits = self.policy.limits
        kept, left_out = usable_rollouts(rollouts, limits)
        labels: list[LabelledAnswer] = []
        if algorithm.needs.labels:
            labels, left_out = usable_labels(labelled, limits)
        elif algorithm.needs.groups:
            kept, singletons = drop_singleton_groups(kept)
            left_out += singletons
        return kept, labels, left_out

    def _learn(
        self,
        algorithm: AnyAlgorithm,
        report: PolicyReport,
        kept: Sequence[ScoredRollout],
        labels: Sequence[LabelledAnswer],
        on_step: OnStep,
    ) -> PolicyReport:
        """Measure, learn, measure again; the report says whether to keep it."""
        scored, state = self._scored(kept), self.algorithm_state
        if isinstance(algorithm, FromLabels):
            learned = self._labelled(labels)
            objective, measured = algorithm.objective(learned), learned.measured if scored is None else scored.measured
        else:
            assert scored is not None, "without an answer nothing is learned"
            objective, measured = algorithm.objective(scored, state), scored.measured
        report = self._describe(algorithm, report, measured, scored)
        score = sum(item.score for item in kept) / len(kept) if kept else 0.0
        report = replace(report, score=score, left_out=report.left_out | dict(objective.left_out))
        if not objective.examples:
            return replace(report, rollouts=0, reason="no answer that can be learned from")
        stats = self._train(objective, on_step) if math.isfinite(report.reward) else None
        if stats is None:
            return replace(report, undone=True, reason="a loss, a gradient or a score was not finite")
        report = replace(report, stats=stats | dict(objective.facts), step_kl=self._passes.step_kl(measured))
        limit = self._settings.max_step_kl
        if not report.step_kl <= limit:
            reason = f"the update moved the policy by {report.step_kl:.3g} nats an answer, more than {limit:g}"
            return replace(report, undone=True, reason=reason)
        self.algorithm_state = algorithm.state_after(state, scored)
        return report

    # Before the first step

    def _scored(self, rollouts: Sequence[ScoredRollout]) -> ScoredAnswers | None:
        if not rollouts:
            return None
        pairs = [(scored.rollout.prompt_token_ids, scored.rollout.token_ids) for scored in rollouts]
        temperature_N = torch.tensor([scored.rollout.temperature for scored in rollouts])
        return ScoredAnswers.of(self._passes.measure(pairs, temperature_N), rollouts)

    def _labelled(self, labels: Sequence[LabelledAnswer]) -> LabelledAnswers:
        def measure(pairs: Sequence[Pair]) -> MeasuredAnswers:
            return self._passes.measure(pairs, torch.ones(len(pairs)))

        pairs = [(item.prompt_token_ids, item.token_ids) for item in labels]
        return LabelledAnswers(measured=measure(pairs), labelled=labels, measure=measure)

    def _describe(
        self, algorithm: AnyAlgorithm, report: PolicyReport, measured: MeasuredAnswers, scored: ScoredAnswers | None
    ) -> PolicyReport:
        report = replace(
            report,
            kl=measured.mean_kl,
            length=measured.mask_NA.sum().item() / len(measured.pairs),
            kl_coef=algorithm.kl_coefficient(self.algorithm_state),
        )
        if scored is None:
            return report
        found = mismatch.by_version(measured.start_NA, scored.behaviour_NA, measured.mask_NA, scored.version_N)
        whole = mismatch.together(found.values())
        return replace(
            report,
            reward=algorithm.rewards(scored, self.algorithm_state).mean().item(),
            behaviour_k3=0.0 if whole is None else whole.k3,
            mismatch=found,
            sampling_entropy=-masked_mean(scored.behaviour_NA, measured.mask_NA).item(),
        )

    # Learning

    def _train(self, objective: Objective, on_step: OnStep) -> dict[str, float] | None:
        """All passes; the means of their statistics over the steps, or None as soon as a number is not finite."""
        settings, examples = self._settings, objective.examples
        generator = torch.Generator().manual_seed(self._seed * 1_000_003 + self.updates)
        sums: Counter[str] = Counter()
        minibatches, steps = min(settings.minibatches, len(examples)), 0
        on_step(steps, settings.epochs * minibatches)
        self._undo = self._adam.snapshot()
        self._passes.make_room(self._adam.to_come())
        for _ in range(settings.epochs):
            order = torch.randperm(len(examples), generator=generator)
            for chunk in order.tensor_split(minibatches):
                found = self._step(objective, [examples[index] for index in chunk.tolist()], generator)
                if found is None:
                    return None
                sums.update(found)
                steps += 1
                on_step(steps, settings.epochs * minibatches)
        return {name: total / steps for name, total in sums.items()}

    def _step(
        self, objective: Objective, examples: Sequence[Example], generator: torch.Generator
    ) -> dict[str, float] | None:
        """One optimiser step on a minibatch; its statistics, or None if a number is not finite."""
        mixed: list[Example] = []
        if self._ptx is not None:
            mixed = [self._ptx.examples[i] for i in _draw(len(self._ptx.examples), len(examples), generator)]

        def gradient() -> dict[str, float]:
            self._adam.zero_grad()
            found = self._passes.backward(objective, examples)
            if self._ptx is not None:
                found["ptx_loss"] = self._passes.backward(self._ptx, mixed, self._settings.ptx_coef)["policy_loss"]
            return found

        in_step = self.policy.shards.cut
        work = gradient if in_step else lambda: self._passes.fitting(gradient)
        found = distributed.together(work, "the policy's step", in_step=in_step)
        found = distributed.all_reduce(self._adam.parameters.values(), found)
        norm = self._adam.clip(self._settings.max_grad_norm)
        if not all(map(math.isfinite, (norm, *found.values()))):
            return None
        found["grad_norm"] = norm
        settings, updates = self._settings, self.updates
        self._adam.step(settings.lr * settings.rate(updates), self.algorithm.critic_lr * settings.decay(updates))
        return found

    # Keeping

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """The policy, value head, optimiser, average, controller and baseline: tensors, and JSON values."""
        tensors = self.policy.state() | trunk.below("adam", self._adam.state())
        if self._average is not None:
            tensors |= trunk.below("average", self._average.state())
        return tensors, values(self)

    def load_state(self, tensors: dict[str, Tensor], values: dict[str, Any]) -> None:
        """Put back what `state` gave. Raises VersionCorrupt for another model's."""
        self.policy.load_state(tensors)
        self._adam.load_state(trunk.unnamed("adam", tensors))
        if self._average is not None:
            self._average.load_state(trunk.unnamed("average", tensors))
        load_values(self, values)


def values(updater: PolicyUpdater) -> dict[str, Any]:
    """What `PolicyUpdater.state` gives besides tensors."""
    return {
        "updates": updater.updates,
        "kl_coef": updater.algorithm_state.kl_coef,
        "value_ready": updater.value_ready,
        "baseline": [updater.algorithm_state.baseline.total, updater.algorithm_state.baseline.weight],
    }


def load_values(updater: PolicyUpdater, values: dict[str, Any]) -> None:
    """Put back what `values` gave."""
    updater.updates, updater.value_ready = values["updates"], values["value_ready"]
    total, weight = values["baseline"]
    updater.algorithm_state = AlgorithmState(
        kl_coef=values["kl_coef"], baseline=RunningMean(total=total, weight=weight)
    )


def _nothing() -> None:
    """Takes back an update that took no step."""


def _draw(total: int, count: int, generator: torch.Generator) -> list[int]:
    """`count` of `total` indices, none twice while there are enough."""
    orders = [torch.randperm(total, generator=generator) for _ in range(-(-count // total))]
    return torch.cat(orders)[:count].tolist()
