"""What the console asks: how it stands, every version's figures, what happened; once, or as it changes.

    versions' records ─▶ VersionTable ┐
    the log ───────────▶ Tally ───────┼─▶ look: what changed, at most once a second however many ask ─▶ rows, overview
    trainer's status ─────────────────┘

All is answered from memory and by look-ups: nothing is read again for it that was read before.
"""

import asyncio
import heapq
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import suppress
from typing import Annotated, Any, Protocol, cast

from pydantic import Field

from rlhf_online.events import now_ms
from rlhf_online.state import StateDir
from rlhf_online.versions.registry import Registry
from rlhf_online.versions.summary import VersionSummary
from services.chat.bodies.api_error import ApiError, unavailable
from services.chat.bodies.validation import FROM_QUERY, Integer, Model, Within, validate
from services.chat.console.replies import (
    ConsoleHistory,
    ConsoleOverview,
    ConsoleUpdate,
    ConsoleVersions,
    HistoryEvent,
    PolicySeries,
    RewardSeries,
    TrainerState,
)
from services.chat.console.version_table import VersionTable, columns, judged_ms, number, policy_row, reward_row
from services.chat.learning import Learning

MOST = 64
"""Watchers at once."""
LOOK_S = 1.0
"""At most so often anything is looked at."""
QUIET_S = 15.0
"""After so long without a change a watcher is sent a comment, so that what stands between keeps the connection."""
PAGE = 200
LATEST = 2**53
TRAINER: TrainerState = {"phase": "", "waiting_for": "", "step": 0, "steps": 0, "cycle": 0, "updated_ms": 0}


class HistoryQuery(Model):
    """Which page of what happened."""

    before_ms: Annotated[Integer, Within(0, LATEST), FROM_QUERY] = Field(
        default=LATEST, description="Only what is earlier, Unix time in milliseconds."
    )
    limit: Annotated[Integer, Within(1, PAGE), FROM_QUERY] = Field(default=PAGE, description="How many at most.")


class Serving(Protocol):
    """Knows what serves."""

    @property
    def serving(self) -> str: ...

    @property
    def state(self) -> str: ...


class Console:
    """Of one service."""

    def __init__(self, registry: Registry, engine: Serving, learning: Learning, state: StateDir) -> None:
        self._table = VersionTable(registry)
        self._engine = engine
        self._learning = learning
        self._state = state
        self._rows: dict[str, dict[str, Any]] = {}
        self._changed: dict[str, int] = {}
        """By version, the look at which its row changed last."""
        self._overview: ConsoleOverview | None = None
        self._looks = 0
        self._looked_s = -LOOK_S
        self._lock = asyncio.Lock()
        self._watchers = 0
        self._closed = asyncio.Event()

    def close(self) -> None:
        """End all watches, and each one that comes later."""
        self._closed.set()

    async def overview(self) -> ConsoleOverview:
        """Raises ApiError (503)."""
        return {**await self._fresh(), "now_ms": now_ms()}

    async def versions(self) -> ConsoleVersions:
        """Raises ApiError (503)."""
        await self._fresh()
        policies, rewards = self._series(since=0)
        return {"policies": policies, "rewards": rewards}

    async def history(self, values: Mapping[str, Any]) -> ConsoleHistory:
        """Raises ApiError: 400, 503."""
        query = validate(HistoryQuery, values)
        await self._fresh()
        judged = [
            (at_ms, found)
            for found in self._table.known.values()
            if 0 < (at_ms := judged_ms(found.status)) < query.before_ms
        ]
        events = [_judged(at_ms, found) for at_ms, found in heapq.nlargest(query.limit + 1, judged, key=lambda e: e[0])]
        return {"events": events[: query.limit], "more": len(events) > query.limit}

    def admit(self) -> None:
        """Raises ApiError (429) if there are too many watchers."""
        if self._watchers >= MOST:
            message = f"{MOST} watch already, as many as may: ask /v1/console now and then instead"
            raise ApiError(message, status=429, type="rate_limit_error", code="too_many_watchers", retry_after_s=60)

    async def updates(self) -> AsyncGenerator[ConsoleUpdate | None, None]:
        """All that is known, then what changes, until `close`; None after each QUIET_S without a change.

        Raises ApiError (429).
        """
        self.admit()
        self._watchers += 1
        try:
            seen, told, told_s = 0, None, time.monotonic()
            while not self._closed.is_set():
                with suppress(ApiError):  # what cannot be read now is told later
                    now = await self._fresh()
                    policies, rewards = self._series(since=seen)
                    update: ConsoleUpdate = {"overview": {**now, "now_ms": now_ms()}}
                    if policies["version"] or not seen:
                        update["policies"] = policies
                    if rewards["version"] or not seen:
                        update["rewards"] = rewards
                    if now != told or len(update) > 1:
                        yield update
                        seen, told, told_s = self._looks, now, time.monotonic()
                if time.monotonic() - told_s >= QUIET_S:
                    yield None
                    told_s = time.monotonic()
                with suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_S):
                        await self._closed.wait()
        finally:
            self._watchers -= 1

    async def _fresh(self) -> ConsoleOverview:
        """Look, unless that was done just now; the time in what is returned is none. Raises ApiError (503)."""
        async with self._lock:
            if self._overview is None or time.monotonic() - self._looked_s >= LOOK_S:
                try:
                    self._overview = await asyncio.to_thread(self._look)
                except OSError as error:
                    raise unavailable("the versions cannot be read now; try again", "versions_unavailable") from error
                self._looked_s = time.monotonic()
            return self._overview

    def _look(self) -> ConsoleOverview:
        changed = self._table.refresh()
        self._looks += 1
        for version in changed:
            found = self._table.known[version]
            if found.kind == "policy":
                scored_by = self._table.known.get(found.manifest.reward_version) if found.manifest else None
                worth = scored_by.manifest.figures if scored_by and scored_by.manifest else {}
                self._rows[version] = policy_row(found, worth, (0, 0))
            else:
                self._rows[version] = reward_row(found)
            self._changed[version] = self._looks
        return {
            "now_ms": 0,
            "serving": self._engine.serving,
            "live": dict(self._table.live),
            "engine": self._engine.state,
            "learning": self._learning.state(),
            "trainer": _trainer(self._state.read_status("trainer")),
        }

    def _series(self, since: int) -> tuple[PolicySeries, RewardSeries]:
        """The rows that changed after that look, all for 0."""
        found = [name for name in self._table.known if self._changed[name] > since]
        policies = [self._rows[name] for name in found if name.startswith("policy-")]
        rewards = [self._rows[name] for name in found if name.startswith("reward-")]
        return (
            cast("PolicySeries", columns(policies, list(PolicySeries.__annotations__))),
            cast("RewardSeries", columns(rewards, list(RewardSeries.__annotations__))),
        )


def _trainer(status: Mapping[str, Any]) -> TrainerState:
    told = {name: status.get(name, default) for name, default in TRAINER.items()}
    return cast("TrainerState", told)


def _judged(at_ms: int, found: VersionSummary) -> HistoryEvent:
    gate, rejected = found.status.gate, found.status.state == "rejected"
    return {
        "at_ms": at_ms,
        "kind": "gate",
        "version": found.version,
        "state": "rejected" if rejected else "live",
        "previous": found.manifest.parent if found.manifest else "",
        "reason": found.status.reason if rejected else "passed the gate",
        "figures": {name: value for name in gate if (value := number(gate, name)) is not None},
    }
