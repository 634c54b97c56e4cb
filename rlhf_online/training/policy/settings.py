"""Settings of the policy's updates. Read without torch."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from rlhf_online.config import Positive, Section

Algorithm = Literal["ppo", "grpo", "rloo", "reinforce", "online-dpo", "kto", "best-of-n"]


class PolicyStage(Section):
    algorithm: Algorithm = Field(description="How the policy learns in this stage.")
    updates: int = Field(default=0, ge=0, description="Updates that the stage lasts; 0: for ever.")
    lr: float | None = Field(
        default=None,
        gt=0,
        description="Learning rate in this stage, value_lr in proportion; without it, that of the table.",
    )


class PolicyTraining(Section):
    algorithm: Algorithm = Field(default="ppo", description="How the policy learns from its scored answers.")
    schedule: tuple[PolicyStage, ...] = Field(
        default=(), description="Stages, one after another, instead of one algorithm; the last one goes on."
    )
    lr: float = Field(default=6e-4, gt=0, description="Adam's learning rate.")
    lr_decay_updates: int = Field(
        default=0, ge=0, description="Updates over which the learning rates fall linearly to 0; 0: they stay."
    )
    value_lr: float = Field(default=6e-4, gt=0, description="Learning rate of the value head.")
    epochs: Positive = Field(default=4, description="Passes over the rollouts of an update.")
    minibatches: Positive = Field(default=4, description="Optimiser steps a pass.")
    micro_batch_tokens: Positive = Field(default=16384, description="Tokens, padding included, of one forward pass.")
    kl_coef: float = Field(default=0.03, ge=0, description="β of the KL penalty against the reference.")
    kl_in: Literal["reward", "loss"] = Field(
        default="reward", description="Where the penalty goes: k1 into the reward, or k2 as a loss."
    )
    kl_target: float = Field(
        default=0.0, ge=0, description="Nats an answer that an adaptive β aims at; 0 keeps β fixed."
    )
    kl_horizon: float = Field(
        default=10_000.0, gt=0, description="Answers over which an adaptive β moves by its error."
    )
    gamma: float = Field(default=1.0, gt=0, le=1, description="Discount.")
    gae_lambda: float = Field(default=0.95, ge=0, le=1, description="λ of GAE.")
    clip: float = Field(default=0.2, gt=0, description="Clip range of the ratio.")
    dual_clip: float | None = Field(
        default=None, gt=1, description="Largest ratio that a bad answer's loss grows with."
    )
    correction: Literal["behaviour", "decoupled", "none"] = Field(
        default="behaviour",
        description="Older answers: the ratio is to the policy that wrote them; or decoupled PPO; or as if fresh.",
    )
    max_weight: float = Field(
        default=2.0, gt=0, description="Largest weight of a token where decoupled, and of an older answer in a KL loss."
    )
    reject_above: float = Field(
        default=10.0, gt=0, description="Decoupled: a token whose weight is larger is left out."
    )
    entropy_coef: float = Field(default=0.0, ge=0, description="Weight of the entropy bonus.")
    grpo_std: bool = Field(default=True, description="grpo divides by the deviation of the group's rewards.")
    beta: float = Field(default=0.1, gt=0, description="β of online-dpo and kto; τ of ipo.")
    dpo_loss: Literal["dpo", "ipo"] = Field(default="dpo", description="Loss of online-dpo.")
    value_clip: float = Field(default=0.2, gt=0, description="Clip range of the value.")
    value_coef: float = Field(default=1.0, ge=0, description="Weight of the value loss.")
    missing_eos_penalty: float = Field(default=1.0, ge=0, description="Taken off an answer that did not end by itself.")
    reward_clip: float = Field(default=5.0, gt=0, description="Scores are clipped to ± this.")
    whiten_rewards: Literal["off", "scale", "shift"] = Field(
        default="off", description="Rewards to deviation 1: 'scale' keeps their mean, 'shift' takes it away."
    )
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
