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
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence

import structlog

from rlhf_online.canary.record import ALL_BUT_CANARIES, Canary, under_way
from rlhf_online.engine.follower import MAX_DEATHS, Trying
from rlhf_online.engine.loader import VersionLoader
from rlhf_online.engine.pod import Pod
from rlhf_online.errors import (
    EngineError,
    EngineUnavailable,
    FileDamaged,
    InvalidInput,
    UnknownVersion,
    VersionCorrupt,
    VersionUnfit,
)
from rlhf_online.versions.manifest import Change
from rlhf_online.versions.registry import Registry


class CanaryFollower:
    """`beside`: the engine can hold it beside the live version. `on_change` is told of each step, and of its end."""

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
        self._loader = loader
        self._registry = registry
        self._pod = pod
        self._quorum = quorum
        self._trying = Trying()
        self._on_change = on_change
        self._beside = beside
        self._poll_s = poll_s
        self._known: Canary | None = None
        self._deaths: Counter[str] = Counter()
        self._log = structlog.get_logger()

    @property
    def held(self) -> Canary | None:
        """The canary, while the engine holds it beside the version that serves."""
        known = self._known
        held = known is not None and known.version in self._loader.models and self._loader.serving == known.live
        return known if held else None

    async def run(self) -> None:
        """Follow the store until cancelled. One that does not answer now changes nothing."""
        told = ""
        while True:
            why = ""
            try:
                await self.step()
            except (
                OSError,
                FileDamaged,
                EngineError,
                InvalidInput,
            ) as error:  # the host looks after the engine; a store may be slow
                why = str(error)
            if why and why != told:
                self._log.warning("the canary cannot be followed now", why=why)
            told = why
            await asyncio.sleep(self._poll_s())

    async def step(self) -> None:
        """Take in what the store says, and load the canary if it is not held yet. Raises OSError, EngineError."""
        found, before = await asyncio.to_thread(under_way, self._registry), self._known
        if found != before:
            if before is not None and (found is None or found.version != before.version):
                self._loader.release(before.version)
                await self._ended(before)
            if found is None or before is None or found.version != before.version:
                self._trying = Trying()
            self._known = found
            self._pod.beside = found.version if self._beside and found is not None else ""
            if found is not None:
                why = f"{found.share:.0%} of the conversations: {found.reason}"
                change = Change(version=found.version, state="canary", previous=found.live, reason=why, by="trainer")
                await self._announce(change)
        wanted = self._beside and found is not None and self._loader.serving == found.live
        due = time.monotonic() >= self._trying.not_before
        if wanted and due and found is not None and found.version not in self._loader.models:
            await self._hold(found)

    async def _hold(self, canary: Canary) -> None:
        """Raises OSError, EngineError."""
        corrupt = False
        try:
            reason = await self._loader.hold(canary.version)
        except VersionCorrupt as error:
            reason, corrupt = str(error), not isinstance(error, VersionUnfit)
        except EngineUnavailable:
            self._deaths[canary.version] += 1
            if self._deaths[canary.version] < MAX_DEATHS:
                raise
            reason = "the engine died on it twice"
        self._deaths.pop(canary.version, None)
        if not reason:
            if self._pod.could_not.pop(canary.version, None):
                self._pod.changed.set()
            return
        self._trying.failed()
        self._pod.could_not[canary.version] = reason
        if not corrupt:
            tally = await self._pod.verdict(canary.version)
            if not tally.fails(self._quorum):
                self._log.warning("this pod cannot hold the canary", version=canary.version, tally=tally, why=reason)
                return
        self._log.error("canary_failed", version=canary.version, reason=reason)
        await asyncio.to_thread(
            lambda: self._registry.mark(
                canary.version, "failed", reason=reason, unless=ALL_BUT_CANARIES, by=self._pod.actor
            )
        )

    async def _ended(self, canary: Canary) -> None:
        """Tell of its end; that it is live is told by whoever begins to serve it."""
        try:
            status = await asyncio.to_thread(self._registry.status, canary.version)
        except UnknownVersion:
            return
        if status.state != "live":
            state = "rejected" if status.state == "canary" else status.state  # its live version is not live any more
            why = {"reason": status.reason, "by": status.by}
            change = Change(version=canary.version, state=state, previous=canary.live, **why)
            await self._announce(change)

    async def _announce(self, change: Change) -> None:
        for listener in self._on_change:
            await listener(change)
