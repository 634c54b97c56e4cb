"""REINFORCE (Williams 1992) against the mean reward of earlier updates.

    −mean over tokens of min(ρ A, clip(ρ, 1 ± ε) A),  A = r − baseline

The ratio corrects for older answers and for the passes after the first; at the first step of fresh answers it is 1, and
this is −mean A log π. The baseline (`advantages.RunningMean`) is taken off before rewards are whitened.
"""

from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from rlhf_online.training.policy.algorithms.base import Needs, PolicyGradient, WhitenedRewards

if TYPE_CHECKING:
    from rlhf_online.training.policy.measured import AlgorithmState, ScoredAnswers
    from rlhf_online.training.policy.objectives import Objective


class REINFORCE(PolicyGradient, WhitenedRewards):
    needs: ClassVar[Needs] = Needs(scores=True)

    name: Literal["reinforce"] = Field(default="reinforce", description="REINFORCE with a running baseline.")

    def objective(self, answers: "ScoredAnswers", state: "AlgorithmState") -> "Objective":
        from rlhf_online.algorithms import advantages
        from rlhf_online.training.policy.objectives import policy_gradient

        above_N = advantages.reinforce(self.compared(answers, state), state.baseline.mean)
        advantages_N, scale = self.whitened(above_N)
        advantages_NA = advantages.per_token(advantages_N, answers.measured.mask_NA)
        return policy_gradient(self, answers, state, advantages_NA, kl_scale=scale)

    def state_after(self, state: "AlgorithmState", answers: "ScoredAnswers | None") -> "AlgorithmState":
        assert answers is not None, "it learned from them"
        baseline = state.baseline.after(self.compared(answers, state))
        return replace(super().state_after(state, answers), baseline=baseline)
