"""The whole product as processes that can be killed and started again, on loopback, with cycles of a second.

    clients ──HTTP──▶ chat ──▶ engine (random words; not under test)
                       │ spool, forwarder (a process of its own)
                       ▼
                     broker ──▶ trainer ──▶ rollouts from chat, scores from reward

Ports that others know are kept over restarts.
"""

import asyncio
import json
import os
import signal
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol, Self

import psutil

from rlhf_online.config import (
    ChatSettings,
    EngineSettings,
    LimitSettings,
    LogSettings,
    PersonQuota,
    RewardSettings,
    ServiceSettings,
    SwapSettings,
    dump,
)
from rlhf_online.eventlog.base import Position
from rlhf_online.gate.settings import GateSettings
from rlhf_online.simulation.tiny_model import write_tiny_model
from rlhf_online.state import StateDir
from rlhf_online.training.policy.settings import PolicyTraining
from rlhf_online.training.settings import RewardTraining, RolloutSettings, TrainerSettings
from rlhf_online.versions import open_registry
from rlhf_online.versions.genesis import genesis
from tests.support.forked import Forked
from tests.support.gate import OPEN
from tests.support.kafka_broker import Broker
from tests.support.ports import reserve
from tests.support.small_disk import SmallDisk, cannot_mount, small_disk
from tests.support.waiting import ENGINE_START_S

POLL_S = 0.05
AGAIN_S = 0.5
DISK_MIB = 256
UNLIMITED = PersonQuota(requests_per_minute=0, concurrent=0, tokens_per_day=0, votes_per_hour=0)
AFTER_FULL_S = 15.0
"""A log that took no event says so for ten seconds, and a start may have begun while the disk was full."""


class Component(Protocol):
    """Something that can be killed. `name` says which, `output` is where it says what it does."""

    name: str
    output: Path

    def start(self) -> None:
        """Begin to start."""
        ...

    async def ready(self) -> None:
        """Wait until it takes requests. Raises AssertionError if it ended by itself."""
        ...

    def kill(self) -> None:
        """SIGKILL. Raises AssertionError if it had ended by itself."""
        ...

    def pause(self) -> None:
        """SIGSTOP."""
        ...

    def resume(self) -> None:
        """SIGCONT."""
        ...


class Service:
    """A service of the product. `ports` are those that it told when it was ready.

    `disturbed_s` is when somebody last did something to it. It may end by itself while `disk` is full, and is started
    again then, as `up` does it.
    """

    def __init__(self, name: str, settings: ServiceSettings, folder: Path, disk: "Disk") -> None:
        config = folder / f"{name}.toml"
        self.name, self.output = name, folder / f"{name}.log"
        self.ports: dict[str, int] = {}
        self.disturbed_s = time.monotonic()
        self._disk = disk
        self._ready_file = folder / f"{name}.json"
        dump(settings.model_copy(update={"ready_file": self._ready_file}), config)
        self._process = Forked(f"services.{name}.__main__", ["--config", str(config)], self.output)

    @property
    def exit_code(self) -> int | None:
        """None while it runs."""
        return self._process.exit_code

    def start(self) -> None:
        self.disturbed_s = time.monotonic()
        self._process.start()

    async def ready(self) -> None:
        deadline = time.monotonic() + ENGINE_START_S
        while not self._announced():
            await self._start_again_if_the_disk_ended_it()
            assert self.exit_code is None, f"{self.name} ended by itself: {last_words(self.output)}"
            assert time.monotonic() < deadline, f"{self.name} is not ready: {last_words(self.output)}"
            await asyncio.sleep(POLL_S)

    def kill(self) -> None:
        self.disturbed_s = time.monotonic()
        code = self._process.kill()
        assert code < 0 or self._disk.was_full, f"{self.name} ended by itself, {code}: {last_words(self.output)}"

    def pause(self) -> None:
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        self.disturbed_s = time.monotonic()
        if self.exit_code is None:
            os.kill(self._process.pid, number)

    async def _start_again_if_the_disk_ended_it(self) -> None:
        if self.exit_code is not None and self._disk.was_full:
            self._process.abandon()
            await asyncio.sleep(AGAIN_S)
            self.start()

    def children(self, module: str) -> list[int]:
        """Processes of Python's `module` that it has started."""
        started = psutil.Process(self._process.pid).children()
        return [child.pid for child in started if module in child.cmdline()]

    def stop(self) -> None:
        """SIGTERM. Raises AssertionError if it does not end in good order."""
        code = self._process.stop()
        assert code == 0, f"{self.name} ended with code {code}: {last_words(self.output)}"

    def abandon(self) -> None:
        """End it if it runs, however."""
        self._process.abandon()

    def _announced(self) -> bool:
        try:
            told = json.loads(self._ready_file.read_text())
        except FileNotFoundError:
            return False
        self.ports = told
        return told["pid"] == self._process.pid


