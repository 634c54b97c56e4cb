"""REINFORCE with a leave-one-out baseline (Kool et al. 2019; Ahmadian et al. 2024, arXiv 2402.14740).

−mean over tokens of min(ρ A, clip(ρ, 1 ± ε) A),  A = r − mean of the group's other rewards
"""

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from rlhf_online.training.policy.algorithms.base import Needs, PolicyGradient, WhitenedRewards

if TYPE_CHECKING:
    from rlhf_online.training.policy.measured import AlgorithmState, ScoredAnswers
    from rlhf_online.training.policy.objectives import Objective


class RLOO(PolicyGradient, WhitenedRewards):
    needs: ClassVar[Needs] = Needs(scores=True, groups=True)

    name: Literal["rloo"] = Field(default="rloo", description="REINFORCE with a leave-one-out baseline.")

    def objective(self, answers: "ScoredAnswers", state: "AlgorithmState") -> "Objective":
        from rlhf_online.algorithms import advantages
        from rlhf_online.training.policy.objectives import policy_gradient

        reward_N, scale = self.whitened(self.compared(answers, state))
        advantages_N = advantages.rloo(reward_N, answers.group_N)
        advantages_NA = advantages.per_token(advantages_N, answers.measured.mask_NA)
        return policy_gradient(self, answers, state, advantages_NA, kl_scale=scale)
