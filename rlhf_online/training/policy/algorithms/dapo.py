"""DAPO: decoupled clip and dynamic sampling (Yu et al. 2025, arXiv 2503.14476, eq. 8–12).

    −(1 / Σ|y|) Σ over all tokens of min(ρ A, clip(ρ, 1 − ε_low, 1 + ε_high) A),
    A = (r − mean of the group) / deviation of the group

*Clip-higher*: what is unlikely has room to become likely. *Token-level mean*: long answers count by their tokens.
*Dynamic sampling*: answers to a prompt that are all worth the same teach nothing and are left out, as "tied"; the paper
samples others in their place, here the update is smaller. *Overlong shaping* is left out: `missing_eos_penalty` takes
its part. The paper has no KL, its rewards being checked answers; ours are a reward model's, so β stays: kl_coef = 0 is
the paper's.
"""

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from rlhf_online.training.policy.algorithms.base import Needs, PolicyGradient

if TYPE_CHECKING:
    from rlhf_online.algorithms.policy_losses import ClipRange
    from rlhf_online.training.policy.measured import AlgorithmState, ScoredAnswers
    from rlhf_online.training.policy.objectives import Objective


class DAPO(PolicyGradient):
    needs: ClassVar[Needs] = Needs(scores=True, groups=True)

    name: Literal["dapo"] = Field(default="dapo", description="GRPO with clip-higher, without groups that tie.")
    clip: float = Field(default=0.2, gt=0, description="How far below 1 the ratio may go.")
    clip_high: float = Field(default=0.28, gt=0, description="How far above 1.")

    @property
    def clip_range(self) -> "ClipRange":
        return self.clip, self.clip_high

    def objective(self, answers: "ScoredAnswers", state: "AlgorithmState") -> "Objective":
        from dataclasses import replace

        from rlhf_online.algorithms import advantages
        from rlhf_online.training.policy.objectives import policy_gradient

        advantages_N = advantages.grpo(self.compared(answers, state), answers.group_N, std=True)
        advantages_NA = advantages.per_token(advantages_N, answers.measured.mask_NA)
        whole = policy_gradient(self, answers, state, advantages_NA, kl_scale=answers.group_mean_shrinkage)
        groups, left_out = answers.untied_groups(self.shaped(answers))
        kept = sorted(row for rows in groups for row in rows)
        return replace(whole, examples=[(row,) for row in kept], left_out=left_out)
