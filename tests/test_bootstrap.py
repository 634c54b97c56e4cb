"""scripts/bootstrap.sh where it must refuse: each time before it has made or fetched anything, and in plain words."""

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TOOLS = ("sh", "dirname", "cat", "cksum", "df", "awk", "grep", "rm")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A clone without an environment, and beside it `bin` with the tools that every machine has."""
    (tmp_path / "clone" / "scripts").mkdir(parents=True)
    shutil.copy(ROOT / "scripts" / "bootstrap.sh", tmp_path / "clone" / "scripts")
    shutil.copy(ROOT / "pyproject.toml", tmp_path / "clone")
    shutil.copytree(ROOT / "requirements", tmp_path / "clone" / "requirements")
    (tmp_path / "bin").mkdir()
    for tool in TOOLS:
        found = shutil.which(tool)
        assert found is not None
        (tmp_path / "bin" / tool).symlink_to(found)
    return tmp_path


def add(tree: Path, name: str, script: str) -> Path:
    path = tree / "bin" / name
    path.unlink(missing_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def python(tree: Path, name: str, version: tuple[int, int, int], *, has_venv: bool = True) -> Path:
    """A stand-in for an interpreter: answers the script's two questions as one of that version would."""
    supported = (3, 11) <= version[:2] <= (3, 13)
    dotted = ".".join(map(str, version))
    return add(
        tree,
        name,
        f"""case "$*" in
            *SystemExit*) exit {0 if supported else 1} ;;
            *version_info*) echo "{name} is Python {dotted}" ;;
            "-m venv"*) echo "No module named ensurepip" >&2; exit {0 if has_venv else 1} ;;
            *) exit 9 ;;
        esac""",
    )


def bootstrap(tree: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", str(tree / "clone" / "scripts" / "bootstrap.sh")],
        env={"PATH": str(tree / "bin"), **variables},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_a_python_that_is_too_old(tree):
    python(tree, "python3", (3, 9, 18))
    ended = bootstrap(tree)
    assert ended.returncode == 1
    assert "Python 3.11, 3.12 or 3.13 is needed" in ended.stderr
    assert "python3 is Python 3.9.18" in ended.stderr and "make PYTHON=" in ended.stderr
    assert not (tree / "clone" / ".venv").exists()


def test_no_python_at_all(tree):
    ended = bootstrap(tree)
    assert ended.returncode == 1
    assert "no Python at all" in ended.stderr


def test_a_name_that_does_not_run_is_passed_over(tree):
    add(tree, "python3.13", "echo 'pyenv: python3.13: command not found' >&2; exit 127")
    python(tree, "python3.11", (3, 11, 2), has_venv=False)
    ended = bootstrap(tree)
    assert "making .venv: python3.11 is Python 3.11.2" in ended.stdout


def test_a_python_named_by_hand_is_not_replaced_by_another(tree):
    python(tree, "python3.12", (3, 12, 1))
    old = python(tree, "python3.8", (3, 8, 1))
    ended = bootstrap(tree, PYTHON=str(old))
    assert ended.returncode == 1
    assert f"PYTHON={old} cannot be used" in ended.stderr and "Python 3.8.1" in ended.stderr


def test_a_python_without_its_venv_module(tree):
    python(tree, "python3", (3, 12, 3), has_venv=False)
    ended = bootstrap(tree)
    assert ended.returncode == 1
    assert "No module named ensurepip" in ended.stderr
    assert "install its venv module (Debian: apt-get install python3-venv)" in ended.stderr
    assert not (tree / "clone" / ".venv").exists()


def test_a_disk_that_is_too_small(tree):
    python(tree, "python3", (3, 12, 3))
    add(tree, "df", "echo header; echo disk 100 50 1048576 5% /")
    ended = bootstrap(tree)
    assert ended.returncode == 1
    assert "needs 8 GiB of disk, and 1 GiB are free here" in ended.stderr


def test_a_device_that_is_none(tree):
    ended = bootstrap(tree, DEVICE="tpu")
    assert ended.returncode == 1
    assert "DEVICE=tpu is unknown: it is cpu or gpu" in ended.stderr
