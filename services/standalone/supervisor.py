"""Starts the three services in order, watches them, and stops them in order; nothing outlives it.

chat and reward start at once → their ports are known → the trainer starts with their addresses
a service that ends is restarted on the same ports, with backoff
it ended with exit code 2 (its settings) before it was ready, with 3 (its engine cannot start), or for the fifth time
within a minute: everything stops, and the message holds the end of its log; likewise when /readyz says that the engine
failed; but a trainer or reward service that had become ready is tried again after a minute: people chat meanwhile
SIGINT or SIGTERM: trainer, reward, chat are asked to end in this order; a second signal kills them
"""

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from rlhf_online import config, locks, process
from rlhf_online.durable import write_json
from rlhf_online.errors import AlreadyRunning, EngineStartFailed, ServiceFailed
from rlhf_online.models.tensor_headers import has_weights
from rlhf_online.retry import Backoff
from rlhf_online.state import StateDir
from rlhf_online.versions import open_registry
from rlhf_online.versions.genesis import genesis
from services.standalone import children, preconditions
from services.standalone.children import Name, Ports
from services.standalone.processes import Child, adopt_orphans, end_orphans
from services.standalone.settings import StandaloneSettings

TICK_S = 0.1
ASK_ENGINE_S, READYZ_TIMEOUT_S = 1.0, 2.0
WINDOW_S = 60.0
MAX_STARTS = 5
FIRST_BACKOFF_S = 0.5
MAX_BACKOFF_S = 8.0
READY_TIMEOUT_S = 300.0
STOP_TIMEOUTS_S: dict[Name, float] = {"trainer": 30.0, "reward": 10.0, "chat": 40.0}
"""In the order of stopping: who needs the others goes first."""
SETTINGS_REFUSED = 2
DISPENSABLE: tuple[Name, ...] = ("trainer", "reward")
"""Without them people chat and vote, and nothing is lost: learning waits."""
ENGINE_CANNOT_START = EngineStartFailed.exit_code

Commands = dict[Name, list[str]]


def python_modules() -> Commands:
    """How each service is started; `--config FILE` is appended."""
    names: tuple[Name, ...] = ("chat", "reward", "trainer")
    return {name: [sys.executable, "-m", f"services.{name}"] for name in names}


@dataclass(slots=True)
class Service:
    """A child and when it may be started again."""

    name: Name
    child: Child
    backoff: Backoff
    restart_at: float | None = None


