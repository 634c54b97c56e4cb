"""Starts the three services in order, watches them, and stops them in order; nothing outlives it.

chat and reward start at once → their ports are known → the trainer starts with their addresses
a service that ends is started again on the same ports, after a wait (`service`), for as long as this runs: people chat
and vote whatever becomes of the trainer and the reward service
everything stops, and the message holds the end of a log, only when a service refuses its settings (exit code 2 before
it was ever ready), when the engine cannot start (exit code 3 of chat, or /readyz says so) and never could before, or
when chat ends five times in a row without having opened its ports
SIGINT or SIGTERM: trainer, reward, chat are asked to end in this order; a second signal kills them
"""

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from rlhf_online import config, keys, locks, process
from rlhf_online.durable import write_json
from rlhf_online.errors import AlreadyRunning, EngineStartFailed, InvalidInput, RlhfError, ServiceFailed
from rlhf_online.models.tensor_headers import has_weights
from rlhf_online.state import SERVICES_STATUS, StateDir
from rlhf_online.versions import open_registry
from rlhf_online.versions.genesis import ProbeOf, compute_apart, genesis
from services.standalone import children, preconditions
from services.standalone.children import Name, Ports
from services.standalone.processes import Child, adopt_orphans, end_orphans
from services.standalone.readiness import PROGRESS_S, Readiness
from services.standalone.service import Service
from services.standalone.settings import StandaloneSettings

TICK_S = 0.1
LOOK_S = 0.5
"""Between two questions to the store of versions, which may be far away."""
MANY = 5
FIRST_BACKOFF_S = 0.5
STOP_TIMEOUTS_S: dict[Name, float] = {"trainer": 30.0, "reward": 10.0, "chat": 40.0}
"""In the order of stopping: who needs the others goes first."""
SETTINGS_REFUSED = 2
ENGINE_CANNOT_START = EngineStartFailed.exit_code

Commands = dict[Name, list[str]]


def python_modules() -> Commands:
    """How each service is started; `--config FILE` is appended."""
    names: tuple[Name, ...] = ("chat", "reward", "trainer")
    return {name: [sys.executable, "-m", f"services.{name}"] for name in names}


