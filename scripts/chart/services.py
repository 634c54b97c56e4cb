"""The four services: their pods, their settings, and how many there are."""

from typing import Annotated, Literal

from pydantic import Field

from rlhf_online.config import ChatSettings, EngineSettings, LogSettings, RewardSettings
from rlhf_online.training.settings import TrainerSettings
from scripts.chart.kinds import Count, Name, Object, Quantity, Texts, Value
from scripts.chart.pods import Container, Image, Pod
from scripts.chart.settings import SettingsOf
from scripts.chart.stores import CheckpointDisk, Disk

OWN = ("state_dir", "ready_file", "die_with_parent", "versions", "log_level", "log_format", "tracing.endpoint")
"""Settings of every service that the chart decides."""


class Service(Value):
    type: Literal["ClusterIP", "NodePort", "LoadBalancer"] = Field(default="ClusterIP", description="Its type.")
    annotations: Texts = Field(default={}, description="Its annotations, and those of the Service for votes.")
    sessionAffinity: Literal["None", "ClientIP"] = Field(
        default="None",
        description="ClientIP keeps a person on one pod, which alone lists their conversations; behind an Ingress "
        "have that hash by the Authorization header instead.",
    )


class Autoscaling(Value):
    enabled: bool = Field(default=False, description="Scale by load; `replicas` is then not written.")
    minReplicas: Annotated[int, Field(gt=0)] = Field(default=2, description="Fewest pods.")
    maxReplicas: Annotated[int, Field(gt=0)] = Field(default=8, description="Most pods.")


class ChatTls(Value):
    existingSecret: Name = Field(
        default="",
        description="Secret with `tls.crt` and `tls.key`, for the name NAME-chat.NAMESPACE.svc: HTTP and gRPC speak "
        "TLS and nothing else, and probes, Services, monitors and ways in follow. A renewed one is taken up by itself. "
        "Empty: in the clear.",
    )
    caConfigMap: Name = Field(
        default="",
        description="ConfigMap whose `ca.crt` vouches for it, by which the trainer, `helm test`, Prometheus and "
        "gateways know the service; empty: authorities that the images and they themselves know.",
    )


class ChatAutoscaling(Autoscaling):
    kind: Literal["keda", "hpa"] = Field(
        default="keda",
        description="KEDA asks Prometheus, which must scrape as `monitoring.podMonitors` has it; hpa needs an adapter "
        "that serves the pods' metric `metric`.",
    )
    metric: str = Field(default="vllm:num_requests_waiting", description="Requests that wait in the engine.")
    waitingPerPod: Annotated[int, Field(gt=0)] = Field(default=4, description="Above that, a pod more.")
    prometheusUrl: str = Field(default="http://prometheus-operated.monitoring:9090", description="For KEDA.")


class RewardAutoscaling(Autoscaling):
    minReplicas: Annotated[int, Field(gt=0)] = Field(default=1, description="Fewest pods.")
    maxReplicas: Annotated[int, Field(gt=0)] = Field(default=4, description="Most pods.")
    cpuUtilization: Annotated[int, Field(gt=0, le=100)] = Field(default=70, description="Percent of the CPU request.")


class Chat(Pod):
    image: Image = Image(repository="rlhf-online-chat")
    replicas: Count = Field(default=2, description="Pods, each with its engine.")
    canaryReplicas: Count = Field(
        default=0,
        description="Pods beside them that serve the canary while there is one, for `tuning: full`; their share of the "
        "pods is its share of the conversations. With `lora` set `trainer.settings.canary.steps` alone.",
    )
    settings: Annotated[
        Object,
        SettingsOf(
            ChatSettings,
            (
                *(*OWN, "http_port", "grpc_port", "tls", "local_socket", "keys_file", "log", "engine", "objectives"),
                *("swap.canary", "drain_s"),
            ),
        ),
    ] = Field(default={}, description="Settings of the chat service, as its file has them: limits, swap, reasons, …")
    log: Annotated[Object, SettingsOf(LogSettings, ("url", "topic_prefix", "kafka"))] = Field(
        default={}, description="`[log]` of its spool: segment_bytes, retain_gib, retain_days."
    )
    disk: Disk = Disk()
    service: Service = Service()
    tls: ChatTls = ChatTls()
    autoscaling: ChatAutoscaling = ChatAutoscaling()
    preStopSeconds: Annotated[int, Field(gt=0)] = Field(
        default=10, description="How long a pod that ends still takes requests, until no one sends it any."
    )


class Engine(Container):
    image: Image = Image(repository="rlhf-online-engine")
    settings: Annotated[Object, SettingsOf(EngineSettings, ("mode", "url", "model", "tuning", "device"))] = Field(
        default={}, description="Settings of the engine: max_model_len, max_num_seqs, kv_cache_gib, dtype, …"
    )
    extraArgs: list[str] = Field(
        default=[],
        description="Flags of vLLM's own behind `settings.extra_args`, [--kv-cache-dtype, fp8]; those that the product "
        "sets, or that open the engine, are refused as it starts. The other services have no flags but their settings.",
    )
    sharedMemory: Quantity = Field(default="1Gi", description="/dev/shm, for an engine on several GPUs.")


class Reward(Pod):
    image: Image = Image(repository="rlhf-online-reward")
    replicas: Count = Field(default=1, description="Pods.")
    settings: Annotated[Object, SettingsOf(RewardSettings, (*OWN, "grpc_port", "metrics_port", "model", "device"))] = (
        Field(default={}, description="Settings of the reward service: threads, max_batch_tokens, …")
    )
    autoscaling: RewardAutoscaling = RewardAutoscaling()


class Trainer(Pod):
    image: Image = Image(repository="rlhf-online-trainer")
    enabled: bool = Field(
        default=True,
        description="false: nothing learns; chat and votes go on. A new installation "
        "needs it once, for its first version.",
    )
    ranks: Annotated[int, Field(ge=1)] = Field(
        default=1,
        description="Processes that train together in its pod (torchrun), one a GPU that `resources` asks for: each "
        "with the whole models, or, with settings.sharding: full, a piece of them.",
    )
    nodes: Annotated[int, Field(ge=1)] = Field(
        default=1,
        description="Pods that train together, each with `ranks` processes and `resources`, as one LeaderWorkerSet, "
        "whose controller must be there (0.7 or later). The first is the trainer, the others keep nothing.",
    )
    settings: Annotated[
        Object,
        SettingsOf(
            TrainerSettings,
            (
                *(*OWN, "chat_url", "chat_ca_file", "reward_address", "model", "tuning", "device"),
                *("metrics_port", "log", "lease.kind", "lease.name", "reward.objectives"),
            ),
        ),
    ] = Field(default={}, description="Settings of the trainer: min_votes, reward, policy, rollout, gate, canary, …")
    disk: CheckpointDisk = CheckpointDisk()
    sharedMemory: Quantity = Field(default="1Gi", description="/dev/shm.")
