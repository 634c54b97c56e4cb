"""The canary beside the live version, where versions are adapters: held by the engine as long as the store says so.

    look, every poll_s ──▶ a canary, not held yet: load it beside the live one, probe it ──▶ conversations get it
                      ├──▶ its bytes are wrong, or a quorum of the pods cannot hold it: failed, nobody's canary any more
                      ├──▶ it cannot be held here: told to the other pods, tried again; here the live version answers
                      └──▶ no canary any more: conversations do not get it

Nothing pauses. Which conversations get it is `Canary.answers`. Every change of the record is announced, also where
versions are whole weights, of which an engine holds one: there a pod of which `swap.canary` is set serves the canary in
the live version's place (`follower`).
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from rlhf_online.canary.record import Canary, under_way
from rlhf_online.engine.beside import BesideFollower
from rlhf_online.engine.loader import VersionLoader
from rlhf_online.engine.pod import Pod
from rlhf_online.versions.manifest import Change
from rlhf_online.versions.registry import Registry


class CanaryFollower(BesideFollower):
    """`beside`: the engine can hold it beside the live version. `on_change` is told of each step, and of its end."""

    followed = one = "the canary"

    def __init__(
        self,
        loader: VersionLoader,
        registry: Registry,
        pod: Pod,
        on_change: Sequence[Callable[[Change], Awaitable[None]]],
        *,
        beside: bool,
        quorum: float,
        poll_s: Callable[[], float],
    ) -> None:
        super().__init__(loader, registry, pod, on_change, quorum=quorum, poll_s=poll_s)
        self._beside = beside
        self._known: Canary | None = None

    @property
    def held(self) -> Canary | None:
        """The canary, while the engine holds it beside the version that serves."""
        known = self._known
        held = known is not None and known.version in self._loader.models and self._loader.serving == known.live
        return known if held else None

    async def step(self) -> None:
        found, before = await asyncio.to_thread(under_way, self._registry), self._known
        if found != before:
            if before is not None and (found is None or found.version != before.version):
                self._loader.release(before.version)
            await self._changed(before, found)
            if found is None or before is None or found.version != before.version:
                self._trying = {}
            self._known = found
            self._pod.beside = found.version if self._beside and found is not None else ""
        wanted = self._beside and found is not None and self._loader.serving == found.live
        if wanted and found is not None and self._due(found.version) and found.version not in self._loader.models:
            await self._hold(found)

    async def _hold(self, canary: Canary) -> None:
        """Raises OSError, EngineError."""
        if failed := await self._try(canary.version, self._loader.hold(canary.version)):
            await self._fail(canary, failed)
