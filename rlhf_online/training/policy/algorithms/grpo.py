"""Group-relative policy optimisation (Shao et al. 2024, DeepSeekMath, arXiv 2402.03300).

    −mean over tokens of min(ρ A, clip(ρ, 1 ± ε) A),  A = (r − mean of the group) / deviation of the group

The paper's mean is answer by answer, then over answers; ours is over all tokens of the minibatch, as DAPO's, since the
other rewards long bad answers (arXiv 2503.20783). The group's mean contains the answer itself, which shrinks the
expected gradient by 1 − 1/n: a KL *loss* is shrunk as much, so that β means the same in both places. Its division by
each group's deviation is left alone, and undoes whitening.
"""

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from rlhf_online.config import Only
from rlhf_online.training.policy.algorithms.base import Needs, PolicyGradient, WhitenedRewards

if TYPE_CHECKING:
    from rlhf_online.training.policy.measured import AlgorithmState, ScoredAnswers
    from rlhf_online.training.policy.objectives import Objective


class GRPO(PolicyGradient, WhitenedRewards):
    needs: ClassVar[Needs] = Needs(scores=True, groups=True)
    only_with: ClassVar = {**PolicyGradient.only_with, "whiten_rewards": Only("std", False)}

    name: Literal["grpo"] = Field(default="grpo", description="Group-relative policy optimisation.")
    std: bool = Field(default=True, description="Divide by the deviation of the group's rewards.")

    def objective(self, answers: "ScoredAnswers", state: "AlgorithmState") -> "Objective":
        from rlhf_online.algorithms import advantages
        from rlhf_online.training.policy.objectives import policy_gradient

        reward_N, scale = self.whitened(self.compared(answers, state))
        advantages_N = advantages.grpo(reward_N, answers.group_N, std=self.std)
        advantages_NA = advantages.per_token(advantages_N, answers.measured.mask_NA)
        return policy_gradient(self, answers, state, advantages_NA, kl_scale=scale * answers.group_mean_shrinkage)
