"""What a gateway's bench measures, each a process of its own on a core: chat service, stand-in, LiteLLM's proxy."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from rlhf_online import keys
from rlhf_online.config import ChatSettings, dump
from rlhf_online.end_users import HEADER, sign
from rlhf_online.state import StateDir
from rlhf_online.versions import open_registry
from rlhf_online.versions.manifest import Manifest

ROOT = Path(__file__).resolve().parents[3]
START_S = 600.0
LITELLM = "litellm[proxy]==1.108.7"
MASTER_KEY = "sk-bench"


class Server:
    """A process that listens on `port`."""

    def __init__(self, process: subprocess.Popen[bytes], core: int | None) -> None:
        self.process = psutil.Process(process.pid)
        self.port = 0
        self.grpc_port = 0
        if core is not None:
            os.sched_setaffinity(process.pid, {core})

    def cpu_s(self) -> float:
        """Of all its threads so far, to the nanosecond: Linux' clock of another process (MAKE_PROCESS_CPUCLOCK)."""
        return time.clock_gettime((~self.process.pid << 3) | 2)

    def rss_mib(self) -> float:
        return self.process.memory_info().rss / (1 << 20)


@contextmanager
def stand_in(core: int | None) -> Iterator[int]:
    """The port of an engine of fixed speed."""
    with _listening(["tests.benches.support.stand_in"], core) as port:
        yield port


@contextmanager
def relay(engine_port: int, core: int) -> Iterator[int]:
    """The port of a hop that does nothing, in front of the stand-in."""
    with _listening(["tests.benches.support.relay", str(engine_port)], core) as port:
        yield port


@contextmanager
def _listening(module: list[str], core: int | None) -> Iterator[int]:
    """The port that a module of ours, started as a process, prints."""
    command = [sys.executable, "-m", *module, *([] if core is None else ["--core", str(core)])]
    with _ended(subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE)) as process:
        assert process.stdout is not None
        yield int(process.stdout.readline())


def behind(folder: Path, port: int) -> dict[str, str]:
    """The settings of a stand-in's engine, and in the state below `folder` a version that it serves."""
    registry = open_registry(StateDir(folder / "state").versions)
    version = registry.reserve("policy")  # the base model, of which the stand-in needs no file
    registry.stage(version)
    registry.publish(Manifest(version=version, tuning="lora"))
    registry.promote(version)
    url = f"http://127.0.0.1:{port}"
    return {"mode": "external", "url": url, "model": str(folder / "base"), "tuning": "lora"}


@contextmanager
def _ended(process: subprocess.Popen[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(20.0)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class ChatFolder:
    """A chat service's state in `folder` / "state", with a backend's key. `engine` and `settings` are its settings.

    `headers` sign an end user's name with that key.
    """

    def __init__(self, folder: Path, engine: Mapping[str, Any], **settings: Any) -> None:
        state = StateDir(folder / "state")
        self._settings, self._ready = folder / "chat.toml", folder / "ready.json"
        self._output = folder / "chat.out"
        values = {"state_dir": state.root, "http_port": 0, "grpc_port": 0, "ready_file": self._ready, "engine": engine}
        dump(ChatSettings.model_validate({**values, "die_with_parent": True, **settings}), self._settings)
        self._key, self.token = keys.make("bench", ["chat", "feedback"], signs=True)
        keys.add(state.keys, self._key)

    def headers(self, person: int) -> dict[str, str]:
        signed = sign(self._key.signing_secret, f"person {person}", lifetime_s=3600.0)
        return {"authorization": f"Bearer {self.token}", HEADER.lower(): signed}

    @contextmanager
    def serve(self, core: int | None, module: str = "services.chat") -> Iterator[Server]:
        """Started, its ports open."""
        self._ready.unlink(missing_ok=True)
        command = [sys.executable, "-m", module, "--config", str(self._settings)]
        with self._output.open("ab") as output, _ended(subprocess.Popen(command, cwd=ROOT, stderr=output)) as process:
            server = Server(process, core)
            while not self._ready.exists():
                assert process.poll() is None, self._output.read_text()
                time.sleep(0.002)
            ports = json.loads(self._ready.read_text())
            server.port, server.grpc_port = ports["http"], ports["grpc"]
            yield server

    def vote(self, server: Server) -> None:
        """Vote, on an answer that nobody here knows; returns once that is on disk."""
        thumb = {"answer": {"completion_id": "chatcmpl-unknown"}, "up": True}
        call(server.port, "/v1/feedback", {"thumb": thumb}, self.headers(0))


def until_ready(server: Server, path: str, headers: Mapping[str, str]) -> None:
    """Wait until GET `path` is answered with 200. Raises TimeoutError."""
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        try:
            call(server.port, path, None, headers)
            return
        except OSError:
            time.sleep(0.1)
    raise TimeoutError(f"nothing answers {path} on port {server.port} within {START_S:.0f} s")


def call(port: int, path: str, body: Mapping[str, Any] | None, headers: Mapping[str, str]) -> bytes:
    """Raises OSError for anything but success."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data, dict(headers))
    try:
        with urllib.request.urlopen(request, timeout=10.0) as response:
            return response.read()
    except urllib.error.HTTPError as error:
        raise OSError(f"{error.code} {error.read().decode(errors='replace')}") from error


def install_litellm() -> Path:
    """LiteLLM's proxy in an environment of its own below build/, made the first time; its command."""
    folder = ROOT / "build" / "litellm"
    command = folder / "bin" / "litellm"
    if not command.exists():
        uv = str(Path(sys.executable).with_name("uv"))
        subprocess.run([uv, "venv", "--quiet", "--allow-existing", "--python", sys.executable, str(folder)], check=True)
        subprocess.run([uv, "pip", "install", "--quiet", "--python", str(folder / "bin/python"), LITELLM], check=True)
    return command


@contextmanager
def litellm(folder: Path, engine_port: int, core: int) -> Iterator[Server]:
    """LiteLLM's proxy in front of the stand-in, as its documentation starts it: one worker, a master key, no database.

    It logs nothing durably.
    """
    command = install_litellm()
    folder.mkdir()
    config = folder / "config.yaml"
    model = {"model": "openai/base", "api_base": f"http://127.0.0.1:{engine_port}/v1", "api_key": "none"}
    values = {
        "model_list": [{"model_name": "base", "litellm_params": model}],
        "general_settings": {"master_key": MASTER_KEY},
    }
    config.write_text(json.dumps(values))  # JSON is YAML
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = int(listener.getsockname()[1])  # it takes no 0
    words = [str(command), "--config", str(config), "--host", "127.0.0.1", "--port", str(port), "--num_workers", "1"]
    environment = {**os.environ, "LITELLM_LOG": "ERROR", "LITELLM_TELEMETRY": "False"}
    with (folder / "litellm.out").open("wb") as output:
        started = subprocess.Popen(words, cwd=folder, env=environment, stdout=output, stderr=subprocess.STDOUT)
        with _ended(started) as process:
            server = Server(process, core)
            server.port = port
            until_ready(server, "/health/liveliness", {})
            os.sched_setaffinity(process.pid, {core})
            yield server
