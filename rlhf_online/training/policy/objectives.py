"""What an update minimises, and the parts of it that several algorithms share.

An *example* is what the loss is a sum over, and what a micro-batch may not divide: the row of one answer, or the two
rows of a pair. Every loss is divided by the `denominator` of the whole minibatch, so that micro-batches add up to its
gradient.

Shapes: N answers, A tokens of the longest, B answers of a micro-batch.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from rlhf_online.algorithms import importance, policy_losses
from rlhf_online.algorithms.masked import Stats, row_sums
from rlhf_online.models.policy import Outputs
from rlhf_online.models.tokens import Pair
from rlhf_online.models.transfer import onto
from rlhf_online.training.policy.algorithms.base import PolicyGradient
from rlhf_online.training.policy.measured import AlgorithmState, MeasuredAnswers, ScoredAnswers

Example = tuple[int, ...]
LossAndStats = tuple[Tensor, Stats]
SequenceLogprobs = Callable[[MeasuredAnswers, Sequence[int]], Tensor]
"""Log-probability of each of these rows under the policy of this moment, (N,), without gradient."""


@dataclass(frozen=True, slots=True)
class MinibatchContext:
    """What the micro-batches of one minibatch share. `reference_point` is KTO's, nats an answer."""

    denominator: float
    reference_point: float = 0.0


Minibatch = Callable[[Sequence[int], SequenceLogprobs], MinibatchContext]
"""The context of a minibatch of these rows."""


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """`rows` of whole examples, one after another, and what the policy says of them."""

    rows: Sequence[int]
    outputs: Outputs
    mask_BA: Tensor
    minibatch: MinibatchContext

    def of(self, tensor: Tensor) -> Tensor:
        """These rows of (N,) or (N, A), the latter cut to the micro-batch's width, on its device."""
        rows = tensor[list(self.rows)]
        return onto(rows if rows.dim() == 1 else rows[:, : self.mask_BA.shape[1]], self.mask_BA.device)

    def sequence_logprobs(self) -> Tensor:
        """Log-probability of each answer, (B,)."""
        return row_sums(self.outputs.logprobs_BA, self.mask_BA)


@dataclass(frozen=True, slots=True, kw_only=True)
class Objective:
    """What an update minimises: the sum of `loss` over micro-batches of `examples`, which are all of one size."""

    answers: MeasuredAnswers
    examples: Sequence[Example]
    loss: Callable[[MicroBatch], LossAndStats]
    minibatch: Minibatch
    entropies: bool = False
    """Whether the loss reads them."""
    left_out: Mapping[str, int] = field(default_factory=dict)
    """Answers that it does not learn from, by reason."""
    facts: Mapping[str, float] = field(default_factory=dict)
    """What is known of it before the first step, by name: `advantage_facts`."""


def each_row(answers: MeasuredAnswers) -> list[Example]:
    """Every answer is an example."""
    return [(row,) for row in range(len(answers.pairs))]


def advantage_facts(advantages_NA: Tensor, mask_NA: Tensor) -> dict[str, float]:
    """Mean, deviation (÷ n), least and largest of the advantages, over real positions; {} without any."""
    real = advantages_NA[mask_NA].float()
    if not len(real):
        return {}
    found = {"mean": real.mean(), "std": real.std(unbiased=False), "min": real.min(), "max": real.max()}
    return {f"advantage_{name}": value.item() for name, value in found.items()}


def by_token(answers: MeasuredAnswers) -> Minibatch:
    """The denominator is the number of tokens."""
    return lambda rows, sequence_logprobs: MinibatchContext(int(answers.mask_NA[list(rows)].sum()))


def by_row(each: float = 1.0) -> Minibatch:
    """The denominator is `each` times the number of rows."""
    return lambda rows, sequence_logprobs: MinibatchContext(each * len(rows))


