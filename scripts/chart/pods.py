"""Images, and what every container and every pod may be given."""

from typing import Literal

from pydantic import Field

from scripts.chart.kinds import Name, Object, Texts, Value


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
