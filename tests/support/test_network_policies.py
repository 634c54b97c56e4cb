"""The evaluator, by cases of the API's reference whose outcome is written there."""

from typing import Any

import pytest

from tests.support.network_policies import Outside, Pod, reaches

WEB = Pod(namespace="shop", labels={"app": "web"}, namespace_labels={"name": "shop"}, ports={"http": 8000})
BASE = Pod(namespace="shop", labels={"app": "base"}, namespace_labels={"name": "shop"}, ports={"sql": 5432})
WATCH = Pod(namespace="watch", labels={"app": "prometheus"}, namespace_labels={"name": "watch"})
FAR = Outside("198.51.100.7")


def policy(*, select: dict[str, str] | None = None, **spec: Any) -> dict[str, Any]:
    selector = {"matchLabels": select} if select else {}
    return {"metadata": {"namespace": "shop"}, "spec": {"podSelector": selector, **spec}}


def test_without_a_policy_everything_is_open() -> None:
    assert reaches([], FAR, WEB, 1) and reaches([], WEB, FAR, 1) and reaches([], WATCH, BASE, 1, "UDP")


def test_no_rules_deny_what_the_types_say_and_without_types_ingress_alone() -> None:
    both = policy(policyTypes=["Ingress", "Egress"])
    assert not reaches([both], WATCH, WEB, 80) and not reaches([both], WEB, WATCH, 80)
    assert reaches([both], FAR, WATCH, 80), "another namespace"
    bare = policy(egress=[])
    assert not reaches([bare], WATCH, WEB, 80) and reaches([bare], WEB, WATCH, 80)


def test_both_ends_must_allow_it_and_rules_add_up() -> None:
    deny = policy(policyTypes=["Ingress", "Egress"])
    out = policy(
        select={"app": "web"},
        egress=[{"to": [{"podSelector": {"matchLabels": {"app": "base"}}}]}],
        policyTypes=["Egress"],
    )
    into = policy(select={"app": "base"}, ingress=[{"from": [{"podSelector": {"matchLabels": {"app": "web"}}}]}])
    assert not reaches([deny, out], WEB, BASE, 5432)
    assert not reaches([deny, into], WEB, BASE, 5432)
    assert reaches([deny, out, into], WEB, BASE, 5432)
    assert not reaches([deny, out, into], BASE, WEB, 5432)


@pytest.mark.parametrize(
    ("wanted", "port", "protocol", "open_"),
    [
        ({"port": 8000}, 8000, "TCP", True),
        ({"port": 8000}, 8000, "UDP", False),
        ({"port": 8000}, 8001, "TCP", False),
        ({"port": "http"}, 8000, "TCP", True),
        ({"port": "sql"}, 8000, "TCP", False),
        ({"port": 8000, "endPort": 8010}, 8010, "TCP", True),
        ({"port": 8000, "endPort": 8010}, 8011, "TCP", False),
        ({"protocol": "UDP"}, 9, "UDP", True),
        ({"protocol": "UDP"}, 9, "TCP", False),
    ],
)
def test_ports(wanted: dict[str, Any], port: int, protocol: str, open_: bool) -> None:
    assert reaches([policy(ingress=[{"ports": [wanted]}])], FAR, WEB, port, protocol) is open_


@pytest.mark.parametrize(
    ("peer", "near", "watch", "far"),
    [
        ({"podSelector": {}}, True, False, False),
        ({"namespaceSelector": {}}, True, True, False),
        ({"namespaceSelector": {"matchLabels": {"name": "watch"}}}, False, True, False),
        ({"namespaceSelector": {}, "podSelector": {"matchLabels": {"app": "prometheus"}}}, False, True, False),
        (
            {"podSelector": {"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["web"]}]}},
            True,
            False,
            False,
        ),
        ({"podSelector": {"matchExpressions": [{"key": "app", "operator": "DoesNotExist"}]}}, False, False, False),
        ({"ipBlock": {"cidr": "198.51.100.0/24"}}, False, False, True),
        ({"ipBlock": {"cidr": "0.0.0.0/0", "except": ["198.51.100.7/32"]}}, False, False, False),
    ],
)
def test_peers(peer: dict[str, Any], near: bool, watch: bool, far: bool) -> None:
    policies = [policy(select={"app": "web"}, ingress=[{"from": [peer]}])]
    assert [reaches(policies, end, WEB, 8000) for end in (BASE, WATCH, FAR)] == [near, watch, far]


def test_a_rule_that_names_nobody_is_for_everybody() -> None:
    assert all(reaches([policy(ingress=[{}])], end, WEB, 1) for end in (BASE, WATCH, FAR))
