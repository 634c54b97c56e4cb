"""Policies that hold for every installation."""

import json
import subprocess
import sys
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.chart import CHART, LEAST, PROFILES, Object, Rendered, merged, refusal, render, template
from tests.support.ops_tools import tool


@pytest.fixture(scope="module")
def objects() -> Rendered:
    return render()


def containers(pod: Object) -> list[Object]:
    return [*pod["spec"].get("initContainers", ()), *pod["spec"]["containers"]]


def test_values_schema_and_readme_are_what_the_model_says() -> None:
    done = subprocess.run([sys.executable, "-m", "scripts.chart", "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("profile", [(), *PROFILES], ids="+".join)
def test_lint_finds_nothing(profile: tuple[str, ...], tmp_path: Path) -> None:
    values = tmp_path / "values.json"
    values.write_text(json.dumps(LEAST))
    files = [word for name in profile for word in ("--values", CHART / f"values-{name}.yaml")]
    command = [tool("helm"), "lint", "--strict", CHART, *files, "--values", values]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout


def test_every_pod_meets_pod_security_restricted(objects: Rendered) -> None:
    for pod in objects.pods():
        security = pod["spec"]["securityContext"]
        assert security["runAsNonRoot"] and security["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in containers(pod):
            own = container["securityContext"]
            assert own["allowPrivilegeEscalation"] is False and own["readOnlyRootFilesystem"] is True
            assert own["capabilities"] == {"drop": ["ALL"]}


def test_only_the_trainer_has_a_token_and_may_only_keep_its_lease(objects: Rendered) -> None:
    with_token = [pod["metadata"] for pod in objects.pods() if pod["spec"]["automountServiceAccountToken"]]
    assert [pod["labels"]["app.kubernetes.io/component"] for pod in with_token] == ["trainer"]
    (role,) = objects.of("Role")
    assert role["rules"] == [
        {
            "apiGroups": ["coordination.k8s.io"],
            "resources": ["leases"],
            "resourceNames": [objects.settings("trainer")["lease"]["name"]],
            "verbs": ["get", "update"],
        },
        {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["create"]},
    ]
    assert not objects.of("ClusterRole")


def test_selectors_carry_release_and_component(objects: Rendered) -> None:
    """Of two workloads, and of two releases, none answers for the other."""
    selectors = [json.dumps(each["spec"]["selector"]["matchLabels"], sort_keys=True) for each in workloads(objects)]
    assert len(set(selectors)) == len(selectors)
    for each in workloads(objects):
        labels = each["spec"]["template"]["metadata"]["labels"]
        selector = each["spec"]["selector"]["matchLabels"]
        assert selector.items() <= labels.items()
        assert {"app.kubernetes.io/instance", "app.kubernetes.io/component"} <= selector.keys()


def test_two_releases_share_no_name() -> None:
    names = [{(each["kind"], each["metadata"]["name"]) for each in render(release=release)} for release in ("a", "b")]
    assert not names[0] & names[1]


def test_names_are_as_long_as_kubernetes_lets_them_be() -> None:
    """63 characters for a label, of which a StatefulSet's pods need eleven for the hash of their revision."""
    longest = "a-release-name-that-is-as-long-as-helm-lets-it-be-53c"
    objects = render(merged(LEAST, {"tuning": "full", "chat": {"canaryReplicas": 1}}), release=longest)
    assert {each["metadata"]["labels"]["app.kubernetes.io/instance"] for each in objects} == {longest}
    assert max(len(each["metadata"]["name"]) for each in objects.of("StatefulSet")) <= 63 - 11
    assert "has no dot" in template(LEAST, release="chat.v2").stderr


def test_labels_that_are_given_stand_once_and_do_not_touch_selectors() -> None:
    given = {"app.kubernetes.io/part-of": "platform", "app.kubernetes.io/component": "x", "team": "ai"}
    said = template(merged(LEAST, {"commonLabels": given, "chat": {"podLabels": {"team": "chat"}}})).stdout
    objects = [each for each in yaml.load_all(said, Unique) if each]
    labels = [each["metadata"]["labels"] for each in objects]
    assert {each["app.kubernetes.io/part-of"] for each in labels} == {"platform"}
    assert "x" not in {each["app.kubernetes.io/component"] for each in labels}
    (chat,) = [each for each in objects if each["kind"] == "StatefulSet" and each["metadata"]["name"].endswith("chat")]
    assert chat["spec"]["template"]["metadata"]["labels"]["team"] == "chat"


class Unique(yaml.CSafeLoader):
    """Refuses a key that stands there twice, as Argo CD and kustomize do."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        keys = [key.value for key, _ in node.value]
        assert len(keys) == len(set(keys)), keys
        return super().construct_mapping(node, deep)


def test_names_that_look_like_numbers_stay_names() -> None:
    numbers = {
        "fullnameOverride": "chat",
        "auth": {"existingSecret": "007"},
        "versions": {"disk": {"storageClass": "1e3"}},
        "chat": {"disk": {"storageClass": "12"}, "priorityClassName": "0x1f", "podLabels": {"team": "7"}},
        "commonLabels": {"cost-centre": "4711"},
    }
    objects = render(merged(LEAST, numbers), release="42")
    for each in [each["metadata"] for each in (*objects, *objects.pods())]:
        assert all(isinstance(text, str) for text in [*each["labels"].values(), *each.get("annotations", {}).values()])
    spec = objects.one("StatefulSet", "-chat")["spec"]
    assert spec["volumeClaimTemplates"][0]["spec"]["storageClassName"] == "12"
    assert spec["template"]["spec"]["priorityClassName"] == "0x1f"
    assert {"007"} == {each["secret"]["secretName"] for each in spec["template"]["spec"]["volumes"] if "secret" in each}
    assert objects.of("PersistentVolumeClaim")[0]["spec"]["storageClassName"] == "1e3"


def workloads(objects: Rendered) -> list[Object]:
    return [each for each in objects if each["kind"] in ("StatefulSet", "Deployment")]


def test_a_new_release_of_the_chart_alone_makes_no_new_pods() -> None:
    """Nor does it change what Kubernetes does not let change: selectors and the volumes of a StatefulSet."""
    for each in workloads(render()):
        text = json.dumps([each["spec"]["template"], each["spec"].get("volumeClaimTemplates")])
        assert "helm.sh/chart" not in text


def test_changed_settings_make_new_pods_of_their_service_alone() -> None:
    before, after = (
        {each["metadata"]["name"]: each["spec"]["template"]["metadata"]["annotations"] for each in workloads(objects)}
        for objects in (render(), render(merged(LEAST, {"reward": {"settings": {"threads": 3}}})))
    )
    changed = [name for name in before if before[name] != after[name]]
    assert [name.rpartition("-")[2] for name in changed] == ["reward"]


def test_log_levels_make_no_new_pods() -> None:
    """The services read them again when their file changes."""
    levels = {"settings": {"log_levels": {"httpx": "debug", "rlhf_online.engine": "info"}}}
    quiet = merged(LEAST, {"logLevel": "debug", "chat": levels, "reward": levels, "trainer": levels})
    before, after = render(), render(quiet)
    assert after.settings("chat")["log_levels"] == levels["settings"]["log_levels"]
    assert [each["spec"]["template"] for each in workloads(after)] == [
        each["spec"]["template"] for each in workloads(before)
    ]


def test_the_engine_is_a_sidecar_that_ends_after_the_chat_service(objects: Rendered) -> None:
    pod = objects.one("StatefulSet", "-chat")["spec"]["template"]["spec"]
    (engine,) = pod["initContainers"]
    assert engine["restartPolicy"] == "Always"
    shared = {each["mountPath"] for each in engine["volumeMounts"]} & {
        each["mountPath"] for each in pod["containers"][0]["volumeMounts"]
    }
    assert {"/run/rlhf-online", "/var/lib/rlhf-online"} <= shared
    read_only = {each["mountPath"] for each in engine["volumeMounts"] if each.get("readOnly")}
    assert {"/var/lib/rlhf-online", "/var/lib/rlhf-online-versions", "/etc/rlhf-online"} <= read_only
    assert "ports" not in engine


def test_a_rollout_needs_no_gpu_more(objects: Rendered) -> None:
    """Of a Deployment's pods Kubernetes would make one more first, which waits for ever where all GPUs are taken."""
    assert objects.one("Deployment", "-reward")["spec"]["strategy"]["rollingUpdate"]["maxSurge"] == 0


def test_the_engines_image_is_that_of_the_device() -> None:
    image = {"images": {"registry": "example.org/team/", "tag": "1.2"}}
    for device, tag in (("cpu", "1.2-cpu"), ("cuda", "1.2-gpu")):
        pod = render(merged(LEAST, image, {"device": device})).one("StatefulSet", "-chat")["spec"]["template"]["spec"]
        assert pod["initContainers"][0]["image"] == f"example.org/team/rlhf-online-engine:{tag}"
        assert pod["containers"][0]["image"] == "example.org/team/rlhf-online-chat:1.2"
    digest = f"sha256:{'0' * 64}"
    pod = render(merged(LEAST, {"engine": {"image": {"digest": digest}}})).one("StatefulSet", "-chat")["spec"]
    assert pod["template"]["spec"]["initContainers"][0]["image"] == f"rlhf-online-engine@{digest}"


def test_loading_is_not_dead_and_keeps_no_votes_away() -> None:
    """Kubernetes starts the chat service once a sidecar's startup probe has passed: there is none."""
    values = merged(LEAST, {"engine": {"settings": {"start_timeout_s": 1799.5}}})
    (engine,) = render(values).one("StatefulSet", "-chat")["spec"]["template"]["spec"]["initContainers"]
    assert engine["livenessProbe"]["initialDelaySeconds"] == 1800
    assert "startupProbe" not in engine


def test_secrets_are_named_and_never_rendered(objects: Rendered) -> None:
    assert not objects.of("Secret")


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"auth": {"existingSecret": ""}}, "auth.existingSecret is empty"),
        ({"kafka": {"brokers": []}}, "kafka.brokers is empty"),
        ({"kafka": {"brokers": ["kafka"]}}, "/kafka/brokers/0"),
        ({"chat": {"replicaCount": 3}}, "/chat"),
        ({"chat": {"settings": {"limits": {"max_tokenz": 3}}}}, "/chat/settings/limits"),
        ({"chat": {"settings": {"objectives": ["a"]}}}, "/chat/settings"),
        ({"trainer": {"settings": {"reward": {"heads": "four"}}}}, "/trainer/settings/reward/heads"),
        ({"trainer": {"settings": {"policy": {"algorithm": {"name": "ppo2"}}}}}, "/trainer/settings/policy/algorithm"),
        ({"chat": {"canaryReplicas": 1}}, "chat.canaryReplicas needs tuning full"),
        ({"ingress": {"enabled": True}}, "hosts is empty"),
        ({"reward": {"autoscaling": {"enabled": True}}}, "reward.resources.requests.cpu is not given"),
        ({"versions": {"url": "s3://b", "cacheGib": 20}}, "chat.disk.size is 20Gi"),
        ({"versions": {"url": "s3://b"}, "trainer": {"disk": {"size": "8192Mi"}}}, "trainer.disk.size is 8192Mi"),
        ({"chat": {"autoscaling": {"enabled": True, "minReplicas": 9}}}, "chat.autoscaling.minReplicas is 9"),
        ({"versions": {"url": "ftp://x"}}, "/versions/url"),
    ],
)
def test_what_is_wrong_is_named(values: Object, said: str) -> None:
    assert said.replace("/", ".").strip(".") in refusal(merged(LEAST, values)).replace("/", ".")


def test_a_variable_that_is_given_replaces_ours_and_stands_once() -> None:
    """The API server refuses a name that stands there twice."""
    extra = [{"name": "RLHF_PERSON_SALT", "value": "0123456789abcdef"}, {"name": "A", "value": "1"}]
    pod = render(merged(LEAST, {"chat": {"extraEnv": extra}})).one("StatefulSet", "-chat")["spec"]["template"]["spec"]
    env = pod["containers"][0]["env"]
    assert [each["name"] for each in env] == ["RLHF_OPERATOR_TOKEN", "RLHF_PERSON_SALT", "A"]
    assert env[1] == extra[0]


def test_the_oldest_helm_that_the_chart_takes_renders_the_same(objects: Rendered) -> None:
    assert render(helm="helm3") == objects
