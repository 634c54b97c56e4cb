"""The whole product on one machine, as a child of a test: `services.standalone` on a tiny model, and a plain client."""

import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlhf_online.config import dump
from rlhf_online.state import StateDir
from services.standalone.settings import StandaloneSettings
from tests.support.waiting import ENGINE_START_S, until

ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Stack:
    """A running standalone. `url` is the public HTTP address; `process` its own process group's leader."""

    process: subprocess.Popen[bytes]
    state: StateDir
    output: Path
    url: str = ""

    def post(self, path: str, body: dict[str, Any], timeout: float = 120) -> tuple[int, dict[str, Any]]:
        """Status and JSON body; HTTP errors are answers, not exceptions."""
        request = urllib.request.Request(
            self.url + path, data=json.dumps(body).encode(), headers={"Content-Type": "application/json"}
        )
        return self._open(request, timeout)

    def get(self, path: str, timeout: float = 30) -> tuple[int, dict[str, Any]]:
        return self._open(urllib.request.Request(self.url + path), timeout)

    def stream(self, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """The chunks of a streamed answer."""
        request = urllib.request.Request(
            self.url + "/v1/chat/completions",
            data=json.dumps({**body, "stream": True}).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=120) as response:
            for line in response:
                data = line.removeprefix(b"data: ").strip()
                if data and data != b"[DONE]":
                    yield json.loads(data)

    def wait(self, condition: Callable[[], Any], what: str, timeout: float = ENGINE_START_S) -> Any:
        """Poll until `condition` gives something true; fail with the services' last words otherwise."""

        def there() -> Any:
            value = condition()
            assert value or self.process.poll() is None, f"{what}: ended ({self.process.poll()})\n{self.tail()}"
            return value

        return until(there, timeout, lambda: f"{what}\n{self.tail()}", poll_s=0.1)

    def ready(self) -> bool:
        """True once chat answers with a version."""
        try:
            return self.get("/readyz")[0] == 200
        except OSError:
            return False

    def tail(self) -> str:
        """The last lines of every log."""
        files = [self.output, *sorted(self.state.logs.glob("*.log"))]
        return "\n".join(f"== {f.name}\n" + "\n".join(f.read_text().splitlines()[-15:]) for f in files if f.exists())

    def stop(self) -> int:
        """Ctrl-C; returns the exit code. The process group is killed if that takes more than a minute."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait()
        return self.process.returncode

    def _open(self, request: urllib.request.Request, timeout: float) -> tuple[int, dict[str, Any]]:
        try:
            with urllib.request.urlopen(request, timeout=timeout) as response:
                return response.status, json.loads(response.read() or b"{}")
        except urllib.error.HTTPError as error:
            with error:
                body = error.read()
            return error.code, json.loads(body) if body.startswith(b"{") else {"body": body.decode()}


def start(settings: StandaloneSettings) -> Stack:
    """Start a standalone and wait for its ports (the engine may still be loading)."""
    state = StateDir(settings.state_dir)
    config, ready_file = state.root / "standalone.toml", state.root / "ready.json"
    ready_file.unlink(missing_ok=True)
    dump(settings.model_copy(update={"ready_file": ready_file}), config)
    output = state.root / "standalone.out"
    with output.open("ab") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "services.standalone", "--config", str(config)],
            cwd=ROOT, stdout=file, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
    stack = Stack(process, state, output)
    try:
        stack.wait(ready_file.exists, "the ports open", timeout=120)
    except AssertionError:
        stack.stop()
        raise
    stack.url = f"http://127.0.0.1:{json.loads(ready_file.read_text())['http']}"
    return stack
