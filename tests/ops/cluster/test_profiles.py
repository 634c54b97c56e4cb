"""Each profile is installed, changed and taken back in a namespace that admits restricted pods only, with --wait."""

import json
from collections.abc import Set
from dataclasses import replace
from pathlib import Path

import pytest

from tests.ops.cluster.releases import CHART, PROFILES, WAIT, Release, installed, name_of, release
from tests.support.chart import earlier_chart
from tests.support.simulated_cluster import Cluster, Object

pytestmark = pytest.mark.ops

KEPT = {"PersistentVolumeClaim"}
"""What an uninstall leaves, on purpose."""


@pytest.mark.parametrize(("profile", "helm"), [*((profile, "helm") for profile in PROFILES), ("ha", "helm3")])
def test_install_upgrade_and_roll_back(cluster: Cluster, profile: str, helm: str) -> None:
    namespace = cluster.namespace()
    with release(cluster, namespace, profile=profile, helm=helm) as chat:
        said = chat.install()
        assert "STATUS: deployed" in said and "MISSING: there is no Secret rlhf-auth" in said
        first, settings = chat.workloads(), configuration(chat)
        scaled = {one["spec"]["scaleTargetRef"]["name"] for one in chat.find("hpa")}
        assert {one["kind"] for one in first.values()} == {"Deployment", "StatefulSet"}

        chat.upgrade({"logFormat": "text"})
        changed = chat.workloads()
        assert changed.keys() == first.keys() and configuration(chat) != settings
        for name, one in changed.items():
            assert one["spec"]["template"] != first[name]["spec"]["template"], "new settings make new pods"

        chat.run("rollback", chat.name, "1", *WAIT)
        assert configuration(chat) == settings
        assert specs(chat.workloads(), scaled) == specs(first, scaled)
    kinds = "all,configmaps,secrets,serviceaccounts,roles,rolebindings,networkpolicies,poddisruptionbudgets,pvc,leases"
    left = cluster.find(kinds, namespace, {"app.kubernetes.io/instance": chat.name})
    assert {one["kind"] for one in left} <= KEPT, [name_of(one) for one in left]


def specs(workloads: dict[str, Object], scaled: Set[str]) -> dict[str, Object]:
    """By name; how many pods there are of what is scaled by load is no matter of the chart's."""
    return {
        name: {key: value for key, value in one["spec"].items() if name not in scaled or key != "replicas"}
        for name, one in workloads.items()
    }


def test_an_upgrade_from_an_earlier_chart_keeps_workloads_and_claims(cluster: Cluster, tmp_path: Path) -> None:
    with release(cluster, cluster.namespace(), chart=earlier_chart(tmp_path)) as chat:
        chat.install()
        chat.workloads()
        kept = identities(chat)
        assert {kind for kind, _ in kept} == {"StatefulSet", "Deployment", "PersistentVolumeClaim"}
        replace(chat, chart=CHART).upgrade()
        chat.workloads()
        assert identities(chat) == kept
        chat.run("rollback", chat.name, "1", *WAIT)
        chat.workloads()
        assert identities(chat) == kept


def identities(chat: Release) -> dict[tuple[str, str], str]:
    found = chat.find("statefulsets,deployments,persistentvolumeclaims")
    return {(one["kind"], name_of(one)): one["metadata"]["uid"] for one in found}


def test_the_hook_has_made_the_topics_before_anything_starts(cluster: Cluster) -> None:
    with release(cluster, cluster.namespace()) as chat:
        for change in (chat.install, chat.upgrade):
            change()
            assert not chat.find("jobs", "topics"), "it is gone when it has succeeded"
        events = cluster.find("events", chat.namespace)
        ended = [one for one in events if one["reason"] == "Completed" and one["involvedObject"]["kind"] == "Job"]
        assert len({one["involvedObject"]["uid"] for one in ended}) == 2
        begun = min(one["firstTimestamp"] for one in events if one["involvedObject"]["kind"] == "StatefulSet")
        assert min(one["lastTimestamp"] for one in ended) <= begun


def test_the_tests_of_the_release_run(cluster: Cluster) -> None:
    with installed(cluster) as chat:
        said = chat.run("test", chat.name, "--timeout", "2m")
        assert "Succeeded" in said and "Failed" not in said


def test_a_pod_that_is_not_restricted_would_not_be_admitted(cluster: Cluster) -> None:
    """What makes the others of this file say something."""
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "root"}}
    spec = {"containers": [{"name": "root", "image": "example.org/root"}]}
    with pytest.raises(AssertionError, match=r'violates PodSecurity "restricted.*runAsNonRoot'):
        cluster.apply([{**pod, "spec": spec}], namespace=cluster.namespace())


@pytest.mark.parametrize("helm", ["helm", "helm3"])
def test_a_misspelt_value_is_refused_by_its_path_and_changes_nothing(cluster: Cluster, helm: str) -> None:
    with release(cluster, cluster.namespace(), helm=helm) as chat:
        with pytest.raises(AssertionError, match=r"replica\b"):
            chat.install({"chat": {"replica": 3}})
        assert not chat.find("all,configmaps,serviceaccounts,roles")
        chat.install()
        before = chat.workloads()
        with pytest.raises(AssertionError, match="min_vote"):
            chat.upgrade({"trainer": {"settings": {"min_vote": 3}}})
        assert chat.workloads() == before


def configuration(chat: Release) -> dict[str, str]:
    return {name_of(one): json.dumps(one["data"], sort_keys=True) for one in chat.find("configmaps")}
