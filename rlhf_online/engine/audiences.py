"""The adapters of audiences beside the live one: held by the engine for as long as the store says so.

    look, every poll_s ──▶ an audience's live version is another one than is held: load it, probe it ──▶ it answers
                      ├──▶ its bytes are wrong, or a quorum of the pods cannot hold it: failed, the one before is live
                      ├──▶ it cannot be held here: told to the other pods, tried again; the one before answers on
                      ├──▶ it has a canary: held beside it, for a share of the audience's conversations, until it ends
                      └──▶ no such audience any more: let go of

Nothing pauses, and answers in flight are finished by the adapter that began them. While none is held for an audience
the common adapter answers it. A store that is away, or a record that is damaged, changes nothing.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from rlhf_online.canary.record import Canary, under_way
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
        self._canaries: dict[str, Canary] = {}

    @property
    def canaries(self) -> dict[str, Canary]:
        """Of each audience the candidate that some of its conversations get, while the engine holds it beside the
        version that answers the others."""
        held = self._loader.of_audiences
        return {
            name: canary
            for name, canary in self._canaries.items()
            if (held.get(name), held.get(_beside(name))) == (canary.live, canary.version)
        }

    async def run(self) -> None:
        if self._places:
            await super().run()

    async def step(self) -> None:
        found = await asyncio.to_thread(self._look)
        if len(found) > self._places and found.keys() != self.wanted.keys():
            self._log.warning("no place for all audiences", places=self._places, left_out=[*found][self._places :])
        served = dict([*found.items()][: self._places])
        self.wanted = {name: version for name, (version, _) in served.items()}
        await self._follow_canaries({name: canary for name, (_, canary) in served.items() if canary is not None})
        places = {**self.wanted, **{_beside(name): canary.version for name, canary in self._canaries.items()}}
        self._pod.of_audiences = frozenset(places.values()) - {""}
        self._trying = {version: again for version, again in self._trying.items() if version in places.values()}
        for place in [place for place in self._loader.of_audiences if not places.get(place)]:
            await self._loader.let_go_of(place)
        for name, version in self.wanted.items():
            if self._missing(name, version):
                await self._hold(name, version)
        for name, canary in self._canaries.items():
            if self._missing(_beside(name), canary.version):
                await self._hold_canary(name, canary)

    def _look(self) -> dict[str, tuple[str, Canary | None]]:
        """The version that is to answer for each audience, and its canary. Raises OSError, InvalidInput."""
        known, registry = audiences.read(self._registry.store), self._registry
        return {
            name: (audiences.live(registry, name) or "", under_way(registry, audience_kind(name))) for name in known
        }

    def _missing(self, place: str, version: str) -> bool:
        """Whether it is to be put there now."""
        loader = self._loader
        return bool(version and loader.serving and loader.of_audiences.get(place) != version and self._due(version))

    async def _follow_canaries(self, found: dict[str, Canary]) -> None:
        """Raises OSError."""
        for name in dict.fromkeys([*self._canaries, *found]):
            await self._changed(self._canaries.get(name), found.get(name))
        self._canaries = found

    async def _hold_canary(self, name: str, canary: Canary) -> None:
        """Raises OSError, EngineError."""
        if failed := await self._try(canary.version, self._loader.hold_for(_beside(name), canary.version)):
            await self._fail(canary, failed)

    async def _hold(self, name: str, version: str) -> None:
        """Raises OSError, EngineError."""
        before = self._loader.of_audiences.get(name, "")
        failed = await self._try(version, self._loader.hold_for(name, version))
        if failed is None:
            return
        if not failed:
            status = await asyncio.to_thread(self._registry.status, version)
            change = Change(version=version, state="live", previous=before, reason=status.reason, by=status.by)
            await self._announce(change)
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


def _beside(audience: str) -> str:
    """Where the loader holds an audience's canary: no audience has such a name."""
    return f"{audience} canary"
