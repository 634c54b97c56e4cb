"""The whole product on one machine, as a child of a test: `services.standalone` on a tiny model, and a plain client."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from rlhf_online.config import dump
from rlhf_online.state import StateDir
from services.standalone.settings import StandaloneSettings
from tests.support.events import events
from tests.support.waiting import ENGINE_START_S, until

ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Stack:
    """A running standalone. `url` is the public HTTP address; `process` its own process group's leader."""

    process: subprocess.Popen[bytes]
    state: StateDir
    output: Path
    url: str = ""
    client: httpx.Client = field(default_factory=lambda: httpx.Client(timeout=120, trust_env=False))

    def post(self, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """Status and JSON body; HTTP errors are answers, not exceptions."""
        reply = self.client.post(self.url + path, json=body)
        return reply.status_code, reply.json()

    def stream(self, body: dict[str, Any]) -> list[dict[str, Any]]:
        """The chunks of a streamed answer."""
        reply = self.client.post(self.url + "/v1/chat/completions", json={**body, "stream": True})
        return events(reply.raise_for_status().content)

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
            return self.client.get(self.url + "/readyz", timeout=30).is_success
        except httpx.TransportError:
            return False

    def tail(self) -> str:
        """The last lines of every log."""
        files = [self.output, *sorted(self.state.logs.glob("*.log"))]
        return "\n".join(f"== {f.name}\n" + "\n".join(f.read_text().splitlines()[-15:]) for f in files if f.exists())

    def stop(self) -> int:
        """Ctrl-C; returns the exit code. The process group is killed if that takes more than a minute."""
        self.client.close()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait()
        return self.process.returncode


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
        stack.wait(ready_file.exists, "the ports open")
    except AssertionError:
        stack.stop()
        raise
    stack.url = f"http://127.0.0.1:{json.loads(ready_file.read_text())['http']}"
    return stack
