"""What an image is made of, as a CycloneDX 1.6 document on stdout: `python sbom.py NAME VERSION`, run in the image.

Debian's packages as dpkg knows them, and the Python distributions on this interpreter's path, each by its package URL.
The standard library alone, so that any image can run it. The same image gives the same bytes: no date, no random id.
"""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import distributions
from pathlib import Path
from typing import Any
from urllib.parse import quote

DPKG = "${source:Package}\t${binary:Package}\t${Version}\t${Architecture}\t${db:Status-Abbrev}\n"


def document(name: str, version: str) -> dict[str, Any]:
    """The whole document; components in the order of their package URLs."""
    components = sorted([*debian(), *python()], key=lambda component: component["purl"])
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": {"type": "container", "name": name, "version": version}},
        "components": components,
    }


def debian() -> Iterator[dict[str, Any]]:
    """Installed packages; none in an image without dpkg."""
    try:
        asked = ["dpkg-query", "--show", f"--showformat={DPKG}"]
        listed = subprocess.run(asked, capture_output=True, check=True, text=True)
    except FileNotFoundError:
        return
    release = dict(line.split("=", 1) for line in Path("/etc/os-release").read_text().splitlines() if "=" in line)
    vendor, number = (release.get(name, "").strip('"') for name in ("ID", "VERSION_ID"))
    for line in listed.stdout.splitlines():
        source, package, version, architecture, status = line.split("\t")
        if status.startswith("ii"):
            name = package.partition(":")[0]
            purl = f"pkg:deb/{vendor}/{name}@{quote(version, safe='.~-')}?arch={architecture}"
            yield _component(name, version, f"{purl}&distro={vendor}-{number}&upstream={source}")


def python() -> Iterator[dict[str, Any]]:
    """Distributions; of two of one name the one that is imported."""
    seen: set[str] = set()
    for distribution in distributions():
        name, version = re.sub(r"[-_.]+", "-", distribution.metadata["Name"]).lower(), distribution.version
        if name in seen:
            continue
        seen.add(name)
        component = _component(name, version, f"pkg:pypi/{name}@{quote(version, safe='.-')}")
        if expression := distribution.metadata["License-Expression"]:
            component["licenses"] = [{"expression": expression}]
        yield component


def _component(name: str, version: str, purl: str) -> dict[str, Any]:
    return {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl}


if __name__ == "__main__":
    json.dump(document(*sys.argv[1:3]), sys.stdout, indent=1)
    print()
