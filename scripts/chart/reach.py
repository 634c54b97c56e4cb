"""Who reaches the pods, and whom they reach."""

from typing import Annotated

from pydantic import Field

from scripts.chart.kinds import Name, Object, Texts, Value


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
