"""Which version the engine should serve, and what becomes of one that it cannot.

    due      ask the store which version is live, again and again, until that is another one; check its files
    swap     have the engine serve it; if that fails:

        its bytes are wrong ───────────────────────────────▶ failed for all pods: the one before it is live again
        this pod could not serve it ──▶ told to the others ──▶ failed for all once a quorum of the pods could not
                                          │
                                          └──▶ else tried here again, ever more rarely

After a crash the version due is the last good one, then always the live one. The engine's death twice is a failure of
the version on this pod. The one before which there is none stays the live one: it is the model itself, so the engine is
more likely at fault than the version, and a better engine may serve it. Until another is live nothing serves, and
`failure` goes on to say why. A swap that had to be postponed, since the engine could not be paused, is tried again and
blames no version; so is one whose files cannot be brought here now.

The store is asked in threads: one that is slow or away stalls nobody, and the pod serves on. All pods together ask
about POLLS_PER_S times a second at most.
"""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import structlog

from rlhf_online import tracing
from rlhf_online.canary.record import under_way
from rlhf_online.config import SwapSettings
from rlhf_online.engine.loader import Prepared, VersionLoader
from rlhf_online.engine.pod import FOLLOWING, TELLING, Pod
from rlhf_online.engine.swap import SwapResult
from rlhf_online.errors import (
    EngineUnavailable,
    FileDamaged,
    InvalidInput,
    UnknownVersion,
    VersionCorrupt,
    VersionUnfit,
)
from rlhf_online.retry import Backoff
from rlhf_online.versions.manifest import Change
from rlhf_online.versions.registry import Registry

MAX_DEATHS = 2
"""Engine deaths during swaps to one version after which it counts as failed."""
KEEP_SWAPS = 1000
FIRST_RETRY_S, LONGEST_RETRY_S = 1.0, 300.0
"""Between two tries of a version that failed on this pod."""
LONGEST_POLL_S = 10.0
"""Between two questions to a store that did not answer."""
POLLS_PER_S = 100.0
JITTER = 0.2
"""The share by which waits differ at random, so that pods do not ask in step."""
NO_OTHER = (
    "there is no version before it that could serve instead: mend what it says, or, where its log-probs differ, try "
    "another engine.dtype or release of vLLM, then start again"
)


@dataclass(frozen=True, slots=True)
class Due:
    """A version to swap in, or why it may not be. `corrupt`: that lies in its bytes, so that no pod may serve it."""

    version: str
    prepared: Prepared | None = None
    reason: str = ""
    corrupt: bool = False


class Trying:
    """When a version that failed on this pod is tried again."""

    def __init__(self) -> None:
        self.not_before = 0.0
        self._backoff = Backoff(FIRST_RETRY_S, LONGEST_RETRY_S)

    def failed(self) -> None:
        self.not_before = time.monotonic() + _jittered(self._backoff.advance())


