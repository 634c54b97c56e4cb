"""Settings of services/reward."""

from pydantic import Field

from rlhf_online.config.base import Computed, Device, Port, Positive, ServiceSettings
from rlhf_online.config.grpc import GrpcSettings
from rlhf_online.config.tracing import TracingSettings


class RewardSettings(ServiceSettings):
    """Settings of services/reward."""

    variables = "RLHF_REWARD__"

    grpc_port: Port = Field(default=8002, description="gRPC; 0 lets the system choose.")
    grpc: GrpcSettings = GrpcSettings()
    metrics_port: Port = Field(default=8003, description="Prometheus metrics over HTTP; 0 lets the system choose.")
    model: str = Field(description="Folder of the base model that the reward model's trunk starts from.")
    device: Device = Field(default="auto", description="Where scores are computed.")
    dtype: Computed = Field(
        default="auto",
        description="What scores are computed in; weights are float32, and so are the heads. auto: what the trainer "
        "computed the version in, where this device has that, else float32.",
    )
    threads: Positive = Field(default=1, description="CPU threads.")
    max_batch_tokens: Positive = Field(default=16384, description="Tokens, padding included, of one forward pass.")
    max_wait_ms: float = Field(default=2.0, ge=0, description="How long a request waits for others to share its batch.")
    max_queue: Positive = Field(default=4096, description="Items waiting at once; beyond that RESOURCE_EXHAUSTED.")
    tracing: TracingSettings = TracingSettings()
    poll_s: float = Field(default=0.25, gt=0, description="How often the registry is asked for a new reward version.")
