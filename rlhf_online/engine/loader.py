"""Puts one version into a running engine: preflight first, then the transaction of `swap`.

Invariant: `serving` names the weights that write tokens now, "" where that is not known.
"""

import asyncio
from pathlib import Path

from rlhf_online.config import EngineSettings, SwapSettings
from rlhf_online.engine import preflight
from rlhf_online.engine.child import LORA_SLOTS, SERVED_NAME, compute_dtype, resolve_device
from rlhf_online.engine.swap import SwapListener, SwapResult, Weights, swap_full, swap_lora, unload_quietly
from rlhf_online.engine.vllm import EngineClient
from rlhf_online.errors import InvalidInput, VersionCorrupt
from rlhf_online.models.tensor_headers import has_weights
from rlhf_online.versions.registry import Registry

EXACT, ROUNDED = 1e-3, 0.1
"""Nats a token that an engine may differ from transformers in float32. SmolLM2-135M on a CPU: 1e-5 in float32, .05 in
bfloat16."""


class VersionLoader:
    """`on_pause` is told (old, new) while the engine is paused, before new weights are loaded; `on_restore` the same
    if the old weights go on after all. `last_good` is what was loaded last and passed its probe, over restarts."""

    def __init__(self, client: EngineClient, registry: Registry, engine: EngineSettings, swap: SwapSettings) -> None:
        self.serving = ""
        self.model_name = SERVED_NAME
        self.last_good: Weights | None = None
        self.on_pause: list[SwapListener] = []
        self.on_restore: list[SwapListener] = []
        self._client = client
        self._registry = registry
        self._engine = engine
        self._swap = swap
        self.models: dict[str, str] = {}
        """The engine's name of each version that it holds and that may serve, the live one last."""
        self._base_name = SERVED_NAME
        self._adapters: list[str] = []

    def engine_started(self, base_name: str) -> None:
        """The engine is a new one, which holds no version and serves its base model as `base_name`."""
        self._base_name = self.model_name = base_name
        self._adapters.clear()
        self.models = {}

    def engine_lost(self) -> None:
        """Nothing serves."""
        self.serving = ""
        self.models = {}

    async def load(self, version: str) -> SwapResult:
        """Have the engine serve `version`, if it is fit for that. Raises EngineUnavailable if the engine is lost."""
        try:
            weights, adapter = await asyncio.to_thread(self._check, version)
        except (VersionCorrupt, InvalidInput) as error:
            return SwapResult(version=version, previous=self.serving, ok=False, reason=str(error))
        result = await self._transact(weights, adapter=adapter)
        if result.ok:
            name = version if adapter else self._base_name
            beside = await asyncio.to_thread(self._beside, version) if self._engine.tuning == "lora" else {}
            self.last_good, self.serving, self.model_name = weights, version, name
            self.models = {**beside, version: name}
            if adapter:
                await self._keep_adapter(version)
        return result

    def _beside(self, version: str) -> dict[str, str]:
        """Of `models` those that can go on beside the adapter `version`: what stays loaded, but for what failed."""
        kept = (self._base_name, *self._kept(version))
        others = {name: model for name, model in self.models.items() if name != version and model in kept}
        return {name: others[name] for name in others if self._registry.status(name).state == "retired"}

    def _kept(self, version: str) -> list[str]:
        """The adapters to keep once `version` serves."""
        return [*(name for name in self._adapters if name != version), version][-LORA_SLOTS:]

    def _check(self, version: str) -> tuple[Weights, bool]:
        """The weights, and whether they are an adapter's. Raises UnknownVersion, VersionCorrupt."""
        base = Path(self._engine.model)
        manifest = preflight.check(
            self._registry,
            version,
            base=base,
            reference=self._reference(version, base),
            max_lora_rank=self._engine.max_lora_rank,
        )
        if manifest.tuning != self._engine.tuning:
            raise VersionCorrupt(f"{version} holds {manifest.tuning} weights, engine.tuning is {self._engine.tuning}")
        adapter = manifest.tuning == "lora" and bool(manifest.files)
        return Weights(version, self._registry.path(version), manifest.probe), adapter

    def _reference(self, version: str, base: Path) -> Path | None:
        """Whose tensors a full version must have: the base model's, or those of the first version that was live."""
        if has_weights(base):
            return base
        for other in self._registry.versions("policy"):
            if other != version and self._registry.status(other).state in ("live", "retired"):
                return self._registry.path(other)
        return None

    def _tolerance(self) -> float:
        if self._swap.probe_tolerance:
            return self._swap.probe_tolerance
        if self._engine.mode == "external":  # its type is not known
            return ROUNDED
        device = resolve_device(self._engine)
        return EXACT if (device, compute_dtype(self._engine, device)) == ("cpu", "float32") else ROUNDED

    async def _transact(self, weights: Weights, *, adapter: bool) -> SwapResult:
        if self._engine.tuning == "lora":
            return await swap_lora(
                self._client,
                weights,
                base_name=self._base_name,
                adapter=adapter,
                previous=self.serving,
                tolerance=self._tolerance(),
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
