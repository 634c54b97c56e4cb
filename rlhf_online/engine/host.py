"""`EngineHost`: keeps an engine serving the registry's live policy version.

    start engine ──▶ swap in the live version ──▶ ready: ask the store every poll_s, swap when another is live
        ▲                 (none yet: waiting)            │
        └── back off ◀── stop what is left ◀── it ended, or is not healthy, or a swap cannot be undone

A managed engine with `full` starts on dummy weights whatever the version, so the first version, every later one and
the one after a crash come in by the same transaction (`swap`). The host starts and watches the engine; which version
is due, and what becomes of one that fails, is `follower`'s business, how it gets in is `loader`'s, and what other pods
are told and asked is `pod`'s. The engine is watched while the store is asked, however slow that is.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Literal

import structlog

from rlhf_online.canary.record import Canary
from rlhf_online.config import EngineSettings, SwapSettings
from rlhf_online.engine.audiences import AudienceFollower
from rlhf_online.engine.canary import CanaryFollower
from rlhf_online.engine.child import SERVED_NAME, EngineProcess
from rlhf_online.engine.follower import POLLS_PER_S, VersionFollower
from rlhf_online.engine.loader import VersionLoader
from rlhf_online.engine.pod import Pod
from rlhf_online.engine.swap import SwapListener, SwapResult
from rlhf_online.engine.vllm import EngineClient
from rlhf_online.errors import EngineError, EngineStartFailed, EngineUnavailable
from rlhf_online.retry import Backoff
from rlhf_online.state import StateDir
from rlhf_online.versions.manifest import Change
from rlhf_online.versions.pods import pod_name
from rlhf_online.versions.registry import Registry

State = Literal["starting", "waiting", "ready", "restarting", "failed"]

HEALTH_S = 2.0  # between two health checks
UNHEALTHY = 3  # failed checks in a row after which the engine is started again
FIRST_BACKOFF_S, MAX_BACKOFF_S = 0.5, 60.0
ASK_AGAIN_S = 5.0  # an external engine, which others start: to ask it costs nothing


class EngineHost:
    """See the module. Await `run` in one task of the main thread; `close` ends it and the engine.

    Large because half of it shows what its parts know.
    """

    def __init__(self, settings: EngineSettings, swap: SwapSettings, registry: Registry, state: StateDir) -> None:
        self.registry = registry
        self.restarts = 0
        self.process: EngineProcess | None = None
        if settings.mode == "managed":
            self.process = EngineProcess(settings, state, dummy_weights=settings.tuning == "full")
        self.client = EngineClient(self.process.url if self.process else settings.url)
        self._swap = swap
        self._loader = VersionLoader(self.client, registry, settings, swap, scratch=state.run / "adapters")
        self.pod = Pod(registry.store, pod_name(state.root), self, max_lag_s=swap.max_lag_s, canary=swap.canary)
        self._follower = VersionFollower(self._loader, registry, self.pod, swap)
        beside = settings.tuning == "lora" and not swap.canary
        self._canary = CanaryFollower(
            self._loader,
            registry,
            self.pod,
            self.on_change,
            beside=beside,
            quorum=swap.quorum,
            poll_s=self._poll_s,
        )
        self._audiences = AudienceFollower(
            self._loader,
            registry,
            self.pod,
            self.on_change,
            places=settings.audiences,
            quorum=swap.quorum,
            poll_s=self._poll_s,
        )
        self._tuning = settings.tuning
        self._without: State = "starting"
        self._failure = ""
        self._closing = asyncio.Event()
        self._finished = asyncio.Event()
        self._finished.set()

    @property
    def state(self) -> State:
        """What the engine does."""
        if self.serving:
            return "ready"
        return "waiting" if self._follower.idle and not self._failure else self._without

    @property
    def failure(self) -> str:
        """Why nothing serves, "" where something does or nothing has failed."""
        return self._failure or self._follower.failure

    @property
    def serving(self) -> str:
        """The version whose weights write tokens now, "" for none."""
        return self._loader.serving

    @property
    def model_name(self) -> str:
        """The "model" of requests to the engine."""
        return self._loader.model_name

    @property
    def models(self) -> Mapping[str, str]:
        """The "model" of requests for each version that can be asked for by its name, oldest first."""
        return {**{version: version for version in self._loader.of_audiences.values()}, **self._loader.models}

    @property
    def audiences(self) -> Mapping[str, str]:
        """The version that answers for each audience; "" for the common one, while the engine holds none."""
        held = self._loader.of_audiences
        return {name: held.get(name, "") for name in self._audiences.wanted}

    @property
    def canary(self) -> Canary | None:
        """The candidate that some conversations get, while the engine holds it beside the version that serves."""
        return self._canary.held

    @property
    def audience_canaries(self) -> Mapping[str, Canary]:
        """The same of each audience, whose canary some of its conversations get."""
        return self._audiences.canaries

    @property
    def swaps(self) -> list[SwapResult]:
        """The latest, oldest first."""
        return self._follower.swaps

    @property
    def on_pause(self) -> list[SwapListener]:
        """Told (old, new) while the engine is paused, before new weights are loaded."""
        return self._loader.on_pause

    @property
    def on_restore(self) -> list[SwapListener]:
        """Told (old, new) if the old weights go on after all."""
        return self._loader.on_restore

    @property
    def on_change(self) -> list[Callable[[Change], Awaitable[None]]]:
        """Told when a version begins to serve or is refused."""
        return self._follower.on_change

    async def run(self) -> None:
        """Serve until `close`. Raises EngineStartFailed if the engine's very first start fails."""
        self._finished.clear()
        beside = [asyncio.create_task(each()) for each in (self.pod.run, self._canary.run, self._audiences.run)]
        started, backoff = 0.0, Backoff(FIRST_BACKOFF_S, MAX_BACKOFF_S if self.process else ASK_AGAIN_S)
        try:
            while not self._closing.is_set():
                try:
                    await self._start()
                    started, self._failure = time.monotonic(), ""
                    await self._serve()
                except EngineStartFailed as error:
                    self._failure = str(error)
                    if not started and self.process is not None and not self._closing.is_set():
                        self._without = "failed"
                        raise
                except (EngineError, OSError) as error:
                    self._failure = str(error)
                if self._closing.is_set():
                    return
                if started:
                    self._without, self.restarts = "restarting", self.restarts + 1
                    if time.monotonic() - started > MAX_BACKOFF_S:
                        backoff.reset()
                await self._back_off(backoff.advance())
        finally:
            for task in beside:
                task.cancel()
            await asyncio.wait(beside)
            await self._stop()
            self._finished.set()

    async def close(self) -> None:
        """End the engine, then wait until `run` has returned."""
        self._closing.set()
        if self.process is not None:
            await self.process.stop()
        await self._finished.wait()
        await self.client.close()

    # Starting and watching

    async def _start(self) -> None:
        if self.process is not None:
            await self.process.start()
            if not self._closing.is_set():
                await self.process.wait_healthy(self.client)
        elif not await self.client.health():
            raise EngineUnavailable(f"no engine answers at {self.client.url}: start it, or correct engine.url")
        if self._tuning == "lora" and not self._closing.is_set():
            await self._group_by_adapter()
        self._follower.idle = False
        self._loader.engine_started(SERVED_NAME if self.process else await self.client.model_name())

    async def _group_by_adapter(self) -> None:
        """Whatever happened to the engine before. One that others started without our worker cannot: it is theirs."""
        try:
            await self.client.group_by_adapter()
        except EngineUnavailable:
            raise
        except EngineError:
            if self.process is not None:
                raise

    async def _serve(self) -> None:
        """Keep the live version in the engine; returns when closing. Raises EngineError when the engine is lost."""
        exited = asyncio.ensure_future(self.process.exited()) if self.process else None
        closing = asyncio.ensure_future(self._closing.wait())
        due = asyncio.ensure_future(self._follower.due())
        failed_checks, next_check = 0, time.monotonic() + HEALTH_S
        try:
            while not self._closing.is_set():
                if exited is not None and exited.done():
                    log = self.process.log if self.process else "its log"
                    raise EngineUnavailable(f"the engine ended with code {exited.result()}: see {log}")
                if time.monotonic() >= next_check:
                    failed_checks = 0 if await self.client.health() else failed_checks + 1
                    if failed_checks >= UNHEALTHY:
                        raise EngineUnavailable("the engine does not answer its health check")
                    next_check = time.monotonic() + HEALTH_S
                waits: set[asyncio.Future[Any]] = {closing, due} | ({exited} if exited is not None else set())
                left_s = max(0.0, next_check - time.monotonic())
                await asyncio.wait(waits, timeout=left_s, return_when=asyncio.FIRST_COMPLETED)
                if due.done():
                    await self._follower.swap(due.result())
                    due = asyncio.ensure_future(self._follower.due())
        finally:
            for wait in (closing, due, *((exited,) if exited is not None else ())):
                wait.cancel()
            await asyncio.gather(closing, due, *((exited,) if exited is not None else ()), return_exceptions=True)

    def _poll_s(self) -> float:
        """Between two questions to the store, of which all pods together ask POLLS_PER_S at most."""
        return max(self._swap.poll_s, self.pod.count / POLLS_PER_S)

    async def _back_off(self, backoff_s: float) -> None:
        self._loader.engine_lost()
        structlog.get_logger().warning("engine_lost", reason=self._failure, again_in_s=backoff_s)
        await self._stop()
        try:
            await asyncio.wait_for(self._closing.wait(), backoff_s)
        except TimeoutError:
            pass

    async def _stop(self) -> None:
        if self.process is not None:
            await self.process.stop()
