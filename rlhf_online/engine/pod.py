"""This pod among the others: what it tells them, what it asks them, and whether it keeps up with them.

A pod lags from the moment at which it has seen a live version that it does not serve. It is `behind` once that has
lasted `max_lag_s` while another pod serves that version; where none does, taking every pod out would help nobody.
"""

import asyncio
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import structlog

from rlhf_online.errors import FileDamaged
from rlhf_online.versions import pods
from rlhf_online.versions.pods import PodReport, Tally
from rlhf_online.versions.store import VersionStore

SILENT_S = 10.0
"""A store that was asked, and has not answered for so long, is said to be away."""
TICK_S = 1.0
"""Between two looks at whether there is something to tell or to ask: about the shortest time between two reports."""


FOLLOWING, TELLING = "the live version cannot be followed", "other pods cannot be told"


class StoreHealth:
    """Whether the store of versions answers, and what cannot be done with it now (FOLLOWING, TELLING), and why."""

    def __init__(self) -> None:
        self._asked: float | None = None
        self._errors: dict[str, str] = {}

    @property
    def silent_s(self) -> float:
        """Since the first question that it has not answered; 0 if it has answered all, or is not asked."""
        asked = self._asked  # which another thread may clear meanwhile
        return 0.0 if asked is None else time.monotonic() - asked

    @property
    def failure(self) -> str:
        """ "" for a store that answers."""
        said = [f"{what} ({why})" for what, why in self._errors.items()]
        if self.silent_s >= SILENT_S:
            said.insert(0, f"the store of versions has not answered for {self.silent_s:.0f} s")
        return f"{'; '.join(said)}: what serves goes on" if said else ""

    @contextmanager
    def asking(self) -> Iterator[None]:
        """A question, which is answered as the block ends; by an error it is not."""
        if self._asked is None:
            self._asked = time.monotonic()
        yield
        self._asked = None

    def done(self, what: str) -> None:
        self._errors.pop(what, None)

    def failed(self, what: str, error: Exception) -> None:
        """Told once, until it is done, or fails for another reason."""
        if self._errors.get(what) != str(error):
            self._errors[what] = str(error)
            structlog.get_logger().warning(f"{what} now", why=str(error))


class Engine(Protocol):
    """What this pod's engine does, and which version it serves, "" for none."""

    @property
    def state(self) -> str: ...

    @property
    def serving(self) -> str: ...


class Pod:
    """`could_not`: what it could not serve, {version: why}. `canary`: it serves the canary in the live version's place.
    Set `changed` when there is something new to tell.

    Large because it carries what is told, and what was asked last.
    """

    def __init__(
        self, store: VersionStore, name: str, engine: Engine, *, max_lag_s: float, canary: bool = False
    ) -> None:
        self.name = name
        self.count = 1
        """About how many pods there are."""
        self.could_not: dict[str, str] = {}
        self.changed = asyncio.Event()
        self.store = StoreHealth()
        self._store = store
        self._engine = engine
        self._max_lag_s = max_lag_s
        self._canary = canary
        self._live = ""
        self._lags_since: float | None = None
        self._others_serve = False
        self._telling = asyncio.Lock()
        self.beside = ""
        """The canary that it is to hold beside the live version, "" for none."""
        self.of_audiences: frozenset[str] = frozenset()
        """The versions that it is to hold for audiences."""

    @property
    def actor(self) -> str:
        """Who changes a version's state here, as it stands with what changed."""
        return f"pod {self.name}"

    @property
    def lag_s(self) -> float:
        """Since when another version is live than the one that serves; 0 if it is the live one."""
        return 0.0 if self._lags_since is None else time.monotonic() - self._lags_since

    @property
    def behind(self) -> str:
        """Why this pod should get no more requests, "" if it should."""
        if not self._others_serve or self.lag_s < self._max_lag_s:
            return ""
        why = self.could_not.get(self._live) or "it is still being loaded"
        serves = f"this pod still serves {self._engine.serving}" if self._engine.serving else "this pod serves none"
        wanted = "has been the canary for" if self._canary else "has been live for"
        return f"{self._live} {wanted} {self.lag_s:.0f} s, and {serves} (swap.max_lag_s): {why}"

    def follows(self, live: str) -> None:
        """What the store says is live; to be called again once something else serves here."""
        if live == self._engine.serving or not live:
            self._lags_since, self._others_serve = None, False
        elif live != self._live or self._lags_since is None:
            self._lags_since, self._others_serve = time.monotonic(), False
        self._live = live
        wanted = {live, self.beside, *self.of_audiences}
        self.could_not = {each: why for each, why in self.could_not.items() if each in wanted}

    async def verdict(self, version: str, *, of_canaries: bool = False) -> Tally:
        """Tell the others that this pod could not serve the version; how they fare with it. `of_canaries`: only
        those that serve canaries, since of whole weights no other pod tries one. Raises OSError."""
        await self._tell()
        told = await asyncio.to_thread(pods.reports, self._store)
        return pods.tally([each for each in told if each.canary or not of_canaries], version)

    async def run(self) -> None:
        """Tell the others every REPORT_S and when something `changed`; ask them once this pod lags. Until cancelled."""
        tell_at = ask_at = 0.0
        while True:
            changed, now = self.changed.is_set(), time.monotonic()
            self.changed.clear()
            try:
                if changed or now >= tell_at:
                    await self._tell()
                    self.store.done(TELLING)
                    tell_at = now + _jittered(pods.REPORT_S)
                if self.lag_s >= self._max_lag_s and now >= ask_at:
                    told = await asyncio.to_thread(pods.reports, self._store)
                    self._others_serve = pods.tally(told, self._live).serve > 0
                    ask_at = now + _jittered(pods.REPORT_S / 3)
            except (OSError, FileDamaged) as error:
                self.store.failed(TELLING, error)
                tell_at = ask_at = now + _jittered(pods.REPORT_S / 3)
            await asyncio.sleep(_jittered(TICK_S))

    async def _tell(self) -> None:
        async with self._telling:  # or an earlier report, held up by other pods', would replace a later one
            report = PodReport(
                pod=self.name,
                serving=self._engine.serving,
                state=self._engine.state,
                could_not=dict(self.could_not),
                canary=self._canary,
            )
            self.count = await asyncio.to_thread(pods.tell, self._store, report)


def _jittered(wait_s: float) -> float:
    return wait_s * random.uniform(0.8, 1.2)
