"""Settings of services/trainer.

Read without torch: services/standalone and the command's checks need them and nothing that computes.
"""

from typing import ClassVar, Literal

from pydantic import Field

from rlhf_online.canary.settings import CanarySettings
from rlhf_online.config import (
    Computed,
    Device,
    KeystoreSettings,
    LogAddress,
    LogSettings,
    Objectives,
    Only,
    Port,
    Positive,
    Section,
    ServiceSettings,
    Sharding,
    TracingSettings,
    Tuning,
)
from rlhf_online.gate.settings import GateSettings
from rlhf_online.training.policy.settings import PolicyTraining


class InfluenceCaps(Section):
    person: float = Field(
        default=0.25,
        gt=0,
        le=1,
        description="Largest share of an update's votes that one person's count as, once there are 1/share people; "
        "1 is no cap.",
    )
    key: float = Field(default=1.0, gt=0, le=1, description="The same of one API key, whoever speaks through it.")
    day: float = Field(default=1.0, gt=0, le=1, description="The same of one day (UTC) on which votes were given.")


class RewardTraining(Section):
    only_with: ClassVar = {
        "lora_rank": Only("tuning", "lora"),
        "lora_layers": Only("tuning", "lora"),
        "replay_capacity": Only("replay", above=0),
    }

    tuning: Tuning = Field(default="full", description="Train the whole trunk, or a LoRA adapter on it.")
    trunk: str = Field(
        default="",
        description="Folder of the model that the trunk begins as, of the same tokenizer; the policy's by default.",
    )
    objectives: Objectives = Field(
        default=("helpful",), description="What answers are judged by, each with heads of its own; votes may name one."
    )
    heads: Positive = Field(default=4, description="Ensemble members of each objective, on one trunk.")
    readout: Literal["last", "mean"] = Field(
        default="last",
        description="An answer's utility is read at its last token, or is the mean over its tokens: for few votes on a "
        "pretrained model.",
    )
    lr: float = Field(default=1e-3, gt=0, description="Adam's learning rate.")
    batch: Positive = Field(default=16, description="Comparisons or thumbs a step.")
    epochs: Positive = Field(default=2, description="Passes over what an update was given, replay included.")
    cold_epochs: Positive = Field(default=4, description="Passes of the first update.")
    replay: float = Field(default=1.0, ge=0, description="Replayed votes for each new one.")
    replay_capacity: Positive = Field(default=20_000, description="Votes kept for replay.")
    held_out: float = Field(default=0.05, ge=0, lt=1, description="Share of conversations that no update ever sees.")
    centring: float = Field(
        default=0.0, ge=0, description="Weight of the penalty that keeps utilities around 0; .01 is usual."
    )
    policy_accuracy: float = Field(
        default=0.5,
        ge=0,
        lt=1,
        description="The policy stays as it is until the reward model orders more than this share of held-out votes "
        "rightly, by the lower end of the 95 % interval; 0 asks for no more than votes that say what is better.",
    )
    pessimism: float = Field(default=0.0, ge=0, description="Standard deviations taken off a score: mean − k·spread.")
    lora_rank: Positive = Field(default=8, description="Rank of the adapter.")
    lora_layers: int = Field(
        default=0, ge=0, description="How many of the trunk's layers, from the top, the adapter changes; 0: all."
    )
    influence: InfluenceCaps = InfluenceCaps()
    reference_answers: int = Field(
        default=512,
        ge=2,
        description="First answers of the log, none held out, on which scores are normalised to mean 0, deviation 1.",
    )


class RolloutSettings(Section):
    per_cycle: Positive = Field(default=512, description="Answers of one policy update.")
    answers_per_prompt: Positive = Field(default=4, description="Fresh answers sampled a prompt.")
    max_tokens: Positive = Field(default=64, description="Token limit of a fresh answer.")
    max_staleness: int = Field(default=4, ge=0, description="Versions behind beyond which it is dropped.")
    max_mismatch: float = Field(
        default=0.01,
        gt=0,
        description="KL between what the live version's answers were sampled from and what the trainer makes of them, "
        "k3, nats a token, above which the alert RlhfMismatch fires; nothing is refused for it.",
    )
    prompts: Positive = Field(default=4096, description="Recent logged prompts that fresh answers are sampled for.")
    curriculum: Literal["uniform", "spread"] = Field(
        default="uniform", description="Which of them: all alike, or those more often whose answers' scores differ."
    )


