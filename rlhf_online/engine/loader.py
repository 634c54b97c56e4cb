"""Puts one version into a running engine: checks first (`prepare`), then the transaction of `swap` (`load`).

`prepare` touches no engine, and may take as long as a slow store needs to bring the files: until `load`, the version
before serves on. Invariant: `serving` names the weights that write tokens now, "" where that is not known.
"""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import structlog

from rlhf_online.config import EngineSettings, SwapSettings
from rlhf_online.engine.child import LORA_SLOTS, SERVED_NAME, compute_dtype, resolve_device
from rlhf_online.engine.fitness import Fitness
from rlhf_online.engine.no_adapter import write_no_adapter
from rlhf_online.engine.swap import (
    SwapListener,
    SwapResult,
    Weights,
    replace_lora,
    swap_full,
    swap_lora,
    unload_quietly,
)
from rlhf_online.engine.vllm import EngineClient
from rlhf_online.versions.manifest import State
from rlhf_online.versions.registry import Registry

EXACT, ROUNDED = 1e-3, 0.1
"""Nats a token that an engine may differ from transformers in float32. SmolLM2-135M on a CPU: 1e-5 in float32, .05 in
bfloat16."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A version that may be loaded, and how those that the engine holds already fare."""

    weights: Weights
    states: dict[str, State]


