"""What is rendered are objects of Kubernetes, by its own schemas and strictly: no unknown field."""

import json
import subprocess
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from tests.support.chart import CHART, LEAST, PROFILES, Object, merged, render
from tests.support.ops_tools import tool

RELEASES = ("1.30.0", "1.36.0")
"""The oldest Kubernetes that the chart takes, and a new one."""
PLACE = "{{.NormalizedKubernetesVersion}}-standalone{{.StrictSuffix}}/{{.ResourceKind}}{{.KindSuffix}}.json"
MUCH: Object = {
    "tuning": "full",
    "chat": {"canaryReplicas": 1, "disk": {"enabled": False}, "autoscaling": {"enabled": True, "kind": "hpa"}},
    "versions": {"url": "s3://bucket/prefix", "existingSecret": "bucket"},
    "model": {"volume": {"persistentVolumeClaim": {"claimName": "models"}}},
    "hosts": ["chat.example.org"],
    "ingress": {"enabled": True, "className": "nginx", "tlsSecret": "certificate"},
    "monitoring": {"dashboards": {"enabled": True}},
}


def refused(objects: list[Object], release: str) -> list[str]:
    """What kubeconform finds wrong, a sentence an object. Kinds of other people, of which it has no schema, it passes
    over."""
    command = [tool("kubeconform"), "-strict", "-output", "json", "-ignore-missing-schemas"]
    place = ["-kubernetes-version", release, "-schema-location", f"{tool('schemas')}/{PLACE}"]
    text = "\n---\n".join(json.dumps(each, ensure_ascii=False) for each in objects)
    done = subprocess.run([*command, *place, "-"], input=text, capture_output=True, text=True, timeout=120)
    assert done.stdout, done.stderr
    return [f"{each['kind']} {each['name']}: {each['msg']}" for each in json.loads(done.stdout)["resources"]]


@pytest.mark.ops
@pytest.mark.parametrize("release", RELEASES)
def test_objects_are_those_that_kubernetes_knows(release: str) -> None:
    rendered = [render(), render(merged(LEAST, MUCH)), *(render(LEAST, *profile) for profile in PROFILES)]
    objects = [each for release in rendered for each in release]
    assert refused(objects, release) == []
    broken = merged(objects[0], {"spec": {"podSelectors": {}}})
    (said,) = refused([broken], release)
    assert broken["metadata"]["name"] in said and "podSelectors" in said


@pytest.mark.ops
def test_a_trainer_on_several_nodes_is_what_the_groups_controller_knows() -> None:
    """By its own definition, and strictly: the API server drops unknown fields of such without a word."""
    (version,) = yaml.safe_load(tool("leaderworkersets.yaml").read_text())["spec"]["versions"]
    schema = closed(version["schema"]["openAPIV3Schema"])
    schema["properties"]["metadata"] = {"type": "object"}
    validator = Draft202012Validator(schema)
    much = merged(MUCH, {"trainer": {"nodes": 4, "ranks": 8, "resources": {"limits": {"nvidia.com/gpu": 8}}}})
    for values in ({"trainer": {"nodes": 2}}, much):
        (group,) = render(merged(LEAST, values)).of("LeaderWorkerSet")
        assert [error.message for error in validator.iter_errors(group)] == []
        (error,) = validator.iter_errors(merged(group, {"spec": {"leaderWorkerTemplate": {"sizes": 2}}}))
        assert "sizes" in error.message


def closed(schema: Any) -> Any:
    """No other fields than it names; a quantity is a text or a number."""
    if isinstance(schema, list):
        return [closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("x-kubernetes-int-or-string"):
        return {}
    inner = {name: closed(each) for name, each in schema.items()}
    return {"additionalProperties": False} | inner if isinstance(schema.get("properties"), dict) else inner


@pytest.mark.ops
def test_the_charts_own_tests_pass() -> None:
    """helm/rlhf-online/tests, for people who have helm-unittest and no Python."""
    done = subprocess.run([tool("helm-unittest"), CHART], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout
    assert "0 passed, 0 total" not in done.stdout.partition("Tests:")[2].partition("\n")[0]
