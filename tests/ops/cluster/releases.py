"""The chart as people install it: its profiles, what they need beside them, and what a test changes."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.simulated_cluster import Cluster, Object
from tests.support.waiting import until

CHART = Path(__file__).resolve().parents[3] / "helm" / "rlhf-online"
PROFILES = {"cpu": ("cpu",), "gpu": ("gpu",), "ha": ("gpu", "ha"), "openshift": ("cpu", "openshift")}
"""Each by the files that are laid over one another."""
READY_S = 60
WAIT = ("--wait", "--timeout", "5m")
NEEDED = {"auth": {"existingSecret": "rlhf-auth"}, "kafka": {"brokers": ["kafka-0.example.org:9093"]}}

Values = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Release:
    """A release named `name` in `namespace`, by the helm called `helm`."""

    cluster: Cluster
    namespace: str
    name: str = "chat"
    profile: str = ""
    helm: str = "helm"
    chart: Path = CHART

    def install(self, values: Values | None = None, *options: str) -> str:
        return self._change("install", values, *options)

    def upgrade(self, values: Values | None = None, *options: str) -> str:
        return self._change("upgrade", values, *options)

    def run(self, *arguments: str) -> str:
        return self.cluster.helm(*arguments, "--namespace", self.namespace, release=self.helm)

    def find(self, kind: str, component: str = "") -> list[Object]:
        """The objects of this release, or of one of its components."""
        labels = {"app.kubernetes.io/instance": self.name}
        if component:
            labels["app.kubernetes.io/component"] = component
        return self.cluster.find(kind, self.namespace, labels)

    def workloads(self) -> dict[str, Object]:
        """Its Deployments and StatefulSets by name, once all of their pods are ready."""
        found: dict[str, Object] = {}

        def settled() -> bool:
            found.update((name_of(one), one) for one in self.find("deployments,statefulsets"))
            return all(
                one["status"].get("readyReplicas") == one["spec"]["replicas"] > 0
                and one["status"]["observedGeneration"] == one["metadata"]["generation"]
                for one in found.values()
            )

        until(settled, READY_S, lambda: f"pods of {self.find('pods')}", poll_s=0.2)
        assert found
        return found

    def ready(self, component: str) -> int:
        """Pods of that component that are ready."""
        return len([pod for pod in self.find("pods", component) if is_ready(pod)])

    def _change(self, verb: str, values: Values | None, *options: str) -> str:
        file = self.cluster.folder / f"{self.namespace}-{self.name}.json"
        file.write_text(json.dumps(merged(NEEDED, values or {})))
        files = [*(self.chart / f"values-{name}.yaml" for name in PROFILES.get(self.profile, ())), file]
        given = [f"--values={path}" for path in files]
        return self.run(verb, self.name, str(self.chart), *given, *(options or WAIT))


@contextmanager
def release(cluster: Cluster, namespace: str, **which: Any) -> Iterator[Release]:
    """One that is gone afterwards, if it ever came."""
    one = Release(cluster, namespace, **which)
    try:
        yield one
    finally:
        one.run("uninstall", one.name, "--ignore-not-found", *WAIT)


@contextmanager
def installed(cluster: Cluster, values: Values | None = None) -> Iterator[Release]:
    """One with these values, in a namespace of its own."""
    with release(cluster, cluster.namespace()) as one:
        one.install(values)
        yield one


def merged(under: Values, over: Values) -> dict[str, Any]:
    """As Helm merges values."""
    both = {key: merged(under[key], over[key]) for key in under.keys() & over.keys() if isinstance(over[key], Mapping)}
    return {**under, **over, **both}


def is_ready(pod: Object) -> bool:
    conditions = pod.get("status", {}).get("conditions", [])
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)


def name_of(one: Object) -> str:
    return one["metadata"]["name"]
