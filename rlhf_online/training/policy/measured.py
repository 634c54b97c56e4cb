"""An update's answers, with what was measured of them before its first step.

Shapes: N answers, A tokens of the longest. Tensors are on the CPU, 0 where masked.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from rlhf_online.algorithms import kl
from rlhf_online.algorithms.advantages import RunningMean
from rlhf_online.algorithms.masked import masked_sum, row_sums
from rlhf_online.models.tokens import Pair
from rlhf_online.rollout.eligibility import drop_tied_groups
from rlhf_online.rollout.types import LabelledAnswer, ScoredRollout, groups


@dataclass(frozen=True, slots=True)
class MeasuredAnswers:
    """Answers, and what policy and reference said of them as the update began."""

    pairs: Sequence[Pair]
    temperature_N: Tensor
    mask_NA: Tensor
    start_NA: Tensor
    """Log-probabilities by the policy."""
    reference_NA: Tensor
    values_NA: Tensor
    divergence_NA: Tensor
    """KL(policy ‖ reference) of the distributions that the tokens are drawn from, nats."""

    @property
    def kl_NA(self) -> Tensor:
        """k1 of each token, nats: what a reward is charged for."""
        return kl.k1(self.start_NA, self.reference_NA)

    @property
    def kl_N(self) -> Tensor:
        """k1 of each answer, nats."""
        return row_sums(self.kl_NA, self.mask_NA)

    @property
    def mean_kl(self) -> float:
        """To the reference, nats an answer: the sum of its tokens' divergences, never below 0, and unbiased where the
        policy itself wrote them (`algorithms.kl`)."""
        return masked_sum(self.divergence_NA, self.mask_NA).item() / len(self.pairs)


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredAnswers:
    """Answers with a score each, for an algorithm that learns from those."""

    measured: MeasuredAnswers
    score_N: Tensor
    finished_N: Tensor
    """Whether the answer ended by itself."""
    behaviour_NA: Tensor
    """Log-probabilities that the tokens were sampled with."""
    version_N: tuple[str, ...]
    """The oldest policy version that wrote any of the answer's tokens."""
    group_N: Tensor
    """The number of the answer's prompt: answers of one number are a group."""

    @classmethod
    def of(cls, measured: MeasuredAnswers, rollouts: Sequence[ScoredRollout]) -> "ScoredAnswers":
        width = measured.mask_NA.shape[1]
        logprobs = [scored.rollout.logprobs for scored in rollouts]
        group_N = torch.zeros(len(rollouts), dtype=torch.long)
        for number, rows in enumerate(groups(tuple(prompt) for prompt, _ in measured.pairs)):
            group_N[rows] = number
        return cls(
            measured=measured,
            score_N=torch.tensor([scored.score for scored in rollouts]),
            finished_N=torch.tensor([scored.rollout.finished for scored in rollouts]),
            behaviour_NA=torch.tensor([[*row, *[0.0] * (width - len(row))] for row in logprobs]),
            version_N=tuple(scored.rollout.policy_version for scored in rollouts),
            group_N=group_N,
        )

    @property
    def group_mean_shrinkage(self) -> float:
        """1 − 1/n for groups of n: what a group's mean, which contains the answer itself, leaves of the gradient."""
        return 1 - len(self.group_N.unique()) / len(self.group_N)

    def untied_groups(self, worth_N: Tensor) -> tuple[list[list[int]], Counter[str]]:
        """Rows of each group whose answers are not all worth the same, and how many answers are in the others."""
        return drop_tied_groups([tuple(prompt) for prompt, _ in self.measured.pairs], worth_N.tolist())


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledAnswers:
    """Answers that people called good or bad, for an algorithm that learns from those."""

    measured: MeasuredAnswers
    labelled: Sequence[LabelledAnswer]
    measure: Callable[[Sequence[Pair]], MeasuredAnswers]
    """What policy and reference say of other pairs, at temperature 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AlgorithmState:
    """What an update hands on to the next. `kl_coef`: where an adaptive β has come to; None before its first update."""

    kl_coef: float | None = None
    baseline: RunningMean = field(default_factory=RunningMean)
