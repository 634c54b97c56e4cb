"""Group sequence policy optimisation (Zheng et al. 2025, arXiv 2507.18071, eq. 5–7).

    −mean over answers of min(s A, clip(s, 1 ± ε) A),  s = (π(y) / π_old(y))^(1/|y|),
    A = (r − mean of the group) / deviation of the group

One ratio an answer, the geometric mean of its tokens': an answer is clipped as a whole. π_old is the policy that
sampled, so that older answers are corrected as in the other algorithms. A mean over |y| tokens moves far less than one
token's ratio: the paper clips at 3e-4 and 4e-4, for answers of thousands of tokens and small learning rates. The
defaults are a hundred times that, for answers of tens of tokens; with answers of thousands take the paper's. The paper
leaves the KL out for brevity; here it is in the reward.
"""

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from rlhf_online.training.policy.algorithms.base import KLPenalised, Needs

if TYPE_CHECKING:
    from rlhf_online.training.policy.measured import AlgorithmState, ScoredAnswers
    from rlhf_online.training.policy.objectives import LossAndStats, MicroBatch, Objective


class GSPO(KLPenalised):
    needs: ClassVar[Needs] = Needs(scores=True, groups=True)

    name: Literal["gspo"] = Field(default="gspo", description="GRPO with one ratio an answer, clipped as a whole.")
    clip: float = Field(default=0.03, gt=0, description="How far below 1 an answer's ratio may go.")
    clip_high: float = Field(default=0.04, gt=0, description="How far above 1.")

    def objective(self, answers: "ScoredAnswers", state: "AlgorithmState") -> "Objective":
        from rlhf_online.algorithms.advantages import grpo, per_token
        from rlhf_online.algorithms.policy_losses import gspo_loss
        from rlhf_online.training.policy.objectives import Objective, advantage_facts, by_row, each_row

        advantages_N = grpo(self.rewards(answers, state), answers.group_N, std=True)

        def loss(batch: "MicroBatch") -> "LossAndStats":
            return gspo_loss(
                batch.outputs.logprobs_BA,
                batch.of(answers.behaviour_NA),
                batch.of(advantages_N),
                batch.mask_BA,
                clip=(self.clip, self.clip_high),
                denominator=batch.minibatch.denominator,
            )

        measured = answers.measured
        facts = advantage_facts(per_token(advantages_N, measured.mask_NA), measured.mask_NA)
        return Objective(answers=measured, examples=each_row(measured), loss=loss, minibatch=by_row(), facts=facts)
