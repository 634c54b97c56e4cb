"""What the engine holds beside the version that serves: followed in the store, tried, told to the other pods. Nothing
pauses for it. `engine.canary` and `engine.audiences` say what is wanted, and what follows where it fails."""

import asyncio
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import ClassVar

import structlog

from rlhf_online.canary.record import ALL_BUT_CANARIES, Canary
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


class BesideFollower(ABC):
    """`on_change` is told of each change. `followed` and `one` are what the log calls all of it, and one version."""

    followed: ClassVar[str]
    one: ClassVar[str]

    def __init__(
        self,
        loader: VersionLoader,
        registry: Registry,
        pod: Pod,
        on_change: Sequence[Callable[[Change], Awaitable[None]]],
        *,
        quorum: float,
        poll_s: Callable[[], float],
    ) -> None:
        self._loader = loader
        self._registry = registry
        self._pod = pod
        self._on_change = on_change
        self._quorum = quorum
        self._poll_s = poll_s
        self._trying: dict[str, Trying] = {}
        self._deaths: Counter[str] = Counter()
        self._log = structlog.get_logger()

    @abstractmethod
    async def step(self) -> None:
        """Take in what the store says, and hold what is not held yet. Raises OSError, EngineError, InvalidInput."""

    async def run(self) -> None:
        """Follow the store until cancelled. One that does not answer now changes nothing."""
        told = ""
        while True:
            why = ""
            try:
                await self.step()
            except (OSError, FileDamaged, EngineError, InvalidInput) as error:  # the host looks after the engine
                why = str(error)
            if why and why != told:
                self._log.warning(f"{self.followed} cannot be followed now", why=why)
            told = why
            await asyncio.sleep(self._poll_s())

    def _due(self, version: str) -> bool:
        return version not in self._trying or time.monotonic() >= self._trying[version].not_before

    async def _try(self, version: str, holding: Awaitable[str]) -> str | None:
        """ "" once the engine holds it; why it failed for all, as its bytes are wrong or a quorum of the pods cannot
        hold it; None where this pod cannot, which is told to the others. Raises OSError, EngineError."""
        corrupt = False
        try:
            reason = await holding
        except VersionCorrupt as error:
            reason, corrupt = str(error), not isinstance(error, VersionUnfit)
        except EngineUnavailable:
            self._deaths[version] += 1
            if self._deaths[version] < MAX_DEATHS:
                raise
            reason = "the engine died on it twice"
        self._deaths.pop(version, None)
        if not reason:
            self._trying.pop(version, None)
            if self._pod.could_not.pop(version, None):
                self._pod.changed.set()
            return ""
        self._trying.setdefault(version, Trying()).failed()
        self._pod.could_not[version] = reason
        if not corrupt:
            tally = await self._pod.verdict(version)
            if not tally.fails(self._quorum):
                self._log.warning(f"this pod cannot hold {self.one}", version=version, tally=tally, why=reason)
                return None
        return reason

    async def _changed(self, before: Canary | None, found: Canary | None) -> None:
        """Tell of a canary's beginning, each of its steps, and its end. That it is live is told by whoever begins to
        serve it. Raises OSError."""
        if before is not None and (found is None or found.version != before.version):
            await self._ended(before)
        if found is not None and found != before:
            why = f"{found.share:.0%} of the conversations: {found.reason}"
            change = Change(version=found.version, state="canary", previous=found.live, reason=why, by="trainer")
            await self._announce(change)

    async def _ended(self, canary: Canary) -> None:
        try:
            status = await asyncio.to_thread(self._registry.status, canary.version)
        except UnknownVersion:
            return
        if status.state != "live":
            state = "rejected" if status.state == "canary" else status.state  # its live version is not live any more
            why = {"reason": status.reason, "by": status.by}
            change = Change(version=canary.version, state=state, previous=canary.live, **why)
            await self._announce(change)

    async def _fail(self, canary: Canary, reason: str) -> None:
        """It failed for all, and is nobody's canary any more. Raises OSError."""
        self._log.error("canary_failed", version=canary.version, reason=reason)
        await asyncio.to_thread(
            lambda: self._registry.mark(
                canary.version, "failed", reason=reason, unless=ALL_BUT_CANARIES, by=self._pod.actor
            )
        )

    async def _announce(self, change: Change) -> None:
        for listener in self._on_change:
            await listener(change)