class VersionFollower:
    """`on_change` is told when a version begins to serve or is refused for all.

    Large because it carries what is known of the store between two questions.
    """

    def __init__(self, loader: VersionLoader, registry: Registry, pod: Pod, settings: SwapSettings) -> None:
        self.swaps: list[SwapResult] = []
        self.on_change: list[Callable[[Change], Awaitable[None]]] = []
        self.live = ""
        """The live version as the store said last."""
        self.idle = False
        """Since the engine started there was nothing to swap in, or it failed."""
        self._loader = loader
        self._registry = registry
        self._pod = pod
        self._settings = settings
        self._not_before = 0.0
        self._trying: dict[str, Trying] = {}
        self._deaths: Counter[str] = Counter()
        self._refused: dict[str, str] = {}
        self._log = structlog.get_logger()

    @property
    def failure(self) -> str:
        """Why nothing serves, "" where something does or nothing has failed."""
        if self._loader.serving:
            return ""
        return self._refused.get(self.live) or self._pod.could_not.get(self.live, "") or self._pod.store.failure

    async def due(self) -> Due:
        """Wait until another version is to be swapped in, and check its files. Touches no engine; may be cancelled."""
        backoff = Backoff(self._settings.poll_s, max(self._settings.poll_s, LONGEST_POLL_S))
        while True:
            try:
                version = self._due(*await asyncio.to_thread(self._look))
                self.idle = self.idle or not version
                due = await self._prepared(version) if version else None
                self._pod.store.done(FOLLOWING)
                backoff.reset()
                if due is not None:
                    return due
                wait_s = max(self._settings.poll_s, self._pod.count / POLLS_PER_S)
            except (OSError, FileDamaged) as error:  # nothing is wrong with the engine, or the version
                self._pod.store.failed(FOLLOWING, error)
                self.idle = True
                wait_s = backoff.advance()
            await asyncio.sleep(_jittered(wait_s))

    async def swap(self, due: Due) -> None:
        """Swap in the version that is due, or refuse it: in the trace of the cycle that made it.

        Raises EngineUnavailable if the engine is lost.
        """
        parent = due.prepared.weights.traceparent if due.prepared is not None else ""
        with tracing.span("swap", {"rlhf.policy_version": due.version}, parent=parent) as span:
            result = await self._swap(due)
            span.note({"rlhf.previous_version": result.previous, "rlhf.swap.pause_s": result.pause_s})
            if not result.ok:
                span.fail("postponed" if result.postponed else "failed")

    async def _swap(self, due: Due) -> SwapResult:
        result = await self._load(due)
        self.swaps = [*self.swaps[-(KEEP_SWAPS - 1) :], result]
        values = {"version": due.version, "previous": result.previous, "pause_s": round(result.pause_s, 4)}
        if result.ok:
            self._log.info("swap", **values)
            self._pod.could_not.pop(due.version, None)
            self._trying.pop(due.version, None)
            self._pod.follows(self.live)
            await self._announce(await asyncio.to_thread(self._began, due.version, result.previous))
        elif result.postponed:
            self._not_before = time.monotonic() + self._settings.pause_timeout_s
            self._log.warning("swap_postponed", reason=result.reason, **values)
        else:
            self._log.error("swap_failed", reason=result.reason, **values)
            try:
                await self._failed(due.version, result.reason, corrupt=due.corrupt)
            except (OSError, FileDamaged) as error:  # it cannot be told now; with the next try it is
                self._pod.store.failed(TELLING, error)
        self.idle = True
        self._pod.changed.set()
        return result

    def _look(self) -> tuple[str, str]:
        """The live version, and what to begin with where nothing serves; "" for none. Raises OSError."""
        with self._pod.store.asking():  # here, since nobody may wait for this thread any more when the store answers
            return self._target() or "", self._good()

    def _due(self, live: str, good: str) -> str:
        """The version to swap in now, "" for none."""
        serving, now = self._loader.serving, time.monotonic()
        self.live = live
        self._pod.follows(live)
        if now < self._not_before:
            return ""
        for version in (live,) if serving else (good, live):
            waits = version in self._trying and now < self._trying[version].not_before
            if version and version != serving and version not in self._refused and not waits:
                return version
        return ""

    def _good(self) -> str:
        """What to begin with where nothing serves, "" for none: the last good version, if it may serve still; on a pod
        for canaries the live one, so that a canary which cannot be served here leaves nobody without answers."""
        if self._loader.serving:
            return ""
        if (good := self._loader.last_good) is not None and self._usable(good.version):
            return good.version
        return (self._registry.live("policy") or "") if self._settings.canary else ""

    def _target(self) -> str | None:
        """The live version; on a pod for canaries the canary, while there is one. Raises OSError."""
        canary = under_way(self._registry) if self._settings.canary else None
        return self._registry.live("policy") if canary is None else canary.version

    def _began(self, version: str, previous: str) -> Change:
        """That it serves now, and why."""
        try:
            with self._pod.store.asking():
                status = self._registry.status(version)
        except OSError:  # the store is away since then
            return Change(version=version, state="live", previous=previous)
        state = "canary" if status.state == "canary" else "live"
        return Change(version=version, state=state, previous=previous, reason=status.reason, by=status.by)

    def _is_canary(self, version: str) -> bool:
        return (found := under_way(self._registry)) is not None and found.version == version

    def _usable(self, version: str) -> bool:
        try:
            return self._registry.status(version).state != "failed" and version not in self._refused
        except UnknownVersion:
            return False

    async def _prepared(self, version: str) -> Due:
        if self._deaths[version] >= MAX_DEATHS:
            del self._deaths[version]
            return Due(version, reason="the engine died on it twice")
        try:
            return Due(version, await self._loader.prepare(version))
        except (VersionUnfit, InvalidInput) as error:  # it is not there, or not yet, as a slow store tells
            return Due(version, reason=str(error))
        except VersionCorrupt as error:
            return Due(version, reason=str(error), corrupt=True)

    async def _load(self, due: Due) -> SwapResult:
        if due.prepared is None:
            return SwapResult(version=due.version, previous=self._loader.serving, ok=False, reason=due.reason)
        try:
            result = await self._loader.load(due.prepared)
        except EngineUnavailable:
            self._deaths[due.version] += 1
            raise
        if result.ok:
            del self._deaths[due.version]
        return result

    async def _failed(self, version: str, reason: str, *, corrupt: bool) -> None:
        """Have another version serve instead if this one failed for all, else try again later. Raises OSError."""
        known = self._trying
        self._trying = {each: known[each] for each in known if each in (version, self.live)}
        self._trying.setdefault(version, Trying()).failed()
        self._pod.could_not[version] = reason
        if (good := self._loader.last_good) is not None and good.version == version:
            self._loader.last_good = None
        if not corrupt:
            of_canaries = self._settings.canary and await asyncio.to_thread(self._is_canary, version)
            tally = await self._pod.verdict(version, of_canaries=of_canaries)
            if not tally.fails(self._settings.quorum):
                self._log.warning("this pod could not serve a version", version=version, tried_again=True, tally=tally)
                return
            if tally.pods > 1:
                reason = f"{tally.could_not} of {tally.pods} pods could not serve it; {self._pod.name}: {reason}"
        await self._refuse(version, reason)

    async def _refuse(self, version: str, reason: str) -> None:
        """The version failed for all: have another one serve instead, if there is one."""
        if not await asyncio.to_thread(self._rolled_back, version, reason):
            reason = f"{reason}; {NO_OTHER}"
            self._log.error("no_version_to_go_back_to", version=version)
        self._refused[version] = reason
        self._pod.could_not.pop(version, None)
        serving, by = self._loader.serving, self._pod.actor
        await self._announce(Change(version=version, state="failed", previous=serving, reason=reason, by=by))

    def _rolled_back(self, version: str, reason: str) -> bool:
        """Whether the version is marked failed, and another one is live. Raises OSError."""
        if version == self._registry.live("policy") and not self._registry.fallbacks("policy"):
            return False
        try:
            self._registry.mark(version, "failed", reason=reason, by=self._pod.actor)
            self._registry.rollback("policy", failed=version, reason=reason, by=self._pod.actor)
        except InvalidInput:  # its folder is gone, or the others have failed meanwhile
            self._log.error("no_version_to_go_back_to", version=version)
        return True

    async def _announce(self, change: Change) -> None:
        for listener in self.on_change:
            await listener(change)


def _jittered(wait_s: float) -> float:
    return wait_s * random.uniform(1 - JITTER, 1 + JITTER)
