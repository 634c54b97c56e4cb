"""docker/sbom.py on this machine, which has Debian packages and Python distributions as an image has."""

import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

from tests.support import cyclonedx

ROOT = Path(__file__).resolve().parents[3]


def described() -> str:
    command = [sys.executable, str(ROOT / "docker" / "sbom.py"), "rlhf-online-test", "1.2.3"]
    return subprocess.run(command, capture_output=True, check=True, text=True, timeout=60).stdout


def test_it_is_a_bill_of_materials_of_debian_and_python() -> None:
    document = json.loads(described())
    cyclonedx.validate(document)
    assert document["metadata"]["component"] == {"type": "container", "name": "rlhf-online-test", "version": "1.2.3"}
    found = {component["purl"]: component for component in document["components"]}
    assert f"pkg:pypi/pydantic-core@{version('pydantic-core')}" in found
    assert len(found) == len(document["components"]), "each once"


def test_the_same_image_gives_the_same_bytes() -> None:
    assert described() == described()