class LeaseSettings(Section):
    only_with: ClassVar = dict.fromkeys(("name", "duration_s"), Only("kind", "kubernetes"))

    kind: Literal["file", "kubernetes"] = Field(
        default="file",
        description="What keeps a second trainer out: a lock in the state folder, or a Lease object of the API.",
    )
    name: str = Field(
        default="rlhf-trainer",
        pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$",
        description="Name of the Lease object, in the pod's namespace; one for each state_dir.",
    )
    duration_s: float = Field(
        default=15.0, gt=0, description="Seconds after which a Lease object that is not renewed counts as free."
    )


class TrainerSettings(ServiceSettings):
    """Settings of services/trainer."""

    variables = "RLHF_TRAINER__"
    only_with: ClassVar = {
        "policy.lora_rank": Only("tuning", "lora"),
        "policy.lora_layers": Only("tuning", "lora"),
        "chat_ca_file": Only("chat_url", "https:*"),
    }
    moved: ClassVar = {
        f"log.{name}": f"log.{name} of the chat service, which writes the log"
        for name in LogSettings.model_fields.keys() - LogAddress.model_fields.keys()
    }

    seed: int = Field(default=0, description="Seed of every random choice.")
    chat_url: str = Field(
        description="Address of the chat service, 'http://127.0.0.1:8000' or 'unix:/path': fresh rollouts."
    )
    chat_ca_file: str = Field(
        default="",
        description="PEM file of the authorities that vouch for the certificate at an https chat_url; empty: those "
        "that the system knows.",
    )
    reward_address: str = Field(description="gRPC address of the reward service, '127.0.0.1:8002'.")
    model: str = Field(description="Folder of the base model.")
    tuning: Tuning = Field(default="full", description="Train all weights of the policy, or a LoRA adapter.")
    device: Device = Field(default="auto", description="Where training computes.")
    dtype: Computed = Field(
        default="auto",
        description="What layers compute in; weights that learn, Adam, heads and losses are float32, and versions are "
        "written in the base model's type. auto: bfloat16 on a GPU, and on a CPU where it is measured to be faster, "
        "else float32; the checkpoint keeps the choice.",
    )
    recompute: bool = Field(
        default=False,
        description="Layers keep no activations for the gradient, but compute them again: a third more computing, and "
        "passes of several times the tokens in the same memory.",
    )
    optimiser_state: Literal["device", "cpu"] = Field(
        default="device",
        description="Where Adam's moments of policy and reward model are kept: with the weights, or (cpu) in the "
        "host's pinned memory, brought to the GPU a tensor at a time for each step: 8 bytes less there for each weight "
        "that learns, and 16 moved a step.",
    )
    threads: Positive = Field(default=1, description="CPU threads.")
    sharding: Sharding = Field(
        default="none",
        description="Where torchrun starts several processes that train together: each keeps all weights, gradients "
        "and moments, or (full) but a piece of those of models that learn in full (FSDP2), so that larger ones fit.",
    )
    rank_timeout_s: float = Field(
        default=600.0,
        gt=0,
        description="Where torchrun starts several processes that train together: seconds after which one that the "
        "others wait for counts as lost, and all end, to go on from the last checkpoint.",
    )
    metrics_port: Port = Field(default=8004, description="Prometheus metrics over HTTP; 0 lets the system choose.")
    min_votes: Positive = Field(default=32, description="New votes that begin a cycle.")
    cold_votes: Positive = Field(
        default=200, description="Votes before the first reward model, and so the first cycle."
    )
    policy_updates: Positive = Field(
        default=1, description="Policy updates, each a version of its own, for each update of the reward model."
    )
    join_window_s: float = Field(
        default=86_400.0, gt=0, description="How long feedback waits for its answer, and back."
    )
    keep_checkpoints: Positive = Field(default=3, description="Checkpoints kept.")
    share_checkpoints: bool = Field(
        default=True,
        description="With versions in a bucket: a checkpoint counts once it is there too, so that a trainer on "
        "another machine goes on from it; false: they are in the state folder alone.",
    )
    keep_versions: Positive = Field(
        default=10,
        description="Old versions of each kind that keep their weights, to go back to; of older ones the record stays.",
    )
    lease: LeaseSettings = LeaseSettings()
    log: LogAddress = LogAddress()
    keystore: KeystoreSettings = KeystoreSettings()
    tracing: TracingSettings = TracingSettings()
    reward: RewardTraining = RewardTraining()
    policy: PolicyTraining = PolicyTraining()
    rollout: RolloutSettings = RolloutSettings()
    gate: GateSettings = GateSettings()
    canary: CanarySettings = CanarySettings()
