"""The adapters of audiences beside the live one: held by the engine for as long as the store says so.

    look, every poll_s ──▶ an audience's live version is another one than is held: load it, probe it ──▶ it answers
                      ├──▶ its bytes are wrong, or a quorum of the pods cannot hold it: failed, the one before is live
                      ├──▶ it cannot be held here: told to the other pods, tried again; the one before answers on
                      └──▶ no such audience any more: let go of

Nothing pauses, and answers in flight are finished by the adapter that began them. While none is held for an audience
the common adapter answers it. A store that is away, or a record that is damaged, changes nothing.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence

import structlog

from rlhf_online.engine.follower import MAX_DEATHS, Trying
from rlhf_online.engine.loader import VersionLoader
from rlhf_online.engine.pod import Pod
from rlhf_online.errors import (
    EngineError,
    EngineUnavailable,
    FileDamaged,
    InvalidInput,
    VersionCorrupt,
    VersionUnfit,
)
from rlhf_online.rewards import audiences
from rlhf_online.versions.manifest import Change, audience_kind
from rlhf_online.versions.registry import Registry


class AudienceFollower:
    """The first `places` audiences by name are answered for; `on_change` is told which versions begin to, and fail."""

    def __init__(
        self,
        loader: VersionLoader,
        registry: Registry,
        pod: Pod,
        on_change: Sequence[Callable[[Change], Awaitable[None]]],
        *,
        places: int,
        quorum: float,
        poll_s: Callable[[], float],
    ) -> None:
        self.wanted: dict[str, str] = {}
        """The version that is to answer for each audience; "" for the common one."""
        self._loader = loader
        self._registry = registry
        self._pod = pod
        self._on_change = on_change
        self._places = places
        self._quorum = quorum
        self._poll_s = poll_s
        self._trying: dict[str, Trying] = {}
        self._deaths: Counter[str] = Counter()
        self._log = structlog.get_logger()

    async def run(self) -> None:
        """Follow the store until cancelled."""
        told = ""
        while self._places:
            why = ""
            try:
                await self.step()
            except (OSError, FileDamaged, EngineError, InvalidInput) as error:  # the host looks after the engine
                why = str(error)
            if why and why != told:
                self._log.warning("audiences cannot be followed now", why=why)
            told = why
            await asyncio.sleep(self._poll_s())

    async def step(self) -> None:
        """Take in what the store says, and hold what is not held yet. Raises OSError, EngineError, InvalidInput."""
        found = await asyncio.to_thread(self._look)
        if len(found) > self._places and found.keys() != self.wanted.keys():
            self._log.warning("no place for all audiences", places=self._places, left_out=[*found][self._places :])
        self.wanted = dict([*found.items()][: self._places])
        self._pod.of_audiences = frozenset(self.wanted.values()) - {""}
        self._trying = {version: again for version, again in self._trying.items() if version in self.wanted.values()}
        for name in [name for name in self._loader.of_audiences if not self.wanted.get(name)]:
            await self._loader.let_go_of(name)
        for name, version in self.wanted.items():
            due = version not in self._trying or time.monotonic() >= self._trying[version].not_before
            if version and due and self._loader.serving and self._loader.of_audiences.get(name) != version:
                await self._hold(name, version)

    def _look(self) -> dict[str, str]:
        """Raises OSError, InvalidInput."""
        known = audiences.read(self._registry.store)
        return {name: audiences.live(self._registry, name) or "" for name in known}

    async def _hold(self, name: str, version: str) -> None:
        """Raises OSError, EngineError."""
        corrupt, before = False, self._loader.of_audiences.get(name, "")
        try:
            reason = await self._loader.hold_for(name, version)
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
            why = (await asyncio.to_thread(self._registry.status, version)).reason
            await self._announce(Change(version=version, state="live", previous=before, reason=why, by="trainer"))
            return
        self._trying.setdefault(version, Trying()).failed()
        self._pod.could_not[version] = reason
        if not corrupt:
            tally = await self._pod.verdict(version)
            if not tally.fails(self._quorum):
                self._log.warning(
                    "this pod cannot hold an audience's version", version=version, tally=tally, why=reason
                )
                return
        self._log.error("audience_failed", version=version, reason=reason)
        await asyncio.to_thread(self._refuse, name, version, reason)
        await self._announce(
            Change(version=version, state="failed", previous=before, reason=reason, by=self._pod.actor)
        )

    def _refuse(self, name: str, version: str, reason: str) -> None:
        """It failed for all: the one before it is live, or the common one answers. Raises OSError."""
        self._registry.mark(version, "failed", reason=reason, by=self._pod.actor)
        self._registry.rollback(audience_kind(name), failed=version, reason=reason, by=self._pod.actor)

    async def _announce(self, change: Change) -> None:
        for listener in self._on_change:
            await listener(change)