class Trainer(Service):
    """It counts as ready once it has committed something: a life that is cut short before proves nothing."""

    def __init__(self, settings: TrainerSettings, folder: Path, disk: "Disk") -> None:
        super().__init__("trainer", settings, folder, disk)
        self._checkpoints = StateDir(settings.state_dir).checkpoints
        self._before: dict[str, Any] = {}

    def start(self) -> None:
        self._before = self.checkpoint()
        super().start()

    async def ready(self) -> None:
        await super().ready()
        deadline = time.monotonic() + ENGINE_START_S
        while self.checkpoint() == self._before:
            if self.exit_code is not None and self._disk.was_full:
                return await self.ready_again()
            assert self.exit_code is None, f"{self.name} ended by itself: {last_words(self.output)}"
            assert time.monotonic() < deadline, f"{self.name} commits nothing: {last_words(self.output)}"
            await asyncio.sleep(POLL_S)

    async def ready_again(self) -> None:
        await self._start_again_if_the_disk_ended_it()
        await self.ready()

    @property
    def position(self) -> Position:
        """Where the newest checkpoint has read the log up to."""
        return self.checkpoint().get("log", {}).get("position", {})

    def checkpoint(self) -> dict[str, Any]:
        """The newest checkpoint's manifest, {} without one."""
        for manifest in sorted(self._checkpoints.glob("[0-9]*/manifest.json"), reverse=True):
            try:
                return json.loads(manifest.read_text())
            except FileNotFoundError:  # removed meanwhile, as a newer one is there
                continue
        return {}


class KafkaBroker:
    """The broker as a component."""

    name = "broker"

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self.output = broker.log

    def start(self) -> None:
        self._broker.launch()

    async def ready(self) -> None:
        deadline = time.monotonic() + ENGINE_START_S
        while not await self._connects():
            assert time.monotonic() < deadline, f"the broker is not ready: {last_words(self.output)}"
            await asyncio.sleep(POLL_S)

    def kill(self) -> None:
        self._broker.kill()

    def pause(self) -> None:
        self._broker.pause()

    def resume(self) -> None:
        self._broker.resume()

    async def _connects(self) -> bool:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", self._broker.port)
        except OSError:
            return False
        writer.close()
        await writer.wait_closed()
        return True


class Disk:
    """The disk that the state folder is on: one of its own where it can be mounted, which `fill` fills."""

    def __init__(self, folder: Path, undo: ExitStack) -> None:
        self.fills = 0
        self._full_s = 0.0
        self._small: SmallDisk | None = None
        if not cannot_mount(folder):
            self._small = undo.enter_context(small_disk(folder, DISK_MIB))

    @property
    def was_full(self) -> bool:
        """Now, or so shortly ago that somebody may still suffer from it."""
        return time.monotonic() < self._full_s + AFTER_FULL_S

    async def fill(self, seconds: float) -> None:
        """Keep it full, whatever others remove; does nothing where no disk could be mounted."""
        if self._small is None:
            return
        self.fills += 1
        end = time.monotonic() + seconds
        try:
            while (now := time.monotonic()) < end:
                self._full_s = now
                self._small.fill()
                await asyncio.sleep(POLL_S)
        finally:
            self._small.free()
            self._full_s = time.monotonic()


