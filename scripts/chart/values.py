"""The chart's values: every key, its default and a sentence, once.

Names of Kubernetes are written as Kubernetes writes them, settings of services as their settings files do. What must
agree between services (model, tuning, device, objectives, log, versions, hosts, secrets) stands at the top, and the
templates hand it on; settings that follow from it are refused below `settings`.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from rlhf_online.config import ChatSettings, EngineSettings, KafkaSettings, LogSettings, Objectives, RewardSettings
from rlhf_online.training.settings import TrainerSettings
from scripts.chart.settings import SettingsOf

Object = dict[str, Any]
"""An object of Kubernetes' own, handed on as it is."""
Texts = dict[str, str]
Quantity = Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|P|Ki|Mi|Gi|Ti|Pi)?$")]
NamePattern = r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?)?$"
Name = Annotated[str, Field(pattern=NamePattern, max_length=253)]
ServiceName = Annotated[str, Field(pattern=r"^([a-z]([-a-z0-9]*[a-z0-9])?)?$", max_length=40)]
Count = Annotated[int, Field(ge=0)]
Seconds = Annotated[int, Field(ge=0)]

OWN = ("state_dir", "ready_file", "die_with_parent", "versions", "log_level", "log_format", "tracing.endpoint")
"""Settings of every service that the chart decides."""
FILES = ("ca_file", "cert_file", "key_file", "password_file")


class Value(BaseModel):
    model_config = ConfigDict(extra="forbid")


class SecretKey(Value):
    name: Name = Field(default="", description="Name of the Secret; empty: none.")
    key: str = Field(default="", description="Its key.")


class PullSecret(Value):
    name: Name = Field(default="", description="Name of a Secret of type kubernetes.io/dockerconfigjson.")


class Images(Value):
    registry: str = Field(default="", description="Registry and path before the repositories, 'ghcr.io/example'.")
    tag: str = Field(
        default="",
        description="Tag of all images, the engine's with -gpu or -cpu behind; empty: the appVersion.",
    )
    pullPolicy: Literal["Always", "IfNotPresent", "Never"] = Field(default="IfNotPresent", description="When to pull.")
    pullSecrets: list[PullSecret] = Field(default=[], description="Secrets to pull with, [{name: …}].")


class Image(Value):
    repository: str = Field(default="", description="Repository below `images.registry`.")
    tag: str = Field(default="", description="Another tag than `images.tag`.")
    digest: str = Field(default="", pattern=r"^(sha256:[0-9a-f]{64})?$", description="Wins over the tag.")


class Container(Value):
    image: Image = Image()
    resources: Object = Field(
        default={}, description="Requests and limits of Kubernetes; `rlhf-online size` computes them."
    )
    extraEnv: list[Object] = Field(
        default=[],
        description="More variables, [{name: …, value: …}]; one of a name that is there already replaces it.",
    )
    extraEnvFrom: list[Object] = Field(default=[], description="More sources of variables, [{secretRef: {name: …}}].")
    extraVolumeMounts: list[Object] = Field(default=[], description="More mounts.")


class Pod(Container):
    podLabels: Texts = Field(default={}, description="More labels of the pods.")
    podAnnotations: Texts = Field(default={}, description="More annotations of the pods.")
    serviceAccount: Object = Field(
        default={}, description="{annotations: …} for a cloud's identity, or {name: …} of an account that exists."
    )
    nodeSelector: Texts = Field(default={}, description="Labels that nodes must have.")
    tolerations: list[Object] = Field(default=[], description="Taints that are tolerated.")
    affinity: Object = Field(default={}, description="Affinity of Kubernetes.")
    topologySpreadConstraints: list[Object] = Field(
        default=[], description="Instead of the default: spread over zones and nodes where that can be."
    )
    priorityClassName: Name = Field(default="", description="Priority class.")
    runtimeClassName: Name = Field(default="", description="Runtime class, 'nvidia' where nodes need it.")
    extraVolumes: list[Object] = Field(default=[], description="More volumes.")


class Disk(Value):
    enabled: bool = Field(
        default=True,
        description="A volume a pod. false: an emptyDir; what was acknowledged and is not in Kafka yet is lost with "
        "the pod, and so are people's own lists of conversations.",
    )
    size: Quantity = Field(default="20Gi", description="Its size.")
    storageClass: Name = Field(default="", description="Storage class; empty: the cluster's default.")
    accessMode: Literal["ReadWriteOnce", "ReadWriteOncePod"] = Field(
        default="ReadWriteOnce", description="One pod has it."
    )


class CheckpointDisk(Disk):
    enabled: bool = Field(
        default=True,
        description="A volume for checkpoints and the ledger. false: an emptyDir; with versions in a bucket a new pod "
        "goes on from the checkpoint there, else it learns all of Kafka anew.",
    )
    size: Quantity = Field(default="100Gi", description="Its size.")


