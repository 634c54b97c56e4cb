"""A few answers, measured and scored, whose every number is known; and an objective's loss on them."""

from collections.abc import Sequence

import torch
from torch import Tensor

from rlhf_online.algorithms.masked import Stats
from rlhf_online.models.policy import Outputs
from rlhf_online.rollout.types import LabelledAnswer, Rollout, ScoredRollout
from rlhf_online.training.policy.measured import MeasuredAnswers, ScoredAnswers
from rlhf_online.training.policy.objectives import MicroBatch, Objective

SCORES = (1.0, -2.0, 0.5, 3.0)
LENGTHS = (2, 2, 2, 2)
LABELLED = [
    LabelledAnswer(prompt_token_ids=(1, prompt), token_ids=(answer, 2), desirable=desirable)
    for prompt, answer, desirable in [(10, 30, True), (10, 31, True), (11, 32, True), (12, 33, False)]
]


def measured(lengths: Sequence[int] = LENGTHS, reference: float = -1.5) -> MeasuredAnswers:
    """Two answers to each prompt, of these lengths; each token has log-prob −1 by the policy, and value 0; at each the
    divergence is what the token says of it, k1."""
    mask_NA = torch.arange(max(lengths)) < torch.tensor(lengths).unsqueeze(1)
    return MeasuredAnswers(
        pairs=[((1, 10 + row // 2), (30, *[31] * (size - 1))) for row, size in enumerate(lengths)],
        temperature_N=torch.ones(len(lengths)),
        mask_NA=mask_NA,
        start_NA=-1.0 * mask_NA,
        reference_NA=reference * mask_NA,
        values_NA=0.0 * mask_NA,
        divergence_NA=(-1.0 - reference) * mask_NA,
    )


def scored(
    scores: Sequence[float] = SCORES, lengths: Sequence[int] = LENGTHS, behaviour: float = -1.0, reference: float = -1.5
) -> ScoredAnswers:
    """Those answers, ended by themselves, sampled where each token had log-prob `behaviour`."""
    answers = measured(lengths, reference)
    rollouts = [
        ScoredRollout(
            rollout=Rollout(
                rollout_id=str(row),
                prompt_token_ids=tuple(prompt),
                token_ids=tuple(answer),
                logprobs=(behaviour,) * len(answer),
                policy_version="",
                temperature=1.0,
                finished=True,
            ),
            score=score,
        )
        for row, ((prompt, answer), score) in enumerate(zip(answers.pairs, scores, strict=True))
    ]
    return ScoredAnswers.of(answers, rollouts)


def evaluate(objective: Objective, logprobs_NA: Tensor | None = None) -> tuple[float, Stats, Tensor]:
    """The loss of all examples as one micro-batch, by default at the policy's own log-probs; what it says; the gradient
    with respect to each token's log-prob."""
    rows = [row for example in objective.examples for row in example]
    mask_BA = objective.answers.mask_NA[rows]
    start_NA = objective.answers.start_NA if logprobs_NA is None else logprobs_NA
    logprobs_BA = start_NA[rows].clone().requires_grad_(True)
    values_BA = objective.answers.values_NA[rows].clone()
    minibatch = objective.minibatch(rows, lambda answers, rows: torch.zeros(len(rows)))
    loss, stats = objective.loss(MicroBatch(rows, Outputs(logprobs_BA, values_BA), mask_BA, minibatch))
    [gradient_BA] = torch.autograd.grad(loss, [logprobs_BA])
    return loss.item(), stats, gradient_BA


def kl_weight(objective: Objective, value_coef: float = 1.0) -> float:
    """What the KL loss is multiplied by in the objective's loss."""
    loss, stats, _ = evaluate(objective)
    if "kl_loss" not in stats:
        return 0.0
    others = stats["policy_loss"] + value_coef * stats.get("value_loss", torch.zeros(()))
    return ((loss - others) / stats["kl_loss"]).item()