class Product:
    """Everything below `folder`. As a context it runs engine and reward service, and ends all in the end.

    `chat`, `trainer` and `broker` are for the caller to start and to kill; `url` is where people reach `chat`.
    """

    def __init__(self, folder: Path, seed: int) -> None:
        self.state = StateDir(folder / "state")
        self.registry = open_registry(self.state.versions)
        self._model = folder / "model"
        self._folder = folder
        self._undo = ExitStack()
        self.disk = Disk(self.state.root, self._undo)
        self._engine = Forked("tests.support.engine_process", [str(folder / "engine.sock")], folder / "engine.log")
        self._undo.callback(self._engine.abandon)
        broker = Broker(folder / "kafka")
        self._undo.callback(broker.kill)
        self.broker, self.kafka = KafkaBroker(broker), broker.address
        self.log = LogSettings(url=f"kafka://{broker.address}", segment_bytes=1 << 20, retain_gib=1 / 256)
        port = reserve()
        self.url = f"http://127.0.0.1:{port}"
        write_tiny_model(self._model, weights_seed=seed)
        genesis(self.registry, self._model, tuning="full")
        self.chat = self._service("chat", self._chat(port))
        self.reward = self._service("reward", self._reward())

    async def __aenter__(self) -> Self:
        self._engine.start()
        self.reward.start()
        await self.reward.ready()
        self.trainer = Trainer(self._trainer(self.reward.ports["grpc"]), self._folder, self.disk)
        self._undo.callback(self.trainer.abandon)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._undo.close()

    @property
    def lives(self) -> Sequence[Component]:
        """What is to be killed."""
        return (self.chat, self.broker, self.trainer)

    async def kill_forwarder(self) -> None:
        """SIGKILL the process that ships the chat service's log. Raises AssertionError if there is none for long."""
        deadline = time.monotonic() + ENGINE_START_S
        while not (found := self.chat.children("rlhf_online.eventlog.kafka.forwarder_process")):
            assert time.monotonic() < deadline, f"nobody ships: {last_words(self.chat.output)}"
            await asyncio.sleep(POLL_S)
        os.kill(found[0], signal.SIGKILL)

    def _service(self, name: str, settings: ServiceSettings) -> Service:
        service = Service(name, settings, self._folder, self.disk)
        self._undo.callback(service.abandon)
        return service

    def _chat(self, port: int) -> ChatSettings:
        return ChatSettings(
            state_dir=self.state.root,
            die_with_parent=True,
            http_port=port,
            grpc_port=0,
            log=self.log,
            engine=EngineSettings(mode="external", url=f"unix:{self._folder / 'engine.sock'}", model=str(self._model)),
            swap=SwapSettings(poll_s=0.1),
            limits=LimitSettings(person=UNLIMITED),  # few people vote for hours as fast as they can
        )

    def _reward(self) -> RewardSettings:
        return RewardSettings(
            state_dir=self.state.root,
            die_with_parent=True,
            grpc_port=0,
            metrics_port=0,
            model=str(self._model),
            device="cpu",
            poll_s=0.1,
        )

    def _trainer(self, reward_port: int) -> TrainerSettings:
        """Few votes, few rollouts, one pass, small steps: the policy stays near the engine's random words."""
        return TrainerSettings(
            state_dir=self.state.root,
            die_with_parent=True,
            metrics_port=0,
            chat_url=self.url,
            reward_address=f"127.0.0.1:{reward_port}",
            model=str(self._model),
            tuning="full",
            device="cpu",
            cold_votes=12,
            min_votes=8,
            join_window_s=60.0,
            keep_checkpoints=2,
            keep_versions=2,
            log=self.log,
            reward=RewardTraining(heads=2, epochs=1, cold_epochs=2, held_out=0.2, policy_accuracy=0.0),
            policy=PolicyTraining(lr=1e-5, epochs=1, minibatches=2, max_step_kl=50.0),
            rollout=RolloutSettings(per_cycle=32, answers_per_prompt=4, max_tokens=8),
            gate=GateSettings.model_validate(
                {
                    "samples": 16,
                    "kl": {"max": 1e3},
                    "win_rate": {"min": 0.0},
                    "length": {"max_ratio": 50.0, "min_ratio": 0.0},
                    **OPEN,
                }
            ),
        )


def last_words(output: Path) -> str:
    """The end of what a process said."""
    return output.read_text(errors="replace")[-3000:] if output.exists() else "nothing was said"
