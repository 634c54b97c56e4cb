"""Dr. GRPO: GRPO without its two biases (Liu et al. 2025, arXiv 2503.20783, equation in section 3.2 and listing 1).

    −(1/N) Σ over answers (1/L) Σ over tokens of min(ρ A, clip(ρ, 1 ± ε) A),  A = r − mean of the group

Division by the group's deviation weighs prompts by how little their answers differ, and division by an answer's own
length makes long bad answers cheap: here nothing is divided by either. L is a constant, the token limit of an answer.
"""

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from rlhf_online.training.policy.algorithms.base import Needs, PolicyGradient, WhitenedRewards

if TYPE_CHECKING:
    from rlhf_online.training.policy.measured import AlgorithmState, ScoredAnswers
    from rlhf_online.training.policy.objectives import Objective


class DrGRPO(PolicyGradient, WhitenedRewards):
    needs: ClassVar[Needs] = Needs(scores=True, groups=True)

    name: Literal["dr-grpo"] = Field(
        default="dr-grpo", description="GRPO without division by a group's deviation or an answer's length."
    )
    max_tokens: int = Field(
        default=64, gt=0, description="Constant that an answer's loss is divided by: rollout.max_tokens."
    )

    def objective(self, answers: "ScoredAnswers", state: "AlgorithmState") -> "Objective":
        from rlhf_online.algorithms import advantages
        from rlhf_online.training.policy.objectives import by_row, policy_gradient

        reward_N, scale = self.whitened(self.compared(answers, state))
        advantages_N = advantages.grpo(reward_N, answers.group_N, std=False)
        advantages_NA = advantages.per_token(advantages_N, answers.measured.mask_NA)
        kl_scale, constant = scale * answers.group_mean_shrinkage, by_row(self.max_tokens)
        return policy_gradient(self, answers, state, advantages_NA, kl_scale=kl_scale, minibatch=constant)
