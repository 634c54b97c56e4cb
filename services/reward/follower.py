"""Keeps the batcher on the registry's live reward version, and on the weights and rules that the operator has chosen.

A version is verified, then loaded beside the one that scores, and takes its place in one assignment between two
batches. One that is corrupt is marked failed, and the version before it goes on scoring. So it does where only this
service's settings forbid the new one, which is then not marked. Weights, or rules, that are damaged leave the last
good ones in force.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog

from rlhf_online import tracing
from rlhf_online.errors import ConfigError, InvalidInput, RlhfError, StoreUnavailable, VersionUnfit
from rlhf_online.retry import Backoff
from rlhf_online.rewards.rules.ruleset import NONE, Rules
from rlhf_online.rewards.weights import Weights
from rlhf_online.versions.manifest import Manifest
from rlhf_online.versions.registry import Registry
from services.reward.batching import Batcher, Loaded, Scorer

LONGEST_BACKOFF_S = 30.0
T = TypeVar("T")


class Follower:
    """`load(manifest)` builds the model of a verified version; `on_change(version, previous)` is told after a swap, and
    `on_none` when it looked and there is no version yet; `weights()` and `rules()` read the operator's, and may raise
    InvalidInput.
    """

    def __init__(
        self,
        registry: Registry,
        batcher: Batcher,
        load: Callable[[Manifest], Scorer],
        on_change: Callable[[str, str], Awaitable[None]],
        *,
        poll_s: float,
        weights: Callable[[], Weights] = dict,
        rules: Callable[[], Rules] = lambda: NONE,
        on_none: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self._registry = registry
        self._batcher = batcher
        self._load = load
        self._on_change = on_change
        self._poll_s = poll_s
        self._weights = weights
        self._rules = rules
        self._on_none = on_none
        self._refused = ""
        self._unread: dict[str, str] = {}
        """Of weights or rules, why they were refused last."""
        self._log = structlog.get_logger()

    async def run(self) -> None:
        """Follow until cancelled. What cannot be read now is no fault of the version: it is tried again."""
        backoff = Backoff(self._poll_s, max(self._poll_s, LONGEST_BACKOFF_S))
        while True:
            try:
                await self.step()
                backoff.reset()
                wait_s = self._poll_s
            except OSError as error:
                wait_s = backoff.advance()
                self._log.warning("the live version cannot be followed now", why=str(error), again_in_s=wait_s)
            await asyncio.sleep(wait_s)

    async def step(self) -> None:
        """Take the weights and rules of now, and load the live version if it is another than the one that scores.

        Raises OSError.
        """
        await self._follow_terms()
        version = await asyncio.to_thread(self._registry.live, "reward")
        loaded = self._batcher.loaded
        previous = loaded.version if loaded else ""
        if version is None and self._on_none is not None:
            await self._on_none()
        if version is None or version in (previous, self._refused):
            return
        try:
            scorer = await asyncio.to_thread(self._read, version)
        except (ConfigError, VersionUnfit) as error:
            self._refused = version
            self._log.error("reward version cannot be loaded with these settings", version=version, why=str(error))
            return
        except StoreUnavailable:  # no fault of the version
            raise
        except RlhfError as error:
            await asyncio.to_thread(self._refuse, version, str(error))
            return
        self._batcher.loaded = Loaded(version, scorer)
        self._refused = ""
        self._log.info("reward version loaded", version=version, previous=previous)
        await self._on_change(version, previous)

    async def _follow_terms(self) -> None:
        if (rules := await self._read_terms("rules", self._rules)) is not None and rules != self._batcher.rules:
            self._batcher.rules = rules
            self._log.info("rules changed", version=rules.version, rules=list(rules.set.rules))
        if (weights := await self._read_terms("weights", self._weights)) not in (None, self._batcher.weights):
            self._batcher.weights = weights
            self._log.info("weights of the objectives changed", **weights)

    async def _read_terms(self, what: str, read: Callable[[], T]) -> T | None:
        """What the operator has chosen; None, and a line in the log, where that is refused."""
        try:
            chosen = await asyncio.to_thread(read)
        except InvalidInput as error:
            if str(error) != self._unread.get(what):
                self._unread[what] = str(error)
                self._log.error(f"{what} refused, the last good ones stay in force", why=str(error))
            return None
        self._unread.pop(what, None)
        return chosen

    def _read(self, version: str) -> Scorer:
        manifest = self._registry.verify(version)
        with tracing.span("load", {"rlhf.reward_version": version}, parent=manifest.traceparent):
            return self._load(manifest)

    def _refuse(self, version: str, why: str) -> None:
        self._refused = version
        self._log.error("reward version refused, the one before goes on", version=version, why=why)
        try:
            self._registry.rollback("reward", reason=why, failed=version)
        except InvalidInput:  # it is the first one: nothing to go back to
            self._registry.mark(version, "failed", reason=why)
