"""Autoscalers find what they scale, scale it by what is measured, and an upgrade leaves the number to them."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.ops.cluster.releases import WAIT, Release, installed, name_of
from tests.support.simulated_cluster import Cluster
from tests.support.waiting import until

pytestmark = pytest.mark.ops

SCALE_S = 60
SCALED: dict[str, dict[str, Any]] = {
    "reward": {
        "autoscaling": {"enabled": True, "minReplicas": 2, "maxReplicas": 4},
        "resources": {"requests": {"cpu": 1}},
    },
    "chat": {"autoscaling": {"enabled": True, "minReplicas": 2, "maxReplicas": 5, "kind": "hpa"}},
}
IDLE_CPU, IDLE = 0.1, 0.0


@pytest.fixture
def chat(cluster: Cluster) -> Iterator[Release]:
    cluster.measured.cpu, cluster.measured.value = IDLE_CPU, IDLE
    with installed(cluster, SCALED) as one:
        yield one
    cluster.measured.cpu, cluster.measured.value = IDLE_CPU, IDLE


def test_they_scale_by_load_and_an_upgrade_or_roll_back_changes_nothing_about_it(chat: Release) -> None:
    for component, count in (("reward", 2), ("chat", 2)):
        grown(chat, component, count)
    chat.cluster.measured.cpu, chat.cluster.measured.value = 2.0, 20.0
    for component, count in (("reward", 4), ("chat", 5)):
        grown(chat, component, count)
    for scaler in chat.find("hpa"):
        conditions = {one["type"]: one["status"] for one in scaler["status"]["conditions"]}
        assert conditions["AbleToScale"] == conditions["ScalingActive"] == "True", name_of(scaler)
    chat.upgrade({**SCALED, "logFormat": "text"})
    assert sizes(chat) == {"reward": 4, "chat": 5}
    chat.run("rollback", chat.name, "1", *WAIT)
    assert sizes(chat) == {"reward": 4, "chat": 5}
    chat.cluster.measured.cpu, chat.cluster.measured.value = IDLE_CPU, IDLE
    grown(chat, "reward", 2)
    assert sizes(chat)["chat"] == 5, "an engine that was loaded is kept for a while"


def test_what_was_scaled_by_hand_is_said_and_taken_back_when_asked(cluster: Cluster) -> None:
    with installed(cluster) as chat:
        name = next(name_of(one) for one in chat.find("statefulsets", "chat"))
        cluster.kubectl("scale", f"statefulset/{name}", "--replicas=3", "--namespace", chat.namespace)
        with pytest.raises(AssertionError, match=r'conflict with "kubectl".*\.spec\.replicas'):
            chat.upgrade()
        chat.upgrade({}, *WAIT, "--force-conflicts")
        assert sizes(chat)["chat"] == 2


def sizes(chat: Release) -> dict[str, int]:
    found = chat.find("deployments,statefulsets")
    wanted = {one["metadata"]["labels"]["app.kubernetes.io/component"]: one["spec"]["replicas"] for one in found}
    return {component: wanted[component] for component in SCALED}


def grown(chat: Release, component: str, count: int) -> None:
    def there() -> bool:
        return sizes(chat)[component] == count == chat.ready(component)

    until(
        there,
        SCALE_S,
        lambda: f"{count} pods of {component}: {[one['status'] for one in chat.find('hpa')]}",
        poll_s=0.3,
    )
