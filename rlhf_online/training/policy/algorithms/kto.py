"""Kahneman–Tversky optimisation on people's thumbs, without a reward model (Ethayarajh et al. 2024, arXiv 2402.01306).

    mean λ_D (1 − σ(β (r − z)))  over good answers,  λ_U (1 − σ(β (z − r)))  over bad ones,  r = log π − log π_ref

The reference point z = KL(π ‖ π_ref) is estimated anew for each minibatch, as the authors do: the mean r of its prompts
with answers to *other* prompts; 0 where all prompts are one. Both kinds weigh the same together: λ_D n_D = λ_U n_U (the
paper's section 4.2).
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from rlhf_online.training.policy.algorithms.base import FromLabels

if TYPE_CHECKING:
    from rlhf_online.models.tokens import Pair
    from rlhf_online.rollout.types import LabelledAnswer
    from rlhf_online.training.policy.measured import LabelledAnswers
    from rlhf_online.training.policy.objectives import (
        LossAndStats,
        MicroBatch,
        MinibatchContext,
        Objective,
        SequenceLogprobs,
    )


class KTO(FromLabels):
    name: Literal["kto"] = Field(default="kto", description="Kahneman–Tversky optimisation on people's thumbs.")
    beta: float = Field(default=0.1, gt=0, description="How closely it holds to the reference.")

    def objective(self, answers: "LabelledAnswers") -> "Objective":
        import torch

        from rlhf_online.algorithms.masked import row_sums
        from rlhf_online.algorithms.preference_losses import kto_loss
        from rlhf_online.training.policy.objectives import MinibatchContext, Objective, each_row

        measured = answers.measured
        desirable_N = torch.tensor([item.desirable for item in answers.labelled])
        count, good = len(desirable_N), max(1, int(desirable_N.sum()))
        others = answers.measure(with_other_answers(answers.labelled))
        other_reference_N = row_sums(others.reference_NA, others.mask_NA)

        def minibatch(rows: Sequence[int], sequence_logprobs: "SequenceLogprobs") -> "MinibatchContext":
            if not others.pairs:
                return MinibatchContext(len(rows))
            log_ratio_N = sequence_logprobs(others, rows) - other_reference_N[list(rows)]
            return MinibatchContext(len(rows), log_ratio_N.mean().item())

        def loss(batch: "MicroBatch") -> "LossAndStats":
            found, stats = kto_loss(
                batch.sequence_logprobs(),
                row_sums(batch.of(measured.reference_NA), batch.mask_BA),
                batch.of(desirable_N),
                batch.minibatch.reference_point,
                beta=self.beta,
                desirable_weight=count / (2 * good),
                undesirable_weight=count / (2 * max(1, count - good)),
                denominator=batch.minibatch.denominator,
            )
            # What a minibatch has in common would be counted once for each of its micro-batches.
            del stats["reference_point"]
            return found, stats

        return Objective(answers=measured, examples=each_row(measured), loss=loss, minibatch=minibatch)


def with_other_answers(labelled: "Sequence[LabelledAnswer]") -> "list[Pair]":
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
