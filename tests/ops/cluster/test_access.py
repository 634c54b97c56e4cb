"""What each service account may ask of the API, and which pods have a token to ask with."""

import json

import pytest

from tests.ops.cluster.releases import Release, name_of
from tests.support.simulated_cluster import ADMIN, Object

pytestmark = pytest.mark.ops

Right = tuple[str, str, str]
"""(verb, resource, name of the object or "*")."""


def test_the_trainer_may_have_its_lease_and_nobody_may_anything_else(chat: Release) -> None:
    everybodys = rights(chat, "default")
    accounts = {name_of(one): rights(chat, name_of(one)) - everybodys for one in chat.find("serviceaccounts")}
    (trainer,) = [name for name in accounts if name.endswith("-trainer")]
    lease = lease_name(chat)
    assert accounts.pop(trainer) == {
        ("get", "leases.coordination.k8s.io", lease),
        ("update", "leases.coordination.k8s.io", lease),
        ("create", "leases.coordination.k8s.io", "*"),
    }
    assert accounts and not any(accounts.values()), accounts


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        (("get", "leases/LEASE"), True),
        (("update", "leases/LEASE"), True),
        (("create", "leases"), True),
        (("delete", "leases/LEASE"), False),
        (("list", "leases"), False),
        (("update", "leases/another"), False),
        (("get", "secrets"), False),
        (("create", "pods"), False),
        (("get", "leases/LEASE", "--namespace=default"), False),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else str(value),
)
def test_can_i(chat: Release, question: tuple[str, ...], answer: bool) -> None:
    """As the API server answers whoever comes with the trainer's token."""
    token = chat.cluster.token(f"{chat.name}-rlhf-online-trainer", chat.namespace)
    asked = [part.replace("LEASE", lease_name(chat)) for part in question]
    given = asked if "--namespace=default" in asked else [*asked, f"--namespace={chat.namespace}"]
    try:
        said = chat.cluster.kubectl("auth", "can-i", *given, token=token)
    except AssertionError as refusal:
        said = str(refusal)
    assert ("yes" in said.split()) is answer, said


def test_only_the_trainers_pod_has_a_token(chat: Release) -> None:
    """The API server's own admission mounts one where nobody says no."""
    mounted = {pod["metadata"]["labels"]["app.kubernetes.io/component"] for pod in chat.find("pods") if has_token(pod)}
    assert mounted == {"trainer"}


def has_token(pod: Object) -> bool:
    sources = [source for volume in pod["spec"]["volumes"] for source in volume.get("projected", {}).get("sources", [])]
    return any("serviceAccountToken" in source for source in sources)


def lease_name(chat: Release) -> str:
    """As the trainer's settings file has it."""
    (file,) = [one["data"]["trainer.toml"] for one in chat.find("configmaps", "trainer")]
    (line,) = [line for line in file.partition("[lease]")[2].splitlines() if line.startswith("name")]
    return json.loads(line.partition("=")[2])


def rights(chat: Release, account: str) -> set[Right]:
    """All that the API server lists for whoever comes with a token of that account."""
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectRulesReview",
        "spec": {"namespace": chat.namespace},
    }
    token = chat.cluster.token(account, chat.namespace)
    assert token != ADMIN
    given = ("create", "--validate=false", "--filename", "-", "--output", "json")
    status = json.loads(chat.cluster.kubectl(*given, stdin=json.dumps(review), token=token))["status"]
    assert not status["incomplete"]
    return {
        (verb, f"{resource}.{group}" if group else resource, name)
        for rule in status["resourceRules"]
        for verb in rule["verbs"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for name in rule.get("resourceNames") or ["*"]
    }
