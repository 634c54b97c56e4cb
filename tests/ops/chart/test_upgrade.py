"""An upgrade from an earlier chart: its values are taken, and nothing changes that Kubernetes does not let change."""

from pathlib import Path

import pytest
import yaml

from tests.support.chart import LEAST, PROFILES, Object, Rendered, earlier_chart, merged, render

FIXED = {
    "StatefulSet": ("selector", "serviceName", "podManagementPolicy", "volumeClaimTemplates"),
    "Deployment": ("selector",),
    "PersistentVolumeClaim": ("accessModes", "resources", "storageClassName"),
}
"""Of a specification, what the API server refuses to change (of a claim, what would not be as it was)."""


def fixed(objects: Rendered) -> dict[tuple[str, str], Object]:
    return {
        (kind, each["metadata"]["name"]): {name: each["spec"].get(name) for name in names}
        for kind, names in FIXED.items()
        for each in objects.of(kind)
    }


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return earlier_chart(tmp_path_factory.mktemp("earlier"))


@pytest.mark.parametrize("profile", PROFILES, ids="+".join)
def test_what_has_state_or_a_selector_stays_as_it_is(profile: tuple[str, ...], before: Path) -> None:
    disks = {"chat": {"disk": {"size": "30Gi"}}, "trainer": {"disk": {"storageClass": "fast"}}}
    for values in (LEAST, merged(LEAST, disks, {"versions": {"url": "s3://bucket/prefix"}})):
        earlier = fixed(render(values, *profile, chart=before))
        assert {kind for kind, _ in earlier} >= {"StatefulSet", "Deployment"}
        assert fixed(render(values, *profile)) == earlier


def test_all_values_of_the_earlier_chart_are_taken_and_say_the_same(before: Path) -> None:
    values = merged(yaml.safe_load((before / "values.yaml").read_text()), LEAST)
    assert render(values) == render(LEAST)