class Supervisor:
    """The three services of `settings`. `say` takes one line for people at a time; `examine` looks into the models.

    Large because starting, watching and stopping act on the same children, ports and signals.
    """

    def __init__(
        self,
        settings: StandaloneSettings,
        *,
        commands: Commands | None = None,
        say: Callable[[str], None] = print,
        backoff_s: float = FIRST_BACKOFF_S,
        examine: Callable[[StandaloneSettings], list[str]] = preconditions.examine_models,
        probe_of: ProbeOf = compute_apart,
    ) -> None:
        self._settings = settings
        self._examine = examine
        self._probe_of = probe_of
        self._say = say
        self._state = StateDir(settings.state_dir.resolve())
        self._registry = open_registry(self._state.versions, settings=settings.versions, actor="rlhf-online up")
        self._ports = Ports()
        self._services: dict[Name, Service] = {}
        for name, command in (commands or python_modules()).items():
            line = [*command, "--config", str(self._state.run / f"{name}.toml")]
            child = Child(name, line, self._state.logs / f"{name}.log")
            self._services[name] = Service(name, child, children.ready_file(self._state, name), backoff_s)
        self._signals = 0
        self._live: str | None = None
        self._next_look_s = 0.0
        self._readiness = Readiness(self._tell, settings.chat.engine.start_timeout_s)
        self._status: dict[str, Any] = {}

    def run(self) -> None:
        """Run until a signal. Raises an RlhfError if nothing could be started or a service failed for good."""
        self._state.close_to_others()
        with _locked(self._state):
            config.dump(self._settings, self._state.run / "standalone.toml")
            preconditions.check(self._settings)
            for warning in self._examine(self._settings):
                self._say(f"model          {warning}")
            adopt_orphans()
            with self._catching_signals():
                try:
                    self._start()
                    while not self._signals:
                        self._tick()
                finally:
                    children.ready_file(self._state, "standalone").unlink(missing_ok=True)
                    self._readiness.close()
                    self._stop()

    # Starting

    def _start(self) -> None:
        self._state.operator_token()
        for name in ("chat", "reward"):
            self._launch(self._services[name])
        self._make_first_version()
        self._await_chat()
        if self._signals:
            return
        ports = self._ports.known["chat"]
        # For the command line, which finds the service by its state folder.
        url = children.chat_url(self._settings, self._ports)
        write_json(children.ready_file(self._state, "standalone"), {"pid": os.getpid(), "url": url, **ports})
        process.write_ready_file(self._settings.ready_file, **ports)
        self._greet(ports)

    def _make_first_version(self) -> None:
        """While the engine starts, since computing its probe takes some seconds. Raises InvalidInput."""
        model = Path(self._settings.model)
        try:
            if has_weights(model):
                genesis(self._registry, model, tuning=self._settings.tuning, probe_of=self._probe_of)
        except InvalidInput:
            if not self._signals:  # Ctrl-C ends that process too
                raise
        self._live = self._registry.live("policy")

    def _launch(self, service: Service) -> None:
        service.start(partial(children.write_settings, service.name, self._settings, self._ports))

    def _await_chat(self) -> None:
        timeout_s, began = self._settings.chat.engine.start_timeout_s, time.monotonic()
        told_s = began
        while "chat" not in self._ports.known and not self._signals:
            now = time.monotonic()
            if now > began + timeout_s:
                raise ServiceFailed(
                    f"chat opened no port within {timeout_s:g} s (chat.engine.start_timeout_s); the end of its log:\n"
                    f"{self._services['chat'].tail()}"
                )
            if now > told_s + PROGRESS_S:
                told_s = now
                self._tell(f"starting       chat has not opened its ports yet ({now - began:.0f} s)")
            for name in ("chat", "reward"):
                self._watch(self._services[name])
            time.sleep(TICK_S)

    def _greet(self, ports: dict[str, int]) -> None:
        host = children.address(self._settings.host)
        scheme = "https" if self._settings.chat.tls.cert_file else "http"
        self._tell(f"page and API   {scheme}://{host}:{ports.get('http')}/   (OpenAI-compatible below /v1)")
        self._tell(f"gRPC           {host}:{ports.get('grpc')}")
        self._tell(f"state          {self._state.root}   (operator's token in operator.token, logs in logs/)")
        if keys.in_force(path := self._settings.chat.keys_file or self._state.keys):
            self._tell(f"keys           {path}: a call needs one, Authorization: Bearer KEY; rlhf-online keys create")
        else:
            self._tell("keys           none: only this machine is served, and needs none; rlhf-online keys create")
        if self._live is None:
            self._tell("waiting for the first version: the model's folder has no weights")
        else:
            self._tell(f"loading        {self._live}: chat begins when the engine is up, votes are taken already")

    def _tell(self, line: str) -> None:
        """Nobody may read it any more, or its disk may be full: that ends no service."""
        with suppress(OSError):
            self._say(line)

    # Running

    def _tick(self) -> None:
        for service in self._services.values():
            self._watch(service)
        self._write_status()
        self._follow_versions()
        self._follow_engine()
        time.sleep(TICK_S)

    def _watch(self, service: Service) -> None:
        """Learn its ports, notice its end, start it when that is due; the trainer first when the others are ready."""
        if (delay := service.end()) is not None:
            self._ended(service, delay)
        elif service.due:
            end_orphans(self._pids(), timeout_s=10.0)
            self._launch(service)
        elif not service.started:
            if {"chat", "reward"} <= self._ports.known.keys():
                self._launch(service)
        elif service.name not in self._ports.known and (ports := service.ports()) is not None:
            self._ports.known[service.name] = ports

    def _ended(self, service: Service, delay: float) -> None:
        """Tell it, with the end of its log if that is new. Raises ServiceFailed if starting it again is no use."""
        name, code = service.name, service.exit_code
        if code == SETTINGS_REFUSED and not service.was_ready:
            raise ServiceFailed(f"{name} cannot run with its settings:\n{service.tail()}")
        if name == "chat" and code == ENGINE_CANNOT_START and not self._readiness.engine_was_up:
            raise ServiceFailed(f"the engine cannot start:\n{service.tail()}\nIts whole log: {self._engine_log()}")
        end = f"the end of {service.child.log}:\n{service.tail()}"
        if name == "chat" and service.failed_starts >= MANY:
            often = f"chat ended {MANY} times in a row before it opened its ports, the last time it"
            raise ServiceFailed(f"{often} {service.last_end}; {end}")
        again = f"{name} {service.last_end}; starting it again in {delay:g} s"
        if name != "chat":
            again += ", chat and votes go on"
        new = service.short_lives == MANY  # told once, while it keeps ending
        self._tell(f"{again}. It ended {MANY} times in short; {end}" if new else f"{again} (log: {service.child.log})")

    def _write_status(self) -> None:
        """Which services run, for `rlhf-online status` and the chat service's metrics, whenever that changes."""
        status = {name: service.status() for name, service in self._services.items()}
        if status == self._status:
            return
        with suppress(OSError):  # a full disk: at the next tick
            self._state.write_status(SERVICES_STATUS, status)
            self._status = status

    def _follow_versions(self) -> None:
        if time.monotonic() < self._next_look_s:
            return
        self._next_look_s = time.monotonic() + LOOK_S
        try:
            live = self._registry.live("policy")
            if live is None or live == self._live:
                return
            status = self._registry.status(live)
        except (OSError, RlhfError):  # those that load the version say what is wrong with it
            return
        if status.state != "live":  # its promotion has moved the pointer, and is about to write why
            return
        instead = f" instead of {self._live}" if self._live else ""
        self._live = live
        self._tell(f"new version    {live} is live{instead}" + (f": {status.reason}" if status.reason else ""))

    def _follow_engine(self) -> None:
        try:
            self._readiness.follow(children.chat_url(self._settings, self._ports), self._live)
        except ServiceFailed as error:
            raise ServiceFailed(f"{error}\nIts whole log: {self._engine_log()}") from None

    # Stopping

    def _stop(self) -> None:
        for name, timeout_s in STOP_TIMEOUTS_S.items():
            child = self._services[name].child
            child.terminate()
            deadline = time.monotonic() + timeout_s
            while child.pid is not None and time.monotonic() < deadline and self._signals < 2:
                time.sleep(TICK_S)
            child.kill()
        end_orphans([], timeout_s=10.0 if self._signals < 2 else 0.0)

    def _pids(self) -> list[int]:
        return [pid for service in self._services.values() if (pid := service.child.pid) is not None]

    def _engine_log(self) -> Path:
        return self._state.logs / "engine.log"

    @contextmanager
    def _catching_signals(self) -> Iterator[None]:
        def count(number: int, frame: object) -> None:
            self._signals += 1

        previous = {number: signal.signal(number, count) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)


@contextmanager
def _locked(state: StateDir) -> Iterator[None]:
    """Hold the state folder for this process. Raises AlreadyRunning."""
    state.run.mkdir(parents=True, exist_ok=True)
    if (lock := locks.try_acquire(state.run / "standalone.lock")) is None:
        raise AlreadyRunning(
            f"the services of {state.root} are running already: stop them first, or give another --state"
        )
    with lock:
        yield
