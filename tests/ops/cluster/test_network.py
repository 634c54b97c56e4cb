"""Who reaches whom, by the policies and pods that the API server has, and an evaluator of the tests."""

import pytest

from tests.ops.cluster.releases import Release, installed
from tests.support.network_policies import End, Outside, Pod, reaches
from tests.support.simulated_cluster import Cluster

pytestmark = pytest.mark.ops

BROKER, INTERNET = Outside("203.0.113.5"), Outside("198.51.100.7")


@pytest.fixture(scope="module")
def ends(chat: Release) -> dict[str, End]:
    """One pod of each component, as the API server has them, and what else there may be."""
    ours = {
        pod["metadata"]["labels"]["app.kubernetes.io/component"]: Pod(
            namespace=chat.namespace,
            labels=pod["metadata"]["labels"],
            namespace_labels={"kubernetes.io/metadata.name": chat.namespace},
            ports={
                port["name"]: port["containerPort"]
                for container in pod["spec"]["containers"]
                for port in container.get("ports", [])
            },
        )
        for pod in chat.find("pods")
    }
    assert ours.keys() >= {"chat", "reward", "trainer"}
    labels = {"app.kubernetes.io/name": "rlhf-online", "app.kubernetes.io/component": "trainer"}
    return {
        **ours,
        "stranger": Pod(namespace=chat.namespace, labels={"app": "stranger"}),
        "other-trainer": Pod(namespace=chat.namespace, labels=labels | {"app.kubernetes.io/instance": "second"}),
        "prometheus": Pod(
            namespace="monitoring", labels={}, namespace_labels={"kubernetes.io/metadata.name": "monitoring"}
        ),
        "broker": BROKER,
        "internet": INTERNET,
    }


CHAT, GRPC, REWARD, REWARD_METRICS, TRAINER_METRICS, KAFKA, API, DNS = 8000, 8001, 8002, 8003, 8004, 9093, 6443, 53


@pytest.mark.parametrize(
    ("source", "target", "port", "through"),
    [
        ("internet", "chat", CHAT, True),
        ("stranger", "chat", GRPC, True),
        ("trainer", "chat", CHAT, True),
        ("trainer", "reward", REWARD, True),
        ("prometheus", "chat", CHAT, True),
        ("prometheus", "reward", REWARD_METRICS, True),
        ("prometheus", "trainer", TRAINER_METRICS, True),
        ("chat", "broker", KAFKA, True),
        ("trainer", "broker", KAFKA, True),
        ("trainer", "internet", API, True),
        ("stranger", "reward", REWARD, False),
        ("chat", "reward", REWARD, False),
        ("chat", "trainer", TRAINER_METRICS, False),
        ("stranger", "trainer", TRAINER_METRICS, False),
        ("stranger", "reward", REWARD_METRICS, False),
        ("prometheus", "reward", REWARD, False),
        ("other-trainer", "reward", REWARD, False),
        ("internet", "trainer", TRAINER_METRICS, False),
        ("internet", "reward", REWARD, False),
        ("chat", "internet", 80, False),
        ("chat", "internet", API, False),
        ("reward", "internet", KAFKA, False),
        ("reward", "chat", CHAT, False),
        ("trainer", "internet", 80, False),
    ],
)
def test_who_reaches_whom(
    chat: Release, ends: dict[str, End], source: str, target: str, port: int, through: bool
) -> None:
    policies = chat.cluster.find("networkpolicies", chat.namespace)
    assert reaches(policies, ends[source], ends[target], port) is through


def test_the_engine_has_no_port_that_a_policy_could_open(chat: Release, ends: dict[str, End]) -> None:
    """It listens on a unix socket in the chat pod; and what else a pod may listen on is open to nobody."""
    policies = chat.cluster.find("networkpolicies", chat.namespace)
    for pod in chat.find("pods", "chat"):
        (engine,) = [one for one in pod["spec"]["initContainers"] if one["name"] == "engine"]
        assert not engine.get("ports")
    known = {CHAT, GRPC}
    for source in ("internet", "stranger", "trainer", "prometheus", "reward"):
        assert not [
            port
            for port in range(1, 65536, 7)
            if port not in known and reaches(policies, ends[source], ends["chat"], port)
        ]


def test_every_pod_may_ask_for_names(chat: Release, ends: dict[str, End]) -> None:
    policies = chat.cluster.find("networkpolicies", chat.namespace)
    for name in ("chat", "reward", "trainer"):
        assert reaches(policies, ends[name], Pod(namespace="kube-system", labels={}), DNS, "UDP")


def test_named_clients_alone_reach_the_chat_service_where_they_are_named(cluster: Cluster) -> None:
    clients = [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "gateway"}}}]
    with installed(cluster, {"networkPolicies": {"clients": clients}}) as chat:
        policies = cluster.find("networkpolicies", chat.namespace)
        labels = chat.find("pods", "chat")[0]["metadata"]["labels"]
        pod = Pod(namespace=chat.namespace, labels=labels)
        gateway = Pod(namespace="gw", labels={}, namespace_labels={"kubernetes.io/metadata.name": "gateway"})
        trainer = Pod(namespace=chat.namespace, labels=chat.find("pods", "trainer")[0]["metadata"]["labels"])
        assert reaches(policies, gateway, pod, CHAT) and reaches(policies, trainer, pod, CHAT)
        assert not reaches(policies, INTERNET, pod, CHAT)
        assert not reaches(policies, Pod(namespace=chat.namespace, labels={}), pod, CHAT)
