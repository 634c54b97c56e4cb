"""Best of n: rejection-sampling fine-tuning (Touvron et al. 2023, Llama 2, arXiv 2307.09288, section 3.2.3).

−mean over tokens of log π(best answer to each prompt), the first of several best
"""

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from rlhf_online.training.policy.algorithms.base import FromScores, Needs

if TYPE_CHECKING:
    from rlhf_online.training.policy.measured import AlgorithmState, ScoredAnswers
    from rlhf_online.training.policy.objectives import Objective


class BestOfN(FromScores):
    needs: ClassVar[Needs] = Needs(scores=True, groups=True)

    name: Literal["best-of-n"] = Field(
        default="best-of-n", description="Supervised fine-tuning on the best answer to each prompt."
    )

    def objective(self, answers: "ScoredAnswers", state: "AlgorithmState") -> "Objective":
        from rlhf_online.algorithms.advantages import best_of_group
        from rlhf_online.training.policy.objectives import likelihood

        best_N = best_of_group(self.shaped(answers), answers.group_N)
        return likelihood(answers.measured, best_N.nonzero().flatten().tolist())
