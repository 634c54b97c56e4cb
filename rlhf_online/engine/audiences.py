"""The adapters of audiences beside the live one: held by the engine for as long as the store says so.

    look, every poll_s ──▶ an audience's live version is another one than is held: load it, probe it ──▶ it answers
                      ├──▶ its bytes are wrong, or a quorum of the pods cannot hold it: failed, the one before is live
                      ├──▶ it cannot be held here: told to the other pods, tried again; the one before answers on
                      └──▶ no such audience any more: let go of

Nothing pauses, and answers in flight are finished by the adapter that began them. While none is held for an audience
the common adapter answers it. A store that is away, or a record that is damaged, changes nothing.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from rlhf_online.engine.beside import BesideFollower
from rlhf_online.engine.loader import VersionLoader
from rlhf_online.engine.pod import Pod
from rlhf_online.rewards import audiences
from rlhf_online.versions.manifest import Change, audience_kind
from rlhf_online.versions.registry import Registry


class AudienceFollower(BesideFollower):
    """The first `places` audiences by name are answered for; `on_change` is told which versions begin to, and fail."""

    followed = "audiences"
    one = "an audience's version"

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
        super().__init__(loader, registry, pod, on_change, quorum=quorum, poll_s=poll_s)
        self._places = places

    async def run(self) -> None:
        if self._places:
            await super().run()

    async def step(self) -> None:
        found = await asyncio.to_thread(self._look)
        if len(found) > self._places and found.keys() != self.wanted.keys():
            self._log.warning("no place for all audiences", places=self._places, left_out=[*found][self._places :])
        self.wanted = dict([*found.items()][: self._places])
        self._pod.of_audiences = frozenset(self.wanted.values()) - {""}
        self._trying = {version: again for version, again in self._trying.items() if version in self.wanted.values()}
        for name in [name for name in self._loader.of_audiences if not self.wanted.get(name)]:
            await self._loader.let_go_of(name)
        for name, version in self.wanted.items():
            if (
                version
                and self._due(version)
                and self._loader.serving
                and self._loader.of_audiences.get(name) != version
            ):
                await self._hold(name, version)

    def _look(self) -> dict[str, str]:
        """Raises OSError, InvalidInput."""
        known = audiences.read(self._registry.store)
        return {name: audiences.live(self._registry, name) or "" for name in known}

    async def _hold(self, name: str, version: str) -> None:
        """Raises OSError, EngineError."""
        before = self._loader.of_audiences.get(name, "")
        failed = await self._try(version, self._loader.hold_for(name, version))
        if failed is None:
            return
        if not failed:
            why = (await asyncio.to_thread(self._registry.status, version)).reason
            await self._announce(Change(version=version, state="live", previous=before, reason=why, by="trainer"))
            return
        self._log.error("audience_failed", version=version, reason=failed)
        await asyncio.to_thread(self._refuse, name, version, failed)
        await self._announce(
            Change(version=version, state="failed", previous=before, reason=failed, by=self._pod.actor)
        )

    def _refuse(self, name: str, version: str, reason: str) -> None:
        """It failed for all: the one before it is live, or the common one answers. Raises OSError."""
        self._registry.mark(version, "failed", reason=reason, by=self._pod.actor)
        self._registry.rollback(audience_kind(name), failed=version, reason=reason, by=self._pod.actor)
