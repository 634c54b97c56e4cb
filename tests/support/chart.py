"""Renders the Helm chart as an operator would, and reads what comes out."""

import json
import subprocess
import tarfile
import tomllib
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from tests.support.ops_tools import tool

CHART = Path(__file__).parents[2] / "helm" / "rlhf-online"
Object = dict[str, Any]
LEAST: Object = {"auth": {"existingSecret": "secrets"}, "kafka": {"brokers": ["kafka:9092"]}}
"""The values without which there is no installation."""

GROUP = ("leaderTemplate", "workerTemplate")
PROFILES = (("cpu",), ("gpu",), ("gpu", "ha"), ("cpu", "openshift"))
"""Which files of values are laid over each other."""


def earlier_chart(folder: Path) -> Path:
    """The chart of an earlier commit, unpacked there."""
    with tarfile.open(Path(__file__).parents[1] / "data" / "chart-0165520.tgz") as packed:
        packed.extractall(folder, filter="data")
    return folder / "rlhf-online"


class Rendered(list[Object]):
    """The objects of a release."""

    def of(self, kind: str, name: str = "") -> list[Object]:
        """Those of the kind, and whose name ends so."""
        return [each for each in self if each["kind"] == kind and each["metadata"]["name"].endswith(name)]

    def one(self, kind: str, name: str) -> Object:
        (found,) = self.of(kind, name)
        return found

    def settings(self, service: str) -> Object:
        """What stands in the service's settings file."""
        return tomllib.loads(self.file(service))

    def file(self, service: str) -> str:
        """That file, whatever the release is called."""
        name = f"{service}.toml"
        (found,) = [each["data"][name] for each in self.of("ConfigMap") if name in each.get("data", {})]
        return found

    def pods(self) -> list[Object]:
        """The specification of every pod that the objects make, with its labels below `metadata`."""
        made = [each["spec"]["template"] for each in self if "template" in each.get("spec", {})]
        groups = [each["spec"]["leaderWorkerTemplate"] for each in self.of("LeaderWorkerSet")]
        return [*made, *(group[name] for group in groups for name in GROUP), *self.of("Pod")]


def template(
    values: Object, *profiles: str, helm: str = "helm", release: str = "r", chart: Path = CHART
) -> subprocess.CompletedProcess[str]:
    """`helm template` with the profiles' files and, over them, the values."""
    return _template(json.dumps(values, ensure_ascii=False), profiles, helm, release, chart)  # YAML has no surrogates


@cache
def _template(
    values: str, profiles: Sequence[str], helm: str, release: str, chart: Path
) -> subprocess.CompletedProcess[str]:
    files = [word for name in profiles for word in ("--values", str(chart / f"values-{name}.yaml"))]
    command = [tool(helm), "template", release, chart, "--namespace", "chat", *files, "--values", "-"]
    return subprocess.run(command, input=values, capture_output=True, text=True, timeout=120)


def render(values: Object = LEAST, *profiles: str, **how: Any) -> Rendered:
    """The objects. Fails the test where Helm refuses the values."""
    done = template(values, *profiles, **how)
    assert done.returncode == 0, done.stderr
    return rendered(done.stdout)


def rendered(text: str) -> Rendered:
    return Rendered(each for each in yaml.load_all(text, yaml.CSafeLoader) if each)


def refusal(values: Object, *profiles: str) -> str:
    """What Helm says of values that it refuses."""
    done = template(values, *profiles)
    assert done.returncode != 0, "Helm took them"
    return done.stderr


def merged(*values: Object) -> Object:
    """Later ones win, table by table."""
    result: Object = {}
    for each in values:
        for name, value in each.items():
            both = isinstance(value, dict) and isinstance(result.get(name), dict)
            result[name] = merged(result[name], value) if both else value
    return result
