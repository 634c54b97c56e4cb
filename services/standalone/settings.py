"""Settings of services/standalone: of the whole, from which those of the services are made."""

from pydantic import Field

from rlhf_online.config import (
    Device,
    EngineSettings,
    LimitSettings,
    LogSettings,
    Port,
    Positive,
    ServiceSettings,
    SwapSettings,
    Tuning,
)
from rlhf_online.gate.settings import GateSettings
from rlhf_online.training.policy.settings import PolicyTraining
from rlhf_online.training.settings import RewardTraining, RolloutSettings


class StandaloneSettings(ServiceSettings):
    """Settings of services/standalone: the three services on one machine, with the local log by default."""

    variables = "RLHF_UP__"

    model: str = Field(description="Folder of the base model.")
    tuning: Tuning = Field(default="lora", description="Train a LoRA adapter, or all weights.")
    http_port: Port = Field(default=8000, description="OpenAI-compatible HTTP; 0 lets the system choose.")
    grpc_port: Port = Field(default=8001, description="gRPC; 0 lets the system choose.")
    seed: int = Field(default=0, description="Seed of every random choice of the trainer.")
    device: Device = Field(default="auto", description="Where everything computes.")
    trainer_threads: Positive = Field(default=1, description="CPU threads of the trainer.")
    min_votes: Positive = Field(default=32, description="New votes that begin a training cycle.")
    cold_votes: Positive = Field(default=200, description="Votes before the first training cycle.")
    policy_updates: Positive = Field(default=1, description="Policy updates for each update of the reward model.")
    keep_versions: Positive = Field(
        default=10, description="Old versions of each kind that keep their weights, to go back to."
    )
    log: LogSettings = LogSettings()
    engine: EngineSettings = EngineSettings()
    limits: LimitSettings = LimitSettings()
    swap: SwapSettings = SwapSettings()
    reward: RewardTraining = RewardTraining()
    policy: PolicyTraining = PolicyTraining()
    rollout: RolloutSettings = RolloutSettings()
    gate: GateSettings = GateSettings()