class Supervisor:
    """The three services of `settings`. `say` takes one line for people at a time.

    Large because starting, watching and stopping act on the same children, ports and signals.
    """

    def __init__(
        self,
        settings: StandaloneSettings,
        *,
        commands: Commands | None = None,
        say: Callable[[str], None] = print,
        backoff_s: float = FIRST_BACKOFF_S,
    ) -> None:
        self._settings = settings
        self._say = say
        self._state = StateDir(settings.state_dir.resolve())
        self._registry = open_registry(self._state.versions)
        self._ports = Ports()
        self._services: dict[Name, Service] = {}
        for name, command in (commands or python_modules()).items():
            line = [*command, "--config", str(self._state.run / f"{name}.toml")]
            child = Child(name, line, self._state.logs / f"{name}.log")
            self._services[name] = Service(name, child, Backoff(backoff_s, MAX_BACKOFF_S))
        self._signals = 0
        self._live: str | None = None
        # On this machine: a proxy of the environment is meant for the outside.
        self._http = httpx.Client(trust_env=False, timeout=READYZ_TIMEOUT_S)
        self._engine = ""
        self._ask_engine_at = 0.0

    def run(self) -> None:
        """Run until a signal. Raises an RlhfError if nothing could be started or a service failed for good."""
        with _locked(self._state):
            config.dump(self._settings, self._state.run / "standalone.toml")
            preconditions.check(self._settings)
            adopt_orphans()
            with self._catching_signals():
                try:
                    self._start()
                    while not self._signals:
                        self._tick()
                finally:
                    children.ready_file(self._state, "standalone").unlink(missing_ok=True)
                    self._http.close()
                    self._stop()

    # Starting

    def _start(self) -> None:
        self._state.operator_token()
        model = Path(self._settings.model)
        if has_weights(model):
            genesis(self._registry, model, tuning=self._settings.tuning)
        self._live = self._registry.live("policy")
        for name in ("chat", "reward"):
            self._launch(name)
        for name in ("chat", "reward"):
            self._await_ready(name)
        if self._signals:
            return
        self._launch("trainer")
        ports = self._ports.known["chat"]
        # For the command line, which finds the service by its state folder.
        host = children.address(self._settings.host)
        write_json(children.ready_file(self._state, "standalone"), {"pid": os.getpid(), "host": host, **ports})
        process.write_ready_file(self._settings.ready_file, **ports)
        self._greet(ports)

    def _launch(self, name: Name) -> None:
        service = self._services[name]
        service.restart_at = None
        children.ready_file(self._state, name).unlink(missing_ok=True)
        children.write_settings(name, self._settings, self._ports)
        service.child.start()

    def _await_ready(self, name: Name) -> None:
        deadline = time.monotonic() + READY_TIMEOUT_S
        while not self._learn_ports(name) and not self._signals:
            if time.monotonic() > deadline:
                raise ServiceFailed(
                    f"{name} opened no port within {READY_TIMEOUT_S:.0f} s; the end of its log:\n{self._tail(name)}"
                )
            self._revive(self._services[name])
            time.sleep(TICK_S)

    def _learn_ports(self, name: Name) -> bool:
        """Read the ports from the service's ready file; False while there is none."""
        if name in self._ports.known:
            return True
        values = children.read_ready(children.ready_file(self._state, name))
        if values is None:
            return False
        self._ports.known[name] = {use: port for use, port in values.items() if use != "pid"}
        return True

    def _greet(self, ports: dict[str, int]) -> None:
        host = children.address(self._settings.host)
        self._say(f"page and API   http://{host}:{ports.get('http')}/   (OpenAI-compatible below /v1)")
        self._say(f"gRPC           {host}:{ports.get('grpc')}")
        self._say(f"state          {self._state.root}   (operator's token in operator.token, logs in logs/)")
        if self._live is None:
            self._say("waiting for the first version: the model's folder has no weights")
        else:
            self._say(f"loading        {self._live}: chat begins when the engine is up, votes are taken already")

    # Running

    def _tick(self) -> None:
        for service in self._services.values():
            self._revive(service)
            self._learn_ports(service.name)
        self._follow_versions()
        if time.monotonic() >= self._ask_engine_at:
            self._follow_engine()
            self._ask_engine_at = time.monotonic() + ASK_ENGINE_S
        time.sleep(TICK_S)

    def _revive(self, service: Service) -> None:
        code = service.child.exit_code()
        if code is None:
            return
        now = time.monotonic()
        if service.restart_at is None:
            service.restart_at = now + self._backoff(service, code, now)
        elif now >= service.restart_at:
            end_orphans(self._pids(), timeout_s=10.0)
            self._launch(service.name)

    def _backoff(self, service: Service, code: int, now: float) -> float:
        name, recent = service.name, [t for t in service.child.started if now - t < WINDOW_S]
        was_ready = children.read_ready(children.ready_file(self._state, name)) is not None
        if code == SETTINGS_REFUSED and not was_ready:
            raise ServiceFailed(f"{name} cannot run with its settings:\n{self._tail(name)}")
        if name == "chat" and code == ENGINE_CANNOT_START:
            raise ServiceFailed(f"the engine cannot start:\n{self._tail(name)}\nIts whole log: {self._engine_log()}")
        if len(recent) >= MAX_STARTS:
            often = f"{name} ended {len(recent)} times within {WINDOW_S:.0f} s, the last time with {_ending(code)}; "
            end = f"the end of {service.child.log}:\n{self._tail(name)}"
            if not (was_ready and name in DISPENSABLE):
                raise ServiceFailed(often + end)
            self._say(f"{often}chat and votes go on, and it is tried again in {WINDOW_S:.0f} s; {end}")
            return WINDOW_S
        if len(recent) <= 1:
            service.backoff.reset()
        delay = service.backoff.advance()
        self._say(f"{name} ended with {_ending(code)}; starting it again in {delay:g} s (log: {service.child.log})")
        return delay

    def _follow_versions(self) -> None:
        live = self._registry.live("policy")
        if live is None or live == self._live:
            return
        reason = self._registry.status(live).reason
        instead = f" instead of {self._live}" if self._live else ""
        self._live = live
        self._say(f"new version    {live} is live{instead}" + (f": {reason}" if reason else ""))

    def _follow_engine(self) -> None:
        """Tell when the engine becomes ready or restarts. Raises ServiceFailed when it has given up."""
        values = self._readiness()
        engine = str(values.get("state", ""))
        if engine == "failed":
            why = values.get("message") or "it said nothing"
            raise ServiceFailed(f"the engine cannot start: {why}\nIts whole log: {self._engine_log()}")
        if engine and engine != self._engine:
            if engine == "ready":
                self._say(f"ready          {values.get('serving') or self._live} is serving; Ctrl-C ends")
            elif self._engine:
                self._say(f"engine         {engine}")
            self._engine = engine

    def _readiness(self) -> dict:
        host, port = children.address(self._settings.host), self._ports.get("chat", "http")
        try:
            return self._http.get(f"http://{host}:{port}/readyz").json()
        except (httpx.HTTPError, ValueError):  # the chat service restarts, or is busy: its exit is noticed elsewhere
            return {}

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

    def _tail(self, name: Name) -> str:
        return self._services[name].child.tail()

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


def _ending(code: int) -> str:
    return f"exit code {code}" if code >= 0 else f"signal {signal.Signals(-code).name}"