class VersionLoader:
    """`on_pause` is told (old, new) while the engine is paused, before new weights are loaded; `on_restore` the same
    if the old weights go on after all. `last_good` is what was loaded last and passed its probe, over restarts.

    `scratch` is a folder to write into. Large because it carries what the engine holds.
    """

    def __init__(
        self, client: EngineClient, registry: Registry, engine: EngineSettings, swap: SwapSettings, scratch: Path
    ) -> None:
        self.serving = ""
        self.model_name = SERVED_NAME
        self.last_good: Weights | None = None
        self.on_pause: list[SwapListener] = []
        self.on_restore: list[SwapListener] = []
        self.models: dict[str, str] = {}
        """The engine's name of each version that it holds and that may serve, the live one last."""
        self.of_audiences: dict[str, str] = {}
        """The version that the engine holds in each place for audiences: for one, or as its canary."""
        self._before: dict[str, str] = {}
        """The one that it held in each before that, which a request on its way may still name."""
        self._client = client
        self._registry = registry
        self._engine = engine
        self._swap = swap
        self._fitness = Fitness(registry, engine)
        self._scratch = scratch
        self._base_name = SERVED_NAME
        self._adapters: list[str] = []

    def engine_started(self, base_name: str) -> None:
        """The engine is a new one, which holds no version and serves its base model as `base_name`."""
        self._base_name = self.model_name = base_name
        self._adapters.clear()
        self.models, self.of_audiences, self._before = {}, {}, {}

    def engine_lost(self) -> None:
        """Nothing serves."""
        self.serving = ""
        self.models, self.of_audiences = {}, {}

    async def prepare(self, version: str) -> Prepared:
        """Bring the version's files here and check them.

        Raises UnknownVersion, VersionCorrupt or VersionUnfit for one that may not be loaded; OSError where its files
        cannot be brought or read now, which says nothing about it.
        """
        return await asyncio.to_thread(self._check, version, [*self.models])

    async def load(self, prepared: Prepared) -> SwapResult:
        """Have the engine serve the version, if it is fit for that. Raises EngineUnavailable if the engine is lost."""
        weights, version = prepared.weights, prepared.weights.version
        adapter = self._engine.tuning == "lora" and weights.has_files
        result = await self._transact(weights, adapter=adapter)
        if result.ok:
            name = version if adapter else self._base_name
            self.last_good, self.serving, self.model_name = weights, version, name
            self.models = {**self._beside(prepared), version: name}
            for bad in [name for name in self._adapters if prepared.states.get(name) == "failed"]:
                result = await self._leave(bad, weights, result, adapter=adapter)
            if adapter:
                await self._keep_adapter(version)
        return result

    async def hold(self, version: str) -> str:
        """Hold an adapter beside the one that serves, under the version's name; "" or why the engine cannot.

        Raises what `prepare` raises, and EngineUnavailable if the engine is lost.
        """
        weights = (await self.prepare(version)).weights
        adapter = self._engine.tuning == "lora" and weights.has_files
        result = await self._transact(weights, adapter=adapter, serves=False)
        if result.ok:
            others = {name: model for name, model in self.models.items() if name not in (version, self.serving)}
            served = {self.serving: self.model_name} if self.serving else {}
            self.models = {**others, version: version if adapter else self._base_name, **served}
            before, serving = self._adapters, [name for name in self._adapters if name == self.serving]
            self._adapters = [*serving, *([version] if adapter else [])]
            for name in before:
                if name not in self._adapters:
                    self.release(name)
                    await unload_quietly(self._client, name)
        return result.reason

    async def hold_for(self, place: str, version: str) -> str:
        """Hold the adapter of an audience's version there, instead of the one before it; "" or why the engine cannot,
        which changes nothing. Raises as `hold`."""
        weights = (await self.prepare(version)).weights
        result = await self._transact(weights, adapter=True, serves=False)
        if result.ok:
            before, self.of_audiences = self.of_audiences, {**self.of_audiences, place: version}
            await self._forget_older(place, before.get(place, ""), version)
        return result.reason

    async def let_go_of(self, place: str) -> None:
        """No request is answered from there any more. Raises EngineUnavailable."""
        before = self.of_audiences[place]
        self.of_audiences = {name: held for name, held in self.of_audiences.items() if name != place}
        await self._forget_older(place, before, "")

    async def _forget_older(self, place: str, before: str, version: str) -> None:
        """`version` is held instead of the one `before`, and the engine forgets what it held there before that, unless
        it holds that elsewhere: a canary that was promoted."""
        older = self._before.pop(place, "")
        if before not in ("", version):
            self._before[place] = before
        if older not in ("", before, version, *self.of_audiences.values()):
            await unload_quietly(self._client, older)

    def release(self, version: str) -> None:
        """Nobody is to be answered any more by a version that was held beside the one that serves."""
        if version != self.serving:
            self.models = {name: model for name, model in self.models.items() if name != version}

    def _check(self, version: str, held: Iterable[str]) -> Prepared:
        weights = self._fitness.check(version)
        return Prepared(weights, {name: self._registry.status(name).state for name in held if name != version})

    def _beside(self, prepared: Prepared) -> dict[str, str]:
        """Of `models` those that can go on: of adapters what stays loaded, but for what failed."""
        if self._engine.tuning != "lora":
            return {}
        kept = (self._base_name, *self._kept(prepared.weights.version))
        fine = [name for name, state in prepared.states.items() if state in ("live", "retired")]
        return {name: model for name, model in self.models.items() if name in fine and model in kept}

    def _kept(self, version: str) -> list[str]:
        """The adapters to keep once `version` serves."""
        return [*(name for name in self._adapters if name != version), version][-LORA_SLOTS:]

    def _tolerance(self) -> float:
        if self._swap.probe_tolerance:
            return self._swap.probe_tolerance
        if self._engine.mode == "external":  # its type is not known
            return ROUNDED
        device = resolve_device(self._engine)
        return EXACT if (device, compute_dtype(self._engine, device)) == ("cpu", "float32") else ROUNDED

    async def _transact(self, weights: Weights, *, adapter: bool, serves: bool = True) -> SwapResult:
        if self._engine.tuning == "lora":
            return await swap_lora(
                self._client,
                weights,
                base_name=self._base_name,
                adapter=adapter,
                previous=self.serving,
                tolerance=self._tolerance(),
                serves=serves,
            )
        good = self.last_good
        return await swap_full(
            self._client,
            weights,
            good if good is not None and good.version != weights.version else None,
            pause_timeout_s=self._swap.pause_timeout_s,
            tolerance=self._tolerance(),
            on_pause=self.on_pause,
            on_restore=self.on_restore,
        )

    async def _keep_adapter(self, version: str) -> None:
        """Keep the live adapter and the one before it, which answers in progress may still be written with."""
        before, self._adapters = self._adapters, self._kept(version)
        for name in before:
            if name not in self._adapters:
                await unload_quietly(self._client, name)

    async def _leave(self, bad: str, good: Weights, result: SwapResult, *, adapter: bool) -> SwapResult:
        """Have what the adapter `bad`, which failed, is still writing go on with `good`; the result of both.

        `bad` is not unloaded: for a request in progress the engine would read its files again. It lets go of it when
        it needs the place, and no request names it any more.
        """
        self._adapters.remove(bad)
        try:
            folder = good.folder if adapter else await asyncio.to_thread(self._no_adapter, bad)
        except OSError as error:
            left = SwapResult(version=good.version, previous=bad, ok=False, reason=str(error))
        else:
            left = await replace_lora(
                self._client,
                bad,
                good,
                folder=folder,
                pause_timeout_s=self._swap.pause_timeout_s,
                on_pause=self.on_pause,
                on_restore=self.on_restore,
            )
        if not left.ok:
            structlog.get_logger().error("answers_go_on_with_a_failed_version", version=bad, reason=left.reason)
        return replace(result, pause_s=result.pause_s + left.pause_s, wait_s=result.wait_s + left.wait_s)

    def _no_adapter(self, like: str) -> Path:
        return write_no_adapter(self._registry.path(like), self._scratch / like)
