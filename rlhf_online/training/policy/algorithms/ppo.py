"""Proximal policy optimisation with a critic (Schulman et al. 2017, arXiv 1707.06347; for RLHF Ouyang et al. 2022).

    −mean min(ρ A, clip(ρ, 1 ± ε) A) + c · ½ mean max((V − R)², (clipped V − R)²)

A are GAE's advantages of tokens, whitened, from the score at the last token and −β · k1 at each. A KL *loss* is divided
by the deviations that whitening divides by, so that β means the same in both places.
"""

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from rlhf_online.config import Only
from rlhf_online.training.policy.algorithms.base import Needs, PolicyGradient, WhitenedRewards

if TYPE_CHECKING:
    from rlhf_online.training.policy.measured import AlgorithmState, ScoredAnswers
    from rlhf_online.training.policy.objectives import LossAndStats, MicroBatch, Objective


class PPO(PolicyGradient, WhitenedRewards):
    needs: ClassVar[Needs] = Needs(scores=True, critic=True)
    only_with: ClassVar = {
        **PolicyGradient.only_with,
        "value_lr": Only("value_coef", above=0),
        "value_clip": Only("value_coef", above=0),
    }

    name: Literal["ppo"] = Field(default="ppo", description="Proximal policy optimisation, with a critic.")
    gamma: float = Field(default=1.0, gt=0, le=1, description="Discount.")
    gae_lambda: float = Field(default=0.95, ge=0, le=1, description="λ of GAE.")
    value_lr: float = Field(default=6e-4, gt=0, description="Learning rate of the value head.")
    value_clip: float = Field(default=0.2, gt=0, description="Clip range of the value.")
    value_coef: float = Field(default=1.0, ge=0, description="Weight of the value loss.")

    @property
    def critic_lr(self) -> float:
        return self.value_lr

    def objective(self, answers: "ScoredAnswers", state: "AlgorithmState") -> "Objective":
        from rlhf_online.algorithms import advantages
        from rlhf_online.algorithms.masked import whiten, whitening_scale
        from rlhf_online.algorithms.policy_losses import value_loss
        from rlhf_online.training.policy.objectives import policy_gradient

        measured, mask_NA = answers.measured, answers.measured.mask_NA
        kl_coef = self.kl_coefficient(state) if self.kl_in == "reward" else 0.0
        rewards_NA = advantages.token_rewards(self.shaped(answers), measured.kl_NA, mask_NA, kl_coef)
        rewards_NA, scale = self.whitened(rewards_NA, mask_NA)
        raw_NA, returns_NA = advantages.gae(
            rewards_NA, measured.values_NA, mask_NA, gamma=self.gamma, gae_lambda=self.gae_lambda
        )

        def critic(batch: "MicroBatch") -> "LossAndStats":
            loss, stats = value_loss(
                batch.outputs.values_BA.float(),
                batch.of(measured.values_NA),
                batch.of(returns_NA),
                batch.mask_BA,
                clip=self.value_clip,
                denominator=batch.minibatch.denominator,
            )
            return self.value_coef * loss, stats | {"value_loss": loss.detach()}

        kl_scale = scale * whitening_scale(raw_NA, mask_NA)
        white_NA = whiten(raw_NA, mask_NA)
        return policy_gradient(self, answers, state, white_NA, kl_scale=kl_scale, critic=critic, raw_NA=raw_NA)