class SharedDisk(Value):
    existingClaim: Name = Field(
        default="", description="A claim that exists; empty: one is made, and kept at uninstall."
    )
    size: Quantity = Field(default="200Gi", description="Size of the claim that is made.")
    storageClass: Name = Field(
        default="", description="Storage class; it must offer ReadWriteMany, and working file locks."
    )


class Model(Value):
    path: str = Field(default="/models/policy", pattern=r"^/", description="The base model's folder, in every pod.")
    volume: Object = Field(
        default={},
        description="Where /models comes from, any volume of Kubernetes, mounted read-only: {persistentVolumeClaim: "
        "{claimName: models}}, {image: {reference: …}}, {csi: …}; empty: the images hold the model.",
    )


class Auth(Value):
    existingSecret: Name = Field(
        default="",
        description="Required. A Secret with `operator.token` and `person.salt` (each 16 characters or more, never "
        "to change) and `keys.json` (as `rlhf-online keys create --file` writes it; read again when it changes).",
    )


class Kafka(Value):
    brokers: list[Annotated[str, Field(pattern=r"^[^\s,/]+:[0-9]{1,5}$")]] = Field(
        default=[], description="Required, unless `strimzi.enabled`: [kafka-0.example.org:9093, …]."
    )
    topicPrefix: str = Field(
        default="rlhf", pattern=r"^[a-zA-Z0-9._-]+$", description="First part of the topics' names."
    )
    settings: Annotated[Object, SettingsOf(KafkaSettings, FILES)] = Field(
        default={}, description="`[log.kafka]` of every service: partitions, replication, tls, mechanism, username, …"
    )
    passwordSecret: SecretKey = SecretKey(key="password")
    caSecret: SecretKey = SecretKey(key="ca.crt")
    certSecret: Name = Field(default="", description="Secret with `tls.crt` and `tls.key`, where brokers ask for one.")
    createTopics: bool = Field(
        default=True,
        description="A Job, before each install and upgrade, creates and alters the topics; it deletes none.",
    )


class Strimzi(Value):
    enabled: bool = Field(default=False, description="Have Strimzi, which must be there, run a Kafka for this release.")
    version: str = Field(default="", description="Kafka's version; empty: the operator's default.")
    replicas: Annotated[int, Field(gt=0)] = Field(
        default=3, description="Brokers; topics have as many replicas, at most 3."
    )
    storage: Object = Field(
        default={"type": "persistent-claim", "size": "100Gi", "deleteClaim": False}, description="Strimzi's storage."
    )
    resources: Object = Field(default={}, description="Of a broker.")


class Versions(Value):
    url: str = Field(
        default="",
        pattern=r"^((s3|gs|az)://[^/\s]+(/[^\s]*)?)?$",
        description="A bucket, 's3://bucket/prefix'; empty: a volume that all pods mount (ReadWriteMany).",
    )
    existingSecret: Name = Field(
        default="",
        description="Secret whose keys are variables: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_ENDPOINT_URL, "
        "AWS_REGION, …; none where the service accounts' annotations give access.",
    )
    cacheGib: float = Field(
        default=8,
        ge=0,
        description="`versions.cache_gib`: local copies of a bucket's versions, on the volumes of chat and trainer. Of "
        "each kind four stay in any case: with all weights plan for as many.",
    )
    disk: SharedDisk = SharedDisk()


class Keystore(Value):
    url: str = Field(
        default="",
        pattern=r"^((s3|gs|az)://[^/\s]+(/[^\s]*)?)?$",
        description="A bucket for people's content keys, 's3://bucket/prefix', with the credentials of `versions`; "
        "empty: nothing that people write is sealed.",
    )
    existingSecret: Name = Field(
        default="",
        description="Secret whose key `kek` (16 characters or more, never to change) wraps these keys, so that neither "
        "it nor the bucket alone opens anything.",
    )


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


class Ingress(Value):
    enabled: bool = Field(default=False, description="An Ingress for `hosts`.")
    className: Name = Field(default="", description="Ingress class.")
    annotations: Texts = Field(
        default={}, description="Annotations; streams need a read time-out above answer_timeout_s."
    )
    tlsSecret: Name = Field(default="", description="Secret of the certificate for `hosts`.")


class HttpRoute(Value):
    enabled: bool = Field(default=False, description="An HTTPRoute of the Gateway API for `hosts`.")
    parentRefs: list[Object] = Field(default=[], description="Gateways, [{name: …, namespace: …}].")
    annotations: Texts = Field(default={}, description="Annotations.")


class NetworkPolicies(Value):
    enabled: bool = Field(default=True, description="Deny everything to and from the pods but what is listed here.")
    clients: list[Object] = Field(
        default=[],
        description="Who may reach the chat service's ports, peers of Kubernetes; empty: everybody, with a key.",
    )
    prometheus: list[Object] = Field(
        default=[{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}],
        description="Who may scrape.",
    )
    storePorts: list[Annotated[int, Field(gt=0, le=65535)]] = Field(
        default=[443],
        description="Ports of the bucket's storage; others where AWS_ENDPOINT_URL names one. Without "
        "`versions.existingSecret` also the addresses are open that give a cloud's credentials.",
    )
    apiServerPorts: list[Annotated[int, Field(gt=0, le=65535)]] = Field(
        default=[443, 6443], description="Ports of the API server, for the trainer's lease."
    )
    extraEgress: list[Object] = Field(default=[], description="More that all pods may reach, rules of Kubernetes.")


