"""Which version the engine should serve, and what becomes of one that it cannot.

After a crash that is the last good version, then always the registry's live one. A version that fails is marked failed
in the registry, where the version before it is live again; one that the engine died on twice counts as failed too. The
one before which there is none stays the live one: it is the model itself, so the engine is more likely at fault than
the version, and a better engine may serve it. Until another is live nothing serves, and `step` goes on to say why. A
swap that had to be postponed, since the engine could not be paused, is tried again and blames no version.
"""

import time
from collections import Counter
from collections.abc import Awaitable, Callable

import structlog

from rlhf_online.engine.loader import VersionLoader
from rlhf_online.engine.swap import SwapResult
from rlhf_online.errors import EngineUnavailable, InvalidInput, UnknownVersion
from rlhf_online.versions.manifest import Change
from rlhf_online.versions.registry import Registry

MAX_DEATHS = 2
"""Engine deaths during swaps to one version after which it counts as failed."""
KEEP_SWAPS = 1000
NO_OTHER = (
    "there is no version before it that could serve instead: mend what it says, or, where its log-probs differ, try "
    "another engine.dtype or release of vLLM, then start again"
)


class VersionFollower:
    """`on_change` is told when a version begins to serve or is refused. A swap that was postponed is tried again after
    `postponed_s`."""

    def __init__(self, loader: VersionLoader, registry: Registry, *, postponed_s: float) -> None:
        self.swaps: list[SwapResult] = []
        self.on_change: list[Callable[[Change], Awaitable[None]]] = []
        self._loader = loader
        self._registry = registry
        self._postponed_s = postponed_s
        self._not_before = 0.0
        self._deaths: Counter[str] = Counter()
        self._refused: dict[str, str] = {}
        self._log = structlog.get_logger()

    async def step(self) -> str:
        """Swap in another version if that is due; why none serves, or why that failed, "" if it did not.

        Raises EngineUnavailable if the engine is lost.
        """
        if not (version := self._due()):
            return "" if self._loader.serving else self._refused.get(self._registry.live("policy") or "", "")
        result = await self._load(version)
        self.swaps = [*self.swaps[-(KEEP_SWAPS - 1) :], result]
        values = {"version": version, "previous": result.previous, "pause_s": round(result.pause_s, 4)}
        if result.ok:
            self._log.info("swap", **values)
            await self._announce(Change(version=version, state="live", previous=result.previous))
            return ""
        if result.postponed:
            self._not_before = time.monotonic() + self._postponed_s
            self._log.warning("swap_postponed", reason=result.reason, **values)
            return ""
        self._log.error("swap_failed", reason=result.reason, **values)
        return await self._refuse(version, result.reason)

    def _due(self) -> str:
        """The version to swap in now, "" for none."""
        live, serving, good = self._registry.live("policy"), self._loader.serving, self._loader.last_good
        if time.monotonic() < self._not_before:
            return ""
        if not serving and good is not None and self._usable(good.version):
            return good.version
        return "" if live is None or live == serving or live in self._refused else live

    def _usable(self, version: str) -> bool:
        try:
            return self._registry.status(version).state != "failed" and version not in self._refused
        except UnknownVersion:
            return False

    async def _load(self, version: str) -> SwapResult:
        if self._deaths[version] >= MAX_DEATHS:
            reason = "the engine died on it twice"
            return SwapResult(version=version, previous=self._loader.serving, ok=False, reason=reason)
        try:
            result = await self._loader.load(version)
        except EngineUnavailable:
            self._deaths[version] += 1
            raise
        if result.ok:
            del self._deaths[version]
        return result

    async def _refuse(self, version: str, reason: str) -> str:
        """Have another version serve instead, if there is one; returns the reason with what to do if there is none."""
        if version == self._registry.live("policy") and not self._registry.fallbacks("policy"):
            reason = f"{reason}; {NO_OTHER}"
            self._log.error("no_version_to_go_back_to", version=version)
        else:
            try:
                self._registry.mark(version, "failed", reason=reason)
                self._registry.rollback("policy", failed=version, reason=reason)
            except InvalidInput:  # its folder is gone, or the others have failed meanwhile
                self._log.error("no_version_to_go_back_to", version=version)
        self._refused[version] = reason
        if (good := self._loader.last_good) is not None and good.version == version:
            self._loader.last_good = None
        await self._announce(Change(version=version, state="failed", previous=self._loader.serving, reason=reason))
        return reason

    async def _announce(self, change: Change) -> None:
        for listener in self.on_change:
            await listener(change)
