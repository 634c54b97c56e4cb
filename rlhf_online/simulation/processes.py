"""The demo's child processes: the services as `python -m services.standalone`, and supervised fine-tuning beside them.

Each child leads a process group of its own and ends with its parent (`die_with_parent`). It is stopped by SIGTERM, and
its group by SIGKILL after a grace period. Its output goes to a file, whose tail is part of the error.
"""

import asyncio
import contextlib
import json
import os
import shutil
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import aiohttp
import psutil

from rlhf_online.config import EngineSettings, SftSettings
from rlhf_online.config.files import write_toml
from rlhf_online.config.given import Values
from rlhf_online.errors import RlhfError
from rlhf_online.process import end_group
from rlhf_online.simulation import world

ENGINE_START_S: float = EngineSettings.model_fields["start_timeout_s"].default
"""The one limit for a start, the engine's own: on a busy machine it has taken 400 s."""
TAIL_LINES = 15
DEMONSTRATIONS = 20_000
SFT_STEPS, SFT_BATCH, SFT_LR = 1600, 128, 1.5e-3


class DemoError(RlhfError):
    """A child did not start, or ended too early; the message carries the end of its log."""


class Child:
    """One process and the file that it writes to."""

    def __init__(self, name: str, process: asyncio.subprocess.Process, log: Path) -> None:
        self.name = name
        self.process = process
        self.log = log

    @classmethod
    async def start(
        cls, name: str, command: list[str], log: Path, *, pipe: bool = False, env: dict[str, str] | None = None
    ) -> "Child":
        """Start `command` with both outputs to `log`; with `pipe`, stdout comes to the caller instead."""
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as file:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE if pipe else file,
                stderr=file,
                env=os.environ | (env or {}),
                start_new_session=True,
            )
        return cls(name, process, log)

    @property
    def ended(self) -> bool:
        return self.process.returncode is not None

    def failed(self) -> DemoError:
        """What to raise when it has ended and should not have."""
        lines = self.log.read_text(errors="replace").splitlines()[-TAIL_LINES:] if self.log.is_file() else []
        tail = "\n".join(f"    {line}" for line in lines)
        return DemoError(f"{self.name} ended with exit code {self.process.returncode}; the end of {self.log}:\n{tail}")

    async def stop(self, grace_s: float = 30.0) -> int:
        """SIGTERM, and SIGKILL to its group if it is still there after the grace period; its exit code."""
        return await end_group(self.process, grace_s)


class Services:
    """The whole service as a user starts it: one settings file, one command; `ready_file` holds its ports."""

    def __init__(self, child: Child, ready_file: Path) -> None:
        self.child = child
        self.ready_file = ready_file
        self.url = ""

    @classmethod
    async def start(cls, settings: Values, config: Path, log: Path) -> "Services":
        """Start it with these settings, `ready_file` among them, which are written to `config`."""
        ready_file = Path(settings["ready_file"])
        await asyncio.to_thread(ready_file.unlink, missing_ok=True)
        write_toml(settings, config)
        command = [sys.executable, "-m", "services.standalone", "--config", str(config)]
        return cls(await Child.start("the service", command, log), ready_file)

    async def listening(self, timeout_s: float = ENGINE_START_S) -> str:
        """Base URL of the public API once its port is open. Raises DemoError."""

        async def is_ready() -> bool:
            return await asyncio.to_thread(self.ready_file.is_file)

        await self._until(is_ready, timeout_s, "opened no port")
        ports = json.loads(self.ready_file.read_text())
        self.url = f"http://127.0.0.1:{ports['http']}"
        return self.url

    async def ready(self, timeout_s: float = ENGINE_START_S) -> None:
        """Wait until a version serves. Raises DemoError."""
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as session:

            async def ask() -> bool:
                try:
                    async with session.get(f"{self.url}/readyz") as response:
                        return response.status == 200
                except (aiohttp.ClientError, TimeoutError):
                    return False

            await self._until(ask, timeout_s, "was not ready")

    async def _until(self, condition: Callable[[], Awaitable[bool]], timeout_s: float, what: str) -> None:
        try:
            async with asyncio.timeout(timeout_s):
                while not await condition():
                    if self.child.ended:
                        raise self.child.failed()
                    await asyncio.sleep(0.25)
        except TimeoutError:
            raise DemoError(f"the service {what} within {timeout_s:.0f} s: see {self.child.log}") from None

    async def stop(self) -> None:
        await self.child.stop()


async def fine_tune(
    model: Path,
    out: Path,
    *,
    seed: int,
    log: Path,
    tell: Callable[[int, int, float], None],
    count: int = DEMONSTRATIONS,
    steps: int = SFT_STEPS,
) -> None:
    """Fine-tune on `count` demonstrations in a process; `tell(step, steps, loss)` as it goes. Raises DemoError.

    They stay beside `out`, in the format of `rlhf-online sft --data`. One thread: the engine loads meanwhile.
    """
    shutil.rmtree(out, ignore_errors=True)
    out.parent.mkdir(parents=True, exist_ok=True)
    shown = out.with_name("demonstrations.jsonl")
    world.write_demonstrations(shown, count, seed)
    chosen = SftSettings.model_validate(
        {
            "model": model, "data": shown, "out": out, "steps": steps, "batch": SFT_BATCH, "lr": SFT_LR, "seed": seed,
            "device": "cpu", "threads": 1, "child": True,
        }
    )  # fmt: skip
    command = [sys.executable, "-m", "rlhf_online.training.sft", chosen.model_dump_json(exclude_unset=True)]
    child = await Child.start("supervised fine-tuning", command, log, pipe=True)
    try:
        assert child.process.stdout is not None
        async for line in child.process.stdout:
            values = json.loads(line)
            tell(values["step"], values["steps"], values["loss"])
        if await child.process.wait() != 0:
            raise child.failed()
    finally:
        await child.stop(grace_s=2.0)


def descendants(pid: int) -> dict[int, str]:
    """Process id → command line of every process that `pid` started, and of those that they started."""
    commands = {}
    with contextlib.suppress(psutil.NoSuchProcess):
        for child in psutil.Process(pid).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                commands[child.pid] = " ".join(child.cmdline())
    return commands


def kill(root: int, pattern: str) -> int | None:
    """SIGKILL the first descendant of `root` whose command line holds `pattern`; its id, None if there is none."""
    for pid, command in sorted(descendants(root).items()):
        if pattern in command:
            os.kill(pid, signal.SIGKILL)
            return pid
    return None
