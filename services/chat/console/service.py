"""What the console asks: how it stands, every version's figures, what happened; once, or as it changes.

    ask ─▶ fresh: a look, at most once a second however many ask ─▶ `panel` ─▶ overview, rows

All is answered from memory and by look-ups: nothing is read again for it that was read before.
"""

import asyncio
import heapq
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import suppress
from typing import Annotated, Any

from pydantic import Field

from rlhf_online.errors import ReadModelUnavailable
from rlhf_online.events import now_ms
from rlhf_online.versions.summary import VersionSummary
from services.chat.bodies.api_error import ApiError, unavailable
from services.chat.bodies.validation import FROM_QUERY, Integer, Model, Within, validate
from services.chat.console.alarm import PredictionAlarm
from services.chat.console.comparing import number
from services.chat.console.gauges import Gauges
from services.chat.console.opinions import Opinions
from services.chat.console.panel import Panel
from services.chat.console.replies import (
    ConsoleHistory,
    ConsoleOverview,
    ConsoleUpdate,
    ConsoleVersions,
    HistoryEvent,
)
from services.chat.console.tally import Tally
from services.chat.console.version_table import judged_ms

MOST = 64
"""Watchers at once."""
LOOK_S = 1.0
"""At most so often anything is looked at."""
FOLLOW_S = 30.0
"""How often it is looked at for the alarm."""
QUIET_S = 15.0
"""After so long without a change a watcher is sent a comment, so that what stands between keeps the connection."""
PAGE = 200
LATEST = 2**53


class HistoryQuery(Model):
    """Which page of what happened."""

    before_ms: Annotated[Integer, Within(0, LATEST), FROM_QUERY] = Field(
        default=LATEST, description="Only what is earlier, Unix time in milliseconds."
    )
    limit: Annotated[Integer, Within(1, PAGE), FROM_QUERY] = Field(default=PAGE, description="How many at most.")


class Console:
    """Of one service."""

    def __init__(self, panel: Panel, tally: Tally, opinions: Opinions, alarm: PredictionAlarm, gauges: Gauges) -> None:
        self.tally = tally
        self.opinions = opinions
        self._alarm = alarm
        self._gauges = gauges
        self._panel = panel
        self._overview: ConsoleOverview | None = None
        self._looked_s = -LOOK_S
        self._lock = asyncio.Lock()
        self._watchers = 0
        self._closed = asyncio.Event()

    def close(self) -> None:
        """End all watches, and each one that comes later."""
        self._closed.set()

    async def follow(self) -> None:
        """Tell metrics what is known, and whether the gate's predictions and people have parted, until cancelled;
        nobody need look for it."""
        while True:
            with suppress(ApiError, ReadModelUnavailable):  # what cannot be read now is told later
                found = await self._fresh(asked=False)
                self._gauges.tell(found["votes"], self._panel.table.known.values())  # before others look, in a thread
                await asyncio.to_thread(self._alarm.tell, found["prediction"])
            await asyncio.sleep(FOLLOW_S)

    async def overview(self) -> ConsoleOverview:
        """Raises ApiError (503)."""
        return {**await self._fresh(), "now_ms": now_ms()}

    async def versions(self) -> ConsoleVersions:
        """Raises ApiError (503)."""
        await self._fresh()
        policies, rewards = self._panel.series(since=0)
        return {"policies": policies, "rewards": rewards}

    async def history(self, values: Mapping[str, Any]) -> ConsoleHistory:
        """Raises ApiError: 400, 503."""
        query = validate(HistoryQuery, values)
        await self._fresh()
        judged = [
            (at_ms, found)
            for found in self._panel.table.known.values()
            if 0 < (at_ms := judged_ms(found.status)) < query.before_ms
        ]
        gate = [_judged(at_ms, found) for at_ms, found in heapq.nlargest(query.limit + 1, judged, key=lambda e: e[0])]
        changes = await asyncio.to_thread(self.tally.changes, query.before_ms, query.limit + 1)
        events = sorted([*gate, *map(_swapped, changes)], key=lambda event: event["at_ms"], reverse=True)
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
                with suppress(ApiError, ReadModelUnavailable):  # what cannot be read now is told later
                    now = await self._fresh()
                    policies, rewards = self._panel.series(since=seen)
                    update: ConsoleUpdate = {"overview": {**now, "now_ms": now_ms()}}
                    if policies["version"] or not seen:
                        update["policies"] = policies
                    if rewards["version"] or not seen:
                        update["rewards"] = rewards
                    if now != told or len(update) > 1:
                        yield update
                        seen, told, told_s = self._panel.looks, now, time.monotonic()
                if time.monotonic() - told_s >= QUIET_S:
                    yield None
                    told_s = time.monotonic()
                with suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_S):
                        await self._closed.wait()
        finally:
            self._watchers -= 1

    async def _fresh(self, *, asked: bool = True) -> ConsoleOverview:
        """Look, unless that was done just now for somebody who asked; the time in what is returned is none.

        Raises ApiError (503).
        """
        async with self._lock:
            if self._overview is None or time.monotonic() - self._looked_s >= LOOK_S:
                try:
                    self._overview = await asyncio.to_thread(self._panel.look)
                except OSError as error:
                    raise unavailable("the versions cannot be read now; try again", "versions_unavailable") from error
                if asked:
                    self._looked_s = time.monotonic()
            return self._overview


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


def _swapped(change: tuple[int, str, str, str, str]) -> HistoryEvent:
    at_ms, version, state, previous, reason = change
    return {
        "at_ms": at_ms,
        "kind": "swap",
        "version": version,
        "state": state,
        "previous": previous,
        "reason": reason,
        "figures": {},
    }