class PodMonitors(Value):
    enabled: bool = Field(default=False, description="PodMonitors of the Prometheus operator.")
    interval: str = Field(default="15s", pattern=r"^[0-9]+(ms|s|m)$", description="Between two scrapes.")
    labels: Texts = Field(default={}, description="Labels by which Prometheus selects them, {release: …}.")
    nativeHistograms: bool = Field(
        default=False,
        description="Have Prometheus (3.4 or later, its operator 0.82) keep each histogram as a native one as well, a "
        "series in place of one a bucket; the classic ones stay, as rules and dashboards ask for them.",
    )


class Rules(Value):
    enabled: bool = Field(default=False, description="The alert rules, as PrometheusRules.")
    labels: Texts = Field(default={}, description="Labels by which Prometheus selects them.")
    runbooksUrl: str = Field(default="docs/runbooks", description="What the alerts' links to runbooks begin with.")


class Dashboards(Value):
    enabled: bool = Field(default=False, description="The dashboards, as ConfigMaps for Grafana's sidecar.")
    labels: Texts = Field(default={"grafana_dashboard": "1"}, description="Labels by which it finds them.")
    annotations: Texts = Field(
        default={"grafana_folder": "rlhf-online"}, description="Annotations, such as the folder."
    )


class Monitoring(Value):
    podMonitors: PodMonitors = PodMonitors()
    rules: Rules = Rules()
    dashboards: Dashboards = Dashboards()


class Tracing(Value):
    endpoint: str = Field(
        default="",
        pattern=r"^(https?://[^\s/]+(/[^\s]*)?)?$",
        description="Where all services send spans, OTLP over HTTP: 'http://collector:4318'; empty: nowhere.",
    )


class Tests(Value):
    votes: Annotated[int, Field(gt=0)] = Field(default=1, description="Answers that `helm test` asks for and votes on.")
    until: Literal["joined", "trained", "live"] = Field(
        default="joined",
        description="What must become of one of its votes: joined with its answer by the trainer; trained, which takes "
        "as many votes as `trainer.settings.min_votes` (cold_votes at first); live.",
    )
    timeoutSeconds: Seconds = Field(default=300, description="How long it waits for that.")


class Values(Value):
    """See the module."""

    nameOverride: ServiceName = Field(default="", description="Instead of the chart's name in labels and names.")
    fullnameOverride: ServiceName = Field(default="", description="Instead of the release's name in names.")
    commonLabels: Texts = Field(default={}, description="Labels of every object.")
    images: Images = Images()
    model: Model = Model()
    tuning: Literal["lora", "full"] = Field(
        default="lora", description="Train a LoRA adapter (swaps need no pause), or all weights."
    )
    device: Literal["cuda", "cpu"] = Field(
        default="cuda", description="Where models compute; GPUs are asked for in `resources`."
    )
    objectives: Objectives = Field(default=("helpful",), description="What answers are judged by; votes may name one.")
    logLevel: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Least severe line shown."
    )
    logFormat: Literal["json", "text"] = Field(default="json", description="How a line of the logs is written.")
    tracing: Tracing = Tracing()
    hosts: list[Annotated[str, Field(pattern=r"^(\*\.)?[a-z0-9]([a-z0-9.-]*[a-z0-9])?$")]] = Field(
        default=[], description="Names under which browsers reach the page: of Ingress, HTTPRoute and `allowed_hosts`."
    )
    auth: Auth = Auth()
    kafka: Kafka = Kafka()
    strimzi: Strimzi = Strimzi()
    versions: Versions = Versions()
    keystore: Keystore = Keystore()
    chat: Chat = Chat()
    engine: Engine = Engine()
    reward: Reward = Reward()
    trainer: Trainer = Trainer()
    ingress: Ingress = Ingress()
    httpRoute: HttpRoute = HttpRoute()
    networkPolicies: NetworkPolicies = NetworkPolicies()
    monitoring: Monitoring = Monitoring()
    podSecurityContext: Object = Field(
        default={
            "runAsNonRoot": True,
            "runAsUser": 10001,
            "runAsGroup": 10001,
            "fsGroup": 10001,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        description="Of every pod; null for a key takes it away, as values-openshift.yaml does.",
    )
    securityContext: Object = Field(
        default={
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        description="Of every container.",
    )
    extraObjects: list[Object] = Field(default=[], description="More objects, each rendered as a template.")
    globals: Object = Field(
        default={}, alias="global", description="What a chart that holds this one hands to it; not read."
    )
    tests: Tests = Tests()