def policy_gradient(
    settings: PolicyGradient,
    answers: ScoredAnswers,
    state: AlgorithmState,
    advantages_NA: Tensor,
    *,
    kl_scale: float,
    critic: Callable[[MicroBatch], LossAndStats] | None = None,
    minibatch: Minibatch | None = None,
    raw_NA: Tensor | None = None,
) -> Objective:
    """Clipped ratios times advantages, plus the critic's loss, a KL loss and an entropy bonus where there are such.

    A KL *loss* is scaled by `kl_scale`, as the advantages are: by 1/σ for each whitening, by 1 − 1/n for a group's mean
    that contains the answer itself. So β means the same as in the reward. `raw_NA` are the advantages before they were
    whitened, where they were.
    """
    kl_weight = settings.kl_coefficient(state) * kl_scale if settings.kl_in == "loss" else 0.0
    measured = answers.measured

    def loss(batch: MicroBatch) -> LossAndStats:
        total, stats = _clipped_ratio(settings, answers, advantages_NA, batch)
        stats["policy_loss"] = total.detach()
        if critic is not None:
            value_loss, found = critic(batch)
            total, stats = total + value_loss, stats | found
        if kl_weight:
            kl_loss = _kl_loss(settings.kl_max_weight, answers, batch)
            total, stats = total + kl_weight * kl_loss, stats | {"kl_loss": kl_loss.detach()}
        if batch.outputs.entropies_BA is not None:
            entropy_loss, found = policy_losses.entropy_loss(
                batch.outputs.entropies_BA, batch.mask_BA, denominator=batch.minibatch.denominator
            )
            total, stats = total + settings.entropy_coef * entropy_loss, stats | found
        return total, stats

    return Objective(
        answers=measured,
        examples=each_row(measured),
        loss=loss,
        minibatch=minibatch or by_token(measured),
        entropies=settings.entropy_coef > 0,
        facts=advantage_facts(advantages_NA if raw_NA is None else raw_NA, measured.mask_NA),
    )


def _clipped_ratio(
    settings: PolicyGradient, answers: ScoredAnswers, advantages_NA: Tensor, batch: MicroBatch
) -> LossAndStats:
    mask_BA, denominator = batch.mask_BA, batch.minibatch.denominator
    start_BA, behaviour_BA = batch.of(answers.measured.start_NA), batch.of(answers.behaviour_NA)
    weights_BA, weight_stats = None, {}
    if settings.correction == "decoupled":
        weights_BA, weight_stats = importance.truncated_weights(
            start_BA,
            behaviour_BA,
            mask_BA,
            max_weight=settings.max_weight,
            reject_above=settings.reject_above,
            per=settings.weight_per,
            denominator=denominator,
        )
    loss, stats = policy_losses.ppo_loss(
        batch.outputs.logprobs_BA,
        behaviour_BA if settings.correction == "behaviour" else start_BA,
        batch.of(advantages_NA),
        mask_BA,
        clip=settings.clip_range,
        dual_clip=settings.dual_clip,
        weights_BT=weights_BA,
        denominator=denominator,
    )
    return loss, stats | weight_stats


def _kl_loss(max_weight: float, answers: ScoredAnswers, batch: MicroBatch) -> Tensor:
    """k2 of whole answers; those that another policy wrote weigh what this one would write them, truncated."""
    mask_BA, logprobs_BA = batch.mask_BA, batch.outputs.logprobs_BA
    logprobs_B1 = batch.sequence_logprobs().unsqueeze(1)
    return policy_losses.kl_loss(
        logprobs_B1,
        row_sums(batch.of(answers.measured.reference_NA), mask_BA).unsqueeze(1),
        torch.ones_like(logprobs_B1, dtype=torch.bool),
        estimator="k2",
        weights_BT=importance.answer_weights(
            logprobs_BA, batch.of(answers.behaviour_NA), mask_BA, max_weight=max_weight
        ),
        denominator=batch.minibatch.denominator,
    )[0]


def likelihood(answers: MeasuredAnswers, rows: Sequence[int]) -> Objective:
    """These answers are to become more likely: −mean log π of their tokens."""

    def loss(batch: MicroBatch) -> LossAndStats:
        return policy_losses.nll_loss(batch.outputs.logprobs_BA, batch.mask_BA, denominator=batch.minibatch.denominator)

    return Objective(answers=answers, examples=[(row,) for row in rows], loss=loss, minibatch=by_token(answers))


def demonstrations(pairs: Sequence[Pair]) -> Objective:
    """The likelihood of people's own answers, at temperature 1, for which nothing needs to be measured."""
    width = max(len(answer) for _, answer in pairs)
    mask_NA = torch.arange(width) < torch.tensor([len(answer) for _, answer in pairs]).unsqueeze(1)
    nothing_NA = torch.zeros(mask_NA.shape)
    answers = MeasuredAnswers(pairs, torch.ones(len(pairs)), mask_NA, *[nothing_NA] * 4)
    return likelihood(answers, range(len(pairs)))
