"""`EngineHost`: keeps an engine serving the registry's live policy version.

    start engine ──▶ swap in the live version ──▶ ready: ask the registry every poll_s, swap when another is live
        ▲                 (none yet: waiting)            │
        └── back off ◀── stop what is left ◀── it ended, or is not healthy, or a swap cannot be undone

A managed engine with `full` starts on dummy weights whatever the version, so the first version, every later one and
the one after a crash come in by the same transaction (`swap`). After a crash the last good version is loaded first.
A version that fails is marked failed in the registry and the version before it is live again; one that the engine
died on twice counts as failed too. Invariant: `serving` names the weights that write tokens now.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Literal

import structlog

from rlhf_online.config import EngineSettings, SwapSettings
from rlhf_online.engine import preflight
from rlhf_online.engine.child import LORA_SLOTS, SERVED_NAME, EngineProcess
from rlhf_online.engine.swap import Listener, SwapResult, Weights, swap_full, swap_lora, unload_quietly
from rlhf_online.engine.vllm import EngineClient
from rlhf_online.errors import (
    EngineError,
    EngineStartFailed,
    EngineUnavailable,
    InvalidInput,
    UnknownVersion,
    VersionCorrupt,
)
from rlhf_online.models.tensor_headers import has_weights
from rlhf_online.retry import Backoff
from rlhf_online.state import StateDir
from rlhf_online.versions.manifest import Change
from rlhf_online.versions.registry import Registry

State = Literal["starting", "waiting", "ready", "restarting", "failed"]

HEALTH_S = 2.0  # between two health checks
UNHEALTHY = 3  # failed checks in a row after which the engine is started again
FIRST_BACKOFF_S, MAX_BACKOFF_S = 0.5, 60.0
MAX_DEATHS = 2  # engine deaths during swaps to one version after which it counts as failed
KEEP_SWAPS = 1000


class EngineHost:
    """See the module. Await `run` in one task of the main thread; `close` ends it and the engine."""

    def __init__(self, settings: EngineSettings, swap: SwapSettings, registry: Registry, state: StateDir) -> None:
        self.settings, self.swap_settings, self.registry, self.state_dir = settings, swap, registry, state
        self.state: State = "starting"
        self.failure = ""
        self.serving = ""
        self.model_name = SERVED_NAME
        self.restarts = 0
        self.swaps: list[SwapResult] = []
        self.boundary: list[Listener] = []
        self.undo: list[Listener] = []
        self.changes: list[Callable[[Change], Awaitable[None]]] = []
        self.process: EngineProcess | None = None
        if settings.mode == "managed":
            self.process = EngineProcess(settings, state, dummy_weights=settings.tuning == "full")
        self.client = EngineClient(self.process.url if self.process else settings.url)
        self._closing = asyncio.Event()
        self._finished = asyncio.Event()
        self._finished.set()
        self._good: Weights | None = None
        self._deaths: dict[str, int] = {}
        self._refused: set[str] = set()
        self._adapters: list[str] = []
        self._base_name = SERVED_NAME
        self._not_before = 0.0  # a swap that was postponed is not tried again earlier
        self._log = structlog.get_logger()

    async def run(self) -> None:
        """Serve until `close`. Raises EngineStartFailed if the engine's very first start fails."""
        self._finished.clear()
        started, backoff = 0.0, Backoff(FIRST_BACKOFF_S, MAX_BACKOFF_S)
        try:
            while not self._closing.is_set():
                try:
                    await self._start()
                    started, self.failure = time.monotonic(), ""
                    await self._follow()
                except EngineStartFailed as error:
                    self.failure = str(error)
                    if not started and self.process is not None and not self._closing.is_set():
                        self.state = "failed"
                        raise
                except EngineError as error:
                    self.failure = str(error)
                if self._closing.is_set():
                    return
                if started:
                    self.state, self.restarts = "restarting", self.restarts + 1
                    if time.monotonic() - started > MAX_BACKOFF_S:
                        backoff.reset()
                await self._back_off(backoff.advance())
        finally:
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
            raise EngineUnavailable(f"no engine answers at {self.settings.url}: start it, or correct engine.url")
        else:
            self._base_name = self.model_name = await self.client.model_name()
        self._adapters.clear()

    async def _follow(self) -> None:
        """Keep the live version in the engine; returns when closing. Raises EngineError when the engine is lost."""
        exited = asyncio.ensure_future(self.process.exited()) if self.process else None
        waits: set[asyncio.Future[Any]] = {asyncio.ensure_future(self._closing.wait())}
        if exited is not None:
            waits.add(exited)
        failed_checks, next_check = 0, time.monotonic() + HEALTH_S
        try:
            while not self._closing.is_set():
                if exited is not None and exited.done():
                    raise EngineUnavailable(f"the engine ended with code {exited.result()}: see {self._log_path()}")
                if time.monotonic() >= next_check:
                    failed_checks = 0 if await self.client.health() else failed_checks + 1
                    if failed_checks >= UNHEALTHY:
                        raise EngineUnavailable("the engine does not answer its health check")
                    next_check = time.monotonic() + HEALTH_S
                target = self._target()
                if target:
                    await self._swap(target)
                if not self.serving:
                    self.state = "waiting"
                await asyncio.wait(waits, timeout=self.swap_settings.poll_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
            await asyncio.gather(*waits, return_exceptions=True)

    async def _back_off(self, backoff_s: float) -> None:
        self.serving = ""
        self._log.warning("engine_lost", reason=self.failure, again_in_s=backoff_s)
        await self._stop()
        try:
            await asyncio.wait_for(self._closing.wait(), backoff_s)
        except TimeoutError:
            pass

    async def _stop(self) -> None:
        if self.process is not None:
            await self.process.stop()

    def _log_path(self) -> str:
        return str(self.process.log) if self.process else "its log"

    # Versions

    def _target(self) -> str:
        """The version to swap in now, "" for none: after a crash the last good one, then always the live one."""
        live = self.registry.live("policy")
        if time.monotonic() < self._not_before:
            return ""
        if not self.serving and self._good is not None and self._usable(self._good.version):
            return self._good.version
        return "" if live is None or live == self.serving or live in self._refused else live

    def _usable(self, version: str) -> bool:
        try:
            return self.registry.status(version).state != "failed" and version not in self._refused
        except UnknownVersion:
            return False

    async def _swap(self, version: str) -> None:
        result = await self._attempt(version)
        self.swaps = [*self.swaps[-(KEEP_SWAPS - 1) :], result]
        values = {"version": version, "previous": result.previous, "pause_s": round(result.pause_s, 4)}
        if result.ok:
            self._log.info("swap", **values)
            await self._announce(Change(version=version, state="live", previous=result.previous))
        elif result.again:
            self._not_before = time.monotonic() + self.swap_settings.pause_timeout_s
            self._log.warning("swap_postponed", reason=result.reason, **values)
        else:
            self._log.error("swap_failed", reason=result.reason, **values)
            await self._refuse(version, result.reason)

    async def _attempt(self, version: str) -> SwapResult:
        """Preflight, then the transaction. Raises EngineUnavailable if the engine is lost."""
        previous = self.serving
        if self._deaths.get(version, 0) >= MAX_DEATHS:
            return SwapResult(version=version, previous=previous, ok=False, reason="the engine died on it twice")
        try:
            weights, adapter = await asyncio.to_thread(self._check, version)
        except (VersionCorrupt, InvalidInput) as error:
            return SwapResult(version=version, previous=previous, ok=False, reason=str(error))
        try:
            result = await self._load(weights, adapter=adapter)
        except EngineUnavailable:
            if not self._closing.is_set():
                self._deaths[version] = self._deaths.get(version, 0) + 1
            raise
        if result.ok:
            self._deaths.pop(version, None)
            self._good, self.serving, self.state = weights, version, "ready"
            self.model_name = version if adapter else self._base_name
            if adapter:
                await self._keep_adapter(version)
        return result

    def _check(self, version: str) -> tuple[Weights, bool]:
        base = Path(self.settings.model)
        manifest = preflight.check(
            self.registry,
            version,
            base=base,
            reference=self._reference(version, base),
            max_lora_rank=self.settings.max_lora_rank,
        )
        if manifest.tuning != self.settings.tuning:
            raise VersionCorrupt(f"{version} holds {manifest.tuning} weights, engine.tuning is {self.settings.tuning}")
        adapter = manifest.tuning == "lora" and bool(manifest.files)
        return Weights(version, self.registry.path(version), manifest.probe), adapter

    def _reference(self, version: str, base: Path) -> Path | None:
        """Whose tensors a full version must have: the base model's, or those of the first version that was live."""
        if has_weights(base):
            return base
        for other in self.registry.versions("policy"):
            if other != version and self.registry.status(other).state in ("live", "retired"):
                return self.registry.path(other)
        return None

    async def _load(self, weights: Weights, *, adapter: bool) -> SwapResult:
        if self.settings.tuning == "lora":
            return await swap_lora(
                self.client,
                weights,
                base_name=self._base_name,
                adapter=adapter,
                previous=self.serving,
                tolerance=self.swap_settings.probe_tolerance,
            )
        return await swap_full(
            self.client,
            weights,
            self._good if self._good is not None and self._good.version != weights.version else None,
            pause_timeout_s=self.swap_settings.pause_timeout_s,
            tolerance=self.swap_settings.probe_tolerance,
            boundary=self.boundary,
            undo=self.undo,
        )

    async def _keep_adapter(self, version: str) -> None:
        """Keep the live adapter and the one before it, which answers in progress may still be written with."""
        self._adapters = [name for name in self._adapters if name != version] + [version]
        while len(self._adapters) > LORA_SLOTS:
            await unload_quietly(self.client, self._adapters.pop(0))

    async def _refuse(self, version: str, reason: str) -> None:
        self._refused.add(version)
        if self._good is not None and self._good.version == version:
            self._good = None
        try:
            self.registry.mark(version, "failed", reason=reason)
            self.registry.rollback("policy", failed=version, reason=reason)
        except InvalidInput:  # there is no version to go back to, or this one's folder is gone
            self._log.error("no_version_to_go_back_to", version=version)
        await self._announce(Change(version=version, state="failed", previous=self.serving, reason=reason))
        if not self.serving:
            self.failure = reason

    async def _announce(self, change: Change) -> None:
        for listener in self.changes:
            await listener(change)
