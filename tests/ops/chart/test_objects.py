"""What is rendered are objects of Kubernetes, by its own schemas and strictly: no unknown field."""

import json
import subprocess

import pytest

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
def test_the_charts_own_tests_pass() -> None:
    """helm/rlhf-online/tests, for people who have helm-unittest and no Python."""
    done = subprocess.run([tool("helm-unittest"), CHART], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout
    assert "0 passed, 0 total" not in done.stdout.partition("Tests:")[2].partition("\n")[0]
