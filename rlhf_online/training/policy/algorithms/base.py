"""What algorithms have in common: what each must say of itself, and the settings that several of them share.

    AlgorithmSettings          `needs`
    ├── FromLabels             learns from people's labels
    └── FromScores             learns from scored answers: how a score is clipped, what not ending by itself costs
        └── KLPenalised        pays β · KL, with a fixed or an adaptive β
            └── PolicyGradient the ratio to the policy that sampled, clipped; the KL in the reward or in the loss

torch is not imported here: see the package.
"""

from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Literal, Self

from pydantic import Field, model_validator

from rlhf_online.config import Only, Section

if TYPE_CHECKING:
    from torch import Tensor

    from rlhf_online.algorithms.policy_losses import ClipRange
    from rlhf_online.training.policy.measured import AlgorithmState, LabelledAnswers, ScoredAnswers
    from rlhf_online.training.policy.objectives import Objective


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """What an algorithm asks of those who prepare its updates."""

    scores: bool = False
    """Answers scored by the reward model."""
    labels: bool = False
    """Answers with people's labels."""
    groups: bool = False
    """Two answers or more to each prompt, which it compares."""
    critic: bool = False
    """A value of each state, which begins as what the reward model says of it."""


class AlgorithmSettings(Section):
    """A table `[policy.algorithm]`. A subclass has a field `name`, a `Literal` with itself as the default."""

    needs: ClassVar[Needs]

    @model_validator(mode="after")
    def _name_is_given(self) -> Self:
        # What is written of settings is what was given, and without its name the table would be another algorithm's.
        self.model_fields_set.add("name")
        return self

    @property
    def critic_lr(self) -> float:
        """Learning rate of the value head; 0 where nothing learns it."""
        return 0.0

    def rewards(self, answers: "ScoredAnswers", state: "AlgorithmState") -> "Tensor":
        """What each answer is worth to it, (N,)."""
        return answers.score_N

    def kl_coefficient(self, state: "AlgorithmState") -> float:
        """β of the next update; 0 where the algorithm pays for no KL."""
        return 0.0

    def state_after(self, state: "AlgorithmState", answers: "ScoredAnswers | None") -> "AlgorithmState":
        """What it hands on when it has learned from these answers."""
        return state


class FromLabels(AlgorithmSettings):
    needs: ClassVar[Needs] = Needs(labels=True)

    @abstractmethod
    def objective(self, answers: "LabelledAnswers") -> "Objective":
        """What an update on these answers minimises."""


class FromScores(AlgorithmSettings):
    needs: ClassVar[Needs] = Needs(scores=True)

    reward_clip: float = Field(default=5.0, gt=0, description="Scores are clipped to ± this.")
    missing_eos_penalty: float = Field(default=1.0, ge=0, description="Taken off an answer that did not end by itself.")

    @abstractmethod
    def objective(self, answers: "ScoredAnswers", state: "AlgorithmState") -> "Objective":
        """What an update on these answers minimises."""

    def shaped(self, answers: "ScoredAnswers") -> "Tensor":
        """The clipped scores less the penalty for not ending by itself, (N,)."""
        score_N = answers.score_N.clamp(-self.reward_clip, self.reward_clip)
        return score_N - self.missing_eos_penalty * ~answers.finished_N

    def rewards(self, answers: "ScoredAnswers", state: "AlgorithmState") -> "Tensor":
        return self.shaped(answers)


class KLPenalised(FromScores):
    only_with: ClassVar = {"kl_target": Only("kl_coef", above=0), "kl_horizon": Only("kl_target", above=0)}

    kl_coef: float = Field(default=0.03, ge=0, description="β of the KL penalty against the reference.")
    kl_target: float = Field(
        default=0.0, ge=0, description="Nats an answer that an adaptive β, which begins at kl_coef, aims at; 0: fixed."
    )
    kl_horizon: float = Field(
        default=10_000.0, gt=0, description="Answers over which an adaptive β moves by its error."
    )

    def rewards(self, answers: "ScoredAnswers", state: "AlgorithmState") -> "Tensor":
        return self.shaped(answers) - self.kl_coefficient(state) * answers.measured.kl_N

    def kl_coefficient(self, state: "AlgorithmState") -> float:
        return state.kl_coef if self.kl_target and state.kl_coef is not None else self.kl_coef

    def state_after(self, state: "AlgorithmState", answers: "ScoredAnswers | None") -> "AlgorithmState":
        from rlhf_online.algorithms.kl import KLController

        if not self.kl_target or answers is None:
            return state
        controller = KLController(self.kl_coefficient(state), self.kl_target, self.kl_horizon)
        measured = answers.measured
        return replace(state, kl_coef=controller.after(measured.mean_kl, len(measured.pairs)).coef)


class PolicyGradient(KLPenalised):
    """Advantages times the ratio to the policy that sampled (`objectives.policy_gradient`)."""

    only_with: ClassVar = {
        **KLPenalised.only_with,
        "kl_in": Only("kl_coef", above=0),
        "kl_max_weight": Only("kl_in", "loss"),
        **dict.fromkeys(("weight_per", "max_weight", "reject_above"), Only("correction", "decoupled")),
    }

    clip: float = Field(default=0.2, gt=0, description="Clip range of the ratio.")
    dual_clip: float | None = Field(
        default=None, gt=1, description="Largest ratio that a bad answer's loss grows with."
    )
    correction: Literal["behaviour", "decoupled", "none"] = Field(
        default="behaviour",
        description="Older answers: the ratio is to the policy that wrote them; or decoupled PPO; or as if fresh.",
    )
    weight_per: Literal["token", "sequence"] = Field(
        default="token", description="Decoupled: what has a weight of its own, each token or each answer."
    )
    max_weight: float = Field(default=2.0, gt=0, description="Decoupled: largest weight; a larger one is truncated.")
    reject_above: float = Field(
        default=10.0, gt=0, description="Decoupled: a token, or an answer, whose weight is larger is left out."
    )
    kl_in: Literal["reward", "loss"] = Field(
        default="reward", description="Where the KL penalty goes: k1 into the reward, or k2 as a loss."
    )
    kl_max_weight: float = Field(default=2.0, gt=0, description="Largest weight of an older answer in the KL loss.")
    entropy_coef: float = Field(default=0.0, ge=0, description="Weight of the entropy bonus.")

    @property
    def clip_range(self) -> "ClipRange":
        """How far below 1 the ratio may go, and how far above."""
        return self.clip, self.clip

    def compared(self, answers: "ScoredAnswers", state: "AlgorithmState") -> "Tensor":
        """The rewards that advantages of whole answers are made of, (N,): less β · KL, unless that is in the loss."""
        return self.rewards(answers, state) if self.kl_in == "reward" else self.shaped(answers)


class WhitenedRewards(Section):
    """For algorithms whose advantages depend on the scale of the rewards."""

    whiten_rewards: Literal["off", "scale", "shift"] = Field(
        default="off", description="Rewards to deviation 1: 'scale' keeps their mean, 'shift' takes it away."
    )

    def whitened(self, rewards: "Tensor", mask: "Tensor | None" = None) -> "tuple[Tensor, float]":
        """The rewards as the setting says, and what that multiplied their differences by."""
        import torch

        from rlhf_online.algorithms.masked import whiten, whitening_scale

        if self.whiten_rewards == "off":
            return rewards, 1.0
        mask = torch.ones_like(rewards, dtype=torch.bool) if mask is None else mask
        return whiten(rewards, mask, shift_mean=self.whiten_rewards == "shift"), whitening_scale(rewards, mask)
