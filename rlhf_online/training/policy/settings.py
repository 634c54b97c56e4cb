"""Settings of the policy's training, the table `[policy]`: what is the same whatever the algorithm; no torch."""

from pathlib import Path
from typing import Annotated, ClassVar, Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from rlhf_online.config import Only, Positive, Section
from rlhf_online.training.policy.algorithms import PPO, Algorithm

# Names that were in [policy] and are an algorithm's.
_MOVED = {
    name: f"algorithm.{name}"
    for name in (
        *("kl_coef", "kl_in", "kl_target", "kl_horizon", "reward_clip", "missing_eos_penalty", "whiten_rewards"),
        *("clip", "dual_clip", "correction", "max_weight", "reject_above", "entropy_coef", "beta"),
        *("gamma", "gae_lambda", "value_lr", "value_clip", "value_coef"),
    )
} | {"grpo_std": "algorithm.std", "dpo_loss": "algorithm.loss"}


class PolicyStage(Section):
    algorithm: Algorithm = Field(
        description="How the policy learns in this stage; an adaptive β begins at its kl_coef."
    )
    updates: int = Field(default=0, ge=0, description="Updates that the stage lasts; 0: for ever.")
    lr: float | None = Field(
        default=None, gt=0, description="Learning rate in this stage; without it, that of [policy]."
    )


class PolicyTraining(Section):
    moved: ClassVar = _MOVED
    only_with: ClassVar = {"demonstrations": Only("ptx_coef", above=0)}

    algorithm: Algorithm = Field(
        default=PPO(),
        description="How the policy learns: a table with the algorithm's name and its settings, or a name.",
    )
    schedule: tuple[PolicyStage, ...] = Field(
        default=(), description="Stages, one after another, instead of one algorithm; the last one goes on."
    )
    lr: float = Field(default=6e-4, gt=0, description="Adam's learning rate.")
    lr_decay_updates: Annotated[int, Field(ge=0)] = Field(
        default=0, description="Updates over which the learning rates fall linearly to 0; 0: they stay."
    )
    epochs: Positive = Field(default=4, description="Passes over the rollouts of an update.")
    minibatches: Positive = Field(default=4, description="Optimiser steps a pass.")
    micro_batch_tokens: Positive = Field(default=16384, description="Tokens, padding included, of one forward pass.")
    ptx_coef: float = Field(
        default=0.0, ge=0, description="Weight of the loss on demonstrations that is mixed in (PTX)."
    )
    demonstrations: Path | None = Field(
        default=None,
        description="File of the demonstrations, JSONL as for `rlhf-online sft`; needed where ptx_coef is above 0.",
    )
    ema: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="What publishes is an average of the weights that keeps this much of itself an update; 0: none.",
    )
    max_grad_norm: float = Field(default=1.0, gt=0, description="Gradient norm limit.")
    max_step_kl: float = Field(
        default=1.0, gt=0, description="KL of one update (nats an answer) beyond which it is undone."
    )
    lora_rank: Positive = Field(default=16, description="Rank of the adapter where tuning is lora.")
    lora_layers: int = Field(
        default=0,
        ge=0,
        description="How many of the model's layers, from the top, the adapter changes; 0: all. What those below say "
        "of an answer is computed once an update.",
    )

    @model_validator(mode="after")
    def _all_take_a_turn(self) -> Self:
        if self.schedule and "algorithm" in self.model_fields_set:
            raise PydanticCustomError("two_algorithms", "algorithm and schedule are both given: each stage has its own")
        if not all(stage.updates for stage in self.schedule[:-1]):
            raise PydanticCustomError("endless", "a stage of schedule without updates lasts for ever; another follows")
        return self

    def stage(self, updates: int) -> PolicyStage:
        """The stage of the update after so many."""
        end = 0
        for stage in self.schedule:
            end += stage.updates
            if not stage.updates or updates < end:
                return stage
        return self.schedule[-1] if self.schedule else PolicyStage(algorithm=self.algorithm)

    def rate(self, updates: int) -> float:
        """The learning rate of the update after so many, as a multiple of `lr`."""
        return self.decay(updates) * (self.stage(updates).lr or self.lr) / self.lr

    def decay(self, updates: int) -> float:
        """What is left of the learning rates."""
        return max(0.0, 1 - updates / self.lr_decay_updates) if self.lr_decay_updates else 1.0
