"""The chart's values: every key, its default and a sentence, once.

Names of Kubernetes are written as Kubernetes writes them, settings of services as their settings files do. What must
agree between services (model, tuning, device, objectives, log, versions, hosts, secrets) stands at the top, and the
templates hand it on; settings that follow from it are refused below `settings`.

    services ▸ pods    the four services, and what every pod may be given
    stores             disks, Kafka, versions, content keys
    reach, watching    ways in and network policies; metrics, alerts, traces, tests
    kinds              what all of these are made of
"""

from typing import Annotated, Literal

from pydantic import Field

from rlhf_online.config import Objectives
from scripts.chart.kinds import Name, Object, Texts, Value
from scripts.chart.pods import Images
from scripts.chart.reach import HttpRoute, Ingress, NetworkPolicies
from scripts.chart.services import Chat, Engine, Reward, Trainer
from scripts.chart.stores import Kafka, Keystore, Strimzi, Versions
from scripts.chart.watching import Monitoring, Tests, Tracing

ServiceName = Annotated[str, Field(pattern=r"^([a-z]([-a-z0-9]*[a-z0-9])?)?$", max_length=40)]


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
