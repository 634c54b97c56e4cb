"""What needs other people's kinds, and the ways in: the API server takes them; each says what its operator reads."""

from typing import Any

import pytest
import yaml

from tests.ops.cluster.releases import CHART, Release, installed, name_of, release
from tests.support.simulated_cluster import Cluster

pytestmark = pytest.mark.ops

VALUES: dict[str, Any] = {
    "hosts": ["chat.example.org"],
    "ingress": {"enabled": True, "tlsSecret": "chat-tls"},
    "httpRoute": {"enabled": True, "parentRefs": [{"name": "gateway", "namespace": "gateways"}]},
    "monitoring": {
        "podMonitors": {"enabled": True, "labels": {"release": "prometheus"}},
        "rules": {"enabled": True, "labels": {"release": "prometheus"}, "runbooksUrl": "https://example.org/runbooks"},
        "dashboards": {"enabled": True},
    },
    "chat": {"autoscaling": {"enabled": True}},
}


def test_monitors_select_pods_and_name_ports_that_they_have(chat: Release) -> None:
    monitors = chat.find("podmonitors")
    assert {one["metadata"]["labels"]["app.kubernetes.io/component"] for one in monitors} == {
        "chat",
        "reward",
        "trainer",
    }
    for monitor in monitors:
        assert monitor["metadata"]["labels"]["release"] == "prometheus"
        pods = chat.cluster.find("pods", chat.namespace, monitor["spec"]["selector"]["matchLabels"])
        assert pods
        ports = {port["name"] for pod in pods for one in pod["spec"]["containers"] for port in one.get("ports", [])}
        assert {end["port"] for end in monitor["spec"]["podMetricsEndpoints"]} <= ports


def test_rules_are_those_of_the_files_and_say_where_their_runbooks_are(chat: Release) -> None:
    files = {path.stem: yaml.safe_load(path.read_text()) for path in (CHART / "files" / "alerts").glob("*.yaml")}
    rules = chat.find("prometheusrules")
    assert files and len(rules) == len(files)
    for one in rules:
        (file,) = [content for stem, content in files.items() if name_of(one).endswith(f"-{stem}")]
        for told, written in zip(alerts(one["spec"]), alerts(file), strict=True):
            assert told["expr"] == written["expr"] and told["alert"] == written["alert"]
            assert told["annotations"]["runbook_url"].startswith("https://example.org/runbooks/")


def test_both_ways_in_send_votes_to_pods_that_load_as_well(chat: Release) -> None:
    (ingress,), (route,) = chat.find("ingresses"), chat.find("httproutes")
    services = {name_of(one): one["spec"] for one in chat.find("services")}
    (rule,) = ingress["spec"]["rules"]
    by_path = {one["path"]: one["backend"]["service"]["name"] for one in rule["http"]["paths"]}
    by_match = {one["matches"][0]["path"]["value"]: one["backendRefs"][0]["name"] for one in route["spec"]["rules"]}
    assert by_path == by_match
    assert services[by_path["/v1/feedback"]]["publishNotReadyAddresses"]
    assert not services[by_path["/"]].get("publishNotReadyAddresses")


def test_with_tls_on_its_ports_a_gateway_is_told_of_both_services(cluster: Cluster) -> None:
    tls = {"existingSecret": "chat-tls", "caConfigMap": "chat-ca"}
    with installed(cluster, {**VALUES, "chat": {"tls": tls}}) as chat:
        (policy,), services = chat.find("backendtlspolicies"), {name_of(one) for one in chat.find("services")}
        assert {target["name"] for target in policy["spec"]["targetRefs"]} <= services
        for pod in chat.find("pods", "chat"):
            (container,) = pod["spec"]["containers"]
            assert container["readinessProbe"]["httpGet"]["scheme"] == "HTTPS"


def test_keda_finds_what_it_scales(chat: Release) -> None:
    (scaler,) = chat.find("scaledobjects")
    target = scaler["spec"]["scaleTargetRef"]
    assert chat.cluster.get(target["kind"], target["name"], chat.namespace)
    assert not chat.find("hpa", "chat")


def test_strimzi_is_given_a_cluster_and_a_user_and_its_kafka_outlives_the_release(cluster: Cluster) -> None:
    namespace = cluster.namespace()
    with release(cluster, namespace) as chat:
        chat.install({"kafka": {"brokers": []}, "strimzi": {"enabled": True}})
        (kafka,), (user,) = chat.find("kafkas"), chat.find("kafkausers")
        assert user["metadata"]["labels"]["strimzi.io/cluster"] == name_of(kafka)
    assert cluster.find("kafkas", namespace) and cluster.find("kafkanodepools", namespace)


def alerts(spec: dict[str, Any]) -> list[dict[str, Any]]:
    return [rule for group in spec["groups"] for rule in group["rules"] if "alert" in rule]
