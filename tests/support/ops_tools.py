"""Where the tools of tests/ops are: helm, promtool, kube-apiserver, …; `scripts/ops_tools.sh` pins and brings them."""

import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "ops_tools.sh"
TO_BE_BROUGHT = 3


def tool(name: str) -> Path:
    """The file of that name ("helm", "promtool"); "schemas" is a folder. Skips the test where it is not there."""
    found = subprocess.run(["sh", str(SCRIPT), "--path", name], capture_output=True, text=True)
    if found.returncode == TO_BE_BROUGHT:
        pytest.skip(found.stderr.strip())
    assert found.returncode == 0, found.stderr
    return Path(found.stdout.strip())
