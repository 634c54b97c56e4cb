"""Two releases side by side, in one namespace and in two: neither selects, reaches or changes what is the other's."""

from collections.abc import Iterator

import pytest

from tests.ops.cluster.releases import Release, name_of, release
from tests.support.simulated_cluster import Cluster, Object
from tests.support.waiting import until

pytestmark = pytest.mark.ops

Pair = tuple[Release, Release]


@pytest.fixture(scope="module", params=["one namespace", "two namespaces"])
def pair(cluster: Cluster, request: pytest.FixtureRequest) -> Iterator[Pair]:
    first = cluster.namespace()
    second = first if request.param == "one namespace" else cluster.namespace()
    names = ("first", "second") if first == second else ("chat", "chat")
    with release(cluster, first, name=names[0]) as one, release(cluster, second, name=names[1]) as two:
        one.install()
        two.install()
        yield one, two


def test_services_send_to_pods_of_their_own_release(pair: Pair) -> None:
    for mine in pair:
        pods = {name_of(pod) for pod in pods_of(mine)}
        for service in installed(mine, "services"):
            behind = endpoints(mine, name_of(service))
            assert behind and behind <= pods, name_of(service)


def test_budgets_and_policies_select_pods_of_their_own_release(pair: Pair) -> None:
    for mine in pair:
        pods = {name_of(pod) for pod in pods_of(mine)}
        for one in installed(mine, "poddisruptionbudgets,networkpolicies"):
            selector = one["spec"].get("selector") or one["spec"]["podSelector"]
            found = mine.cluster.find("pods", mine.namespace, selector["matchLabels"])
            assert {name_of(pod) for pod in found} <= pods, name_of(one)
            assert selector["matchLabels"]["app.kubernetes.io/instance"] == mine.name


def test_the_trainer_of_one_may_not_have_the_lease_of_the_other(pair: Pair) -> None:
    one, two = pair
    for mine, other in ((one, two), (two, one)):
        (account,) = [name_of(found) for found in installed(mine, "serviceaccounts") if "trainer" in name_of(found)]
        (role,) = installed(other, "roles")
        leases = [name for rule in role["rules"] for name in rule.get("resourceNames", [])]
        assert leases
        token = mine.cluster.token(account, mine.namespace)
        with pytest.raises(AssertionError, match=r"^no\b"):
            mine.cluster.kubectl("auth", "can-i", "update", f"leases/{leases[0]}", "-n", other.namespace, token=token)


def test_what_becomes_of_one_leaves_the_other_as_it_is(pair: Pair) -> None:
    """The last of this file, as it takes one of them away."""
    one, two = pair
    before = state(two)
    one.upgrade({"logFormat": "text"})
    one.run("rollback", one.name, "1", "--wait")
    one.run("uninstall", one.name, "--wait")
    assert state(two) == before
    two.upgrade()


def installed(mine: Release, kind: str) -> list[Object]:
    """By what Helm has written onto them, which the chart's labels do not decide."""
    found = [
        one
        for one in mine.cluster.find(kind, mine.namespace)
        if one["metadata"].get("annotations", {}).get("meta.helm.sh/release-name") == mine.name
    ]
    assert found, kind
    return found


def pods_of(mine: Release) -> list[Object]:
    found = [pod for pod in mine.cluster.find("pods", mine.namespace) if name_of(pod).startswith(f"{mine.name}-")]
    assert found
    return found


def endpoints(mine: Release, service: str) -> set[str]:
    def found() -> set[str]:
        slices = mine.cluster.find("endpointslices", mine.namespace, {"kubernetes.io/service-name": service})
        return {end["targetRef"]["name"] for one in slices for end in one.get("endpoints") or []}

    return until(found, 30, f"pods behind {service}", poll_s=0.2)


def state(mine: Release) -> dict[tuple[str, str], Object]:
    """Of every object, what somebody has asked for."""
    kinds = "services,deployments,statefulsets,configmaps,serviceaccounts,roles,rolebindings,networkpolicies"
    return {
        (one["kind"], name_of(one)): {key: value for key, value in one.items() if key not in ("status", "metadata")}
        for one in (*installed(mine, kinds), *pods_of(mine))
    }
