"""Online direct preference optimisation (Rafailov et al. 2023, arXiv 2305.18290; online: Guo et al. 2024, 2402.04792).

    −mean log σ(β h),  h = (log π − log π_ref)(best) − (log π − log π_ref)(worst)

on the best and the worst of the answers to each prompt, told apart by what they are worth without the KL, which is in
the loss; or IPO's mean (h − 1/(2β))². Answers to a prompt that are all worth the same are left out, as "tied".
"""

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from rlhf_online.training.policy.algorithms.base import FromScores, Needs

if TYPE_CHECKING:
    from rlhf_online.training.policy.measured import AlgorithmState, ScoredAnswers
    from rlhf_online.training.policy.objectives import LossAndStats, MicroBatch, Objective


class OnlineDPO(FromScores):
    needs: ClassVar[Needs] = Needs(scores=True, groups=True)

    name: Literal["online-dpo"] = Field(
        default="online-dpo", description="Direct preference optimisation on the best and the worst answer."
    )
    beta: float = Field(default=0.1, gt=0, description="How closely it holds to the reference: β of dpo, τ of ipo.")
    loss: Literal["dpo", "ipo"] = Field(default="dpo", description="Of a pair.")

    def objective(self, answers: "ScoredAnswers", state: "AlgorithmState") -> "Objective":
        from rlhf_online.algorithms.masked import row_sums
        from rlhf_online.algorithms.preference_losses import dpo_loss
        from rlhf_online.training.policy.objectives import Objective, by_row

        def loss(batch: "MicroBatch") -> "LossAndStats":
            logprobs_P2 = batch.sequence_logprobs().reshape(-1, 2)
            reference_P2 = row_sums(batch.of(answers.measured.reference_NA), batch.mask_BA).reshape(-1, 2)
            return dpo_loss(
                *logprobs_P2.unbind(1),
                *reference_P2.unbind(1),
                beta=self.beta,
                kind=self.loss,
                denominator=batch.minibatch.denominator,
            )

        shaped_N = self.shaped(answers)
        groups, left_out = answers.untied_groups(shaped_N)
        pairs = [(rows[int(shaped_N[rows].argmax())], rows[int(shaped_N[rows].argmin())]) for rows in groups]
        two_rows = by_row(1 / 2)
        return Objective(answers=answers.measured, examples=pairs, loss=loss, minibatch=two_rows, left_out=left_out)
