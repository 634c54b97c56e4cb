"""The services as in pods: processes that share nothing but a bucket, Kafka, an engine's socket and the network.

Each has a virtual environment of its own, with what its image has and no more (`docker/requirements/NAME.txt`), a
settings file and a state folder of its own, and of the environment what it is given.
"""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from rlhf_online.config import ProcessSettings, dump

ROOT = Path(__file__).resolve().parents[2]
IMAGES = {"chat": "chat", "engine": "engine-cpu", "reward": "reward", "trainer": "trainer"}
UV = [str(Path(sys.executable).with_name("uv")), "--quiet", "--no-python-downloads"]


def make_wheel(folder: Path) -> Path:
    """The project as the images install it, built from a copy as clean as theirs."""
    sources = folder / "sources"
    for name in ("rlhf_online", "services"):
        shutil.copytree(ROOT / name, sources / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, sources)
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*build, "--wheel-dir", str(folder), str(sources)], check=True, timeout=300)
    return next(folder.glob("*.whl"))


def make_environment(service: str, wheel: Path) -> Path:
    """The interpreter of a virtual environment with what the service's image has.

    It is kept in the ignored build/apart, with what Python compiles there, and what differs from the lists is brought
    into line: packages out of uv's cache, and the project anew.
    """
    folder = ROOT / "build" / "apart" / service
    python = folder / "bin" / "python"
    names = f"docker/requirements/{IMAGES[service]}.txt"
    if not python.exists():
        _uv("venv", "--python", sys.executable, str(folder))
    _uv("pip", "sync", "--require-hashes", "--python", str(python), "--constraint", "requirements/cpu.txt", names)
    _uv("pip", "install", "--no-deps", "--python", str(python), str(wheel))
    return python


def _uv(*arguments: str) -> None:
    subprocess.run([*UV, *arguments], cwd=ROOT, check=True, timeout=1200)


@dataclass
class Apart:
    """A service's process. `given` is its environment, beside the path of the system's programs."""

    name: str
    python: Path
    folder: Path
    given: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None

    @property
    def state(self) -> Path:
        return self.folder / "state"

    @property
    def log(self) -> Path:
        return self.folder / "service.log"

    def start(self, settings: ProcessSettings) -> None:
        """Write its settings file, and start it."""
        dump(settings, self.folder / "settings.toml")
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                self._command("-m", f"services.{self.name}", "--config", str(self.folder / "settings.toml")),
                cwd=self.folder,
                env=self._environment(),
                stdout=output,
                stderr=output,
            )

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """The service's interpreter with these arguments, as `kubectl exec` would."""
        return subprocess.run(
            self._command(*arguments),
            cwd=self.folder,
            env=self._environment(),
            capture_output=True,
            text=True,
            timeout=120,
        )

    def stop(self) -> int:
        """SIGTERM; its exit code."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        return self.process.returncode

    def tail(self) -> str:
        """The last lines of its log."""
        lines = self.log.read_text().splitlines()[-20:] if self.log.exists() else []
        return f"== {self.name}\n" + "\n".join(lines)

    def _command(self, *arguments: str) -> list[str]:
        return [str(self.python), "-P", *arguments]  # -P: nothing of this folder is imported

    def _environment(self) -> dict[str, str]:
        kept = {"PATH": os.environ["PATH"], "HOME": str(self.folder), "LANG": "C.UTF-8"}
        return kept | self.given


@dataclass
class Person:
    """Somebody with a key, who chats with the service at `url`."""

    url: str
    key: str
    client: httpx.Client = field(default_factory=lambda: httpx.Client(timeout=120, trust_env=False))

    def post(self, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """Status and JSON body."""
        reply = self.client.post(self.url + path, json=body, headers=self._headers())
        return reply.status_code, reply.json()

    def get(self, path: str) -> dict[str, Any]:
        """The JSON body."""
        return self.client.get(self.url + path, headers=self._headers()).raise_for_status().json()

    def ready(self) -> bool:
        """Whether the service answers with a version."""
        try:
            return self.client.get(self.url + "/readyz").is_success
        except httpx.TransportError:
            return False

    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key}"}
