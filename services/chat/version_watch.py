"""Tells whoever watches which weights write the answers, now and whenever that changes.

    engine begins to serve a version, or refuses it ──▶ changed ──▶ a queue a watcher ──▶ notices

A watcher is told first what serves at the moment, so that nothing falls between a look and the watch. Changes are
minutes apart and one that does not read is cut off by its transport within seconds: the queues stay short.
"""

import asyncio
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from typing import NotRequired, Protocol

from typing_extensions import TypedDict

from rlhf_online.events import now_ms
from rlhf_online.versions.manifest import Change
from services.chat.bodies.api_error import ApiError
from services.chat.bodies.documented import documented

MOST = 1000
"""Watchers at once."""
QUIET_S = 15.0
"""After so long without a change a watcher is told nothing, so that what stands between keeps the connection."""


@documented
class ServingChange(TypedDict):
    """A version began to serve, became a canary or was refused."""

    version: str
    """The version."""
    state: str
    """The state that it entered: "live"; "canary" at each of its steps; "rejected" as a canary; "failed" where it does
    not serve."""
    previous: str
    """The version that served before; empty if there was none."""
    reason: str
    """Why, where there is a reason."""
    by: str
    """By whom: "trainer", "pod NAME", "reward service" or "operator KEY"; empty where nobody noted it."""
    changed_ms: int
    """When, Unix time in milliseconds."""


@documented
class VersionNotice(TypedDict):
    """What serves, and what has changed; the first notice of a watch has no change."""

    serving: str
    """The policy version that writes answers now; empty before the first."""
    change: NotRequired[ServingChange]
    """What has changed."""


class Serving(Protocol):
    """Knows what serves."""

    @property
    def serving(self) -> str: ...


class VersionWatch:
    """Of the versions that one engine serves."""

    def __init__(self, engine: Serving) -> None:
        self.engine = engine
        self._watchers: set[asyncio.Queue[VersionNotice | None]] = set()
        self._closed = False

    def __len__(self) -> int:
        return len(self._watchers)

    async def changed(self, change: Change) -> None:
        """What the engine calls."""
        told: ServingChange = {
            "version": change.version,
            "state": change.state,
            "previous": change.previous,
            "reason": change.reason,
            "by": change.by,
            "changed_ms": now_ms(),
        }
        for watcher in self._watchers:
            watcher.put_nowait({"serving": self.engine.serving, "change": told})

    def admit(self) -> None:
        """Raises ApiError (429) if there are too many watchers."""
        if len(self._watchers) >= MOST:
            message = f"{MOST} watch already, as many as may: ask /v1/versions now and then instead"
            raise ApiError(message, status=429, type="rate_limit_error", code="too_many_watchers", retry_after_s=60)

    async def notices(self) -> AsyncGenerator[VersionNotice | None, None]:
        """What serves, then each change, until `close`; None after each QUIET_S without one. Raises ApiError (429)."""
        self.admit()
        with self._watcher() as watcher:
            yield {"serving": self.engine.serving}
            while not (self._closed and watcher.empty()):
                try:
                    async with asyncio.timeout(QUIET_S):
                        notice = await watcher.get()
                except TimeoutError:
                    yield None
                else:
                    if notice is not None:
                        yield notice

    def close(self) -> None:
        """End all watches, and each one that comes later."""
        self._closed = True
        for watcher in self._watchers:
            watcher.put_nowait(None)

    @contextmanager
    def _watcher(self) -> Iterator[asyncio.Queue[VersionNotice | None]]:
        watcher: asyncio.Queue[VersionNotice | None] = asyncio.Queue()
        self._watchers.add(watcher)
        try:
            yield watcher
        finally:
            self._watchers.remove(watcher)
