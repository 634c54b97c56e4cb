"""Pods are taken away one at a time, by a rollout as by somebody who drains nodes."""

import json
from collections.abc import Iterator

import pytest

from tests.ops.cluster.releases import Release, installed, name_of
from tests.support.simulated_cluster import Cluster, Object
from tests.support.waiting import until

pytestmark = pytest.mark.ops

SIZE = {"chat": {"replicas": 3}, "reward": {"replicas": 3}}
READY_S = 60


@pytest.fixture
def chat(cluster: Cluster) -> Iterator[Release]:
    with installed(cluster, SIZE) as one:
        yield one


def test_a_rollout_keeps_the_budgets(chat: Release) -> None:
    before = {pod["metadata"]["uid"] for pod in chat.find("pods")}
    with chat.cluster.watched("poddisruptionbudgets", chat.namespace) as seen:
        chat.upgrade({**SIZE, "logFormat": "text"})
    assert not before & {pod["metadata"]["uid"] for pod in chat.find("pods")}, "each pod is a new one"
    told = [one for one in seen if one["status"].get("expectedPods") == 3]
    assert {name_of(one) for one in told} == {name_of(one) for one in chat.find("poddisruptionbudgets")}
    assert any(one["status"]["currentHealthy"] < 3 for one in told), "pods were replaced, and it was seen"
    for one in told:
        assert one["status"]["currentHealthy"] >= one["status"]["desiredHealthy"] == 2, one


@pytest.mark.parametrize("component", ["chat", "reward"])
def test_the_next_pod_is_evicted_when_the_last_one_is_back(chat: Release, component: str) -> None:
    first, second, *_ = chat.find("pods", component)
    with chat.cluster.paused("kwok"):  # pods neither end nor start
        evict(chat, first)
        with pytest.raises(AssertionError, match="would violate the pod's disruption budget"):
            evict(chat, second)
    until(lambda: chat.ready(component) == 3 and gone(chat, first), READY_S, "the pod to be back", poll_s=0.2)
    until(lambda: allowed(chat, component) == 1, READY_S, "another one to be allowed", poll_s=0.2)
    evict(chat, second)


def gone(chat: Release, pod: Object) -> bool:
    return pod["metadata"]["uid"] not in {one["metadata"]["uid"] for one in chat.find("pods")}


def allowed(chat: Release, component: str) -> int:
    (budget,) = chat.find("poddisruptionbudgets", component)
    return budget["status"]["disruptionsAllowed"]


def evict(chat: Release, pod: Object) -> None:
    meta = {"name": name_of(pod), "namespace": chat.namespace}
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": meta}
    path = f"/api/v1/namespaces/{chat.namespace}/pods/{name_of(pod)}/eviction"
    chat.cluster.kubectl("create", "--raw", path, "--filename", "-", stdin=json.dumps(eviction))
