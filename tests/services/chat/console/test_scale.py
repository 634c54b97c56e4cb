"""The console with 100,000 votes and 1,000 versions: a view looks up what was counted, and scans nothing."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from rlhf_online.eventlog.local import LocalLog
from rlhf_online.metrics import ChatMetrics
from rlhf_online.state import StateDir
from rlhf_online.versions.registry import Registry
from services.chat.console.alarm import PredictionAlarm
from services.chat.console.gauges import Gauges
from services.chat.console.opinions import Opinions
from services.chat.console.panel import Panel
from services.chat.console.service import Console
from services.chat.console.tally import Tally
from services.chat.learning import Learning
from tests.support.full_console import POLICIES, VOTES, WAITING, fill, publish
from tests.support.memory_store import MemoryStore

OPS = 1_000
"""Steps of SQLite's machine between two calls of the counter; a scan of the votes takes some hundred calls."""


class CountingStore(MemoryStore):
    """Counts what is read of it."""

    reads = 0

    def read(self, key: str) -> str | None:
        self.reads += 1
        return super().read(key)

    def manifest(self, version: str) -> bytes:
        self.reads += 1
        return super().manifest(version)


class CountingTally(Tally):
    """Counts SQLite's steps, in OPS."""

    steps = 0

    @contextmanager
    def counting(self) -> Iterator[None]:
        self.steps = 0
        self._database.set_progress_handler(self._count_step, OPS)
        yield
        self._database.set_progress_handler(None, OPS)

    def _count_step(self) -> int:
        self.steps += 1
        return 0


class Engine:
    serving, state = "policy-000499", "ready"


async def test_a_view_scans_neither_votes_nor_versions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.chat.console.service.LOOK_S", 0.0)  # each view looks anew
    store, state = CountingStore(tmp_path), StateDir(tmp_path / "state")
    publish(store)
    registry, log, tally = Registry(store), LocalLog(state.log), CountingTally(state.log)
    fill(tally)
    opinions = Opinions(state.log)
    metrics = ChatMetrics(CollectorRegistry())
    panel = Panel(registry, Engine(), Learning(registry, state), state, tally, opinions, metrics.votes.to_live)
    console = Console(panel, tally, opinions, PredictionAlarm(metrics.prediction, state), Gauges(metrics))
    assert len((await console.versions())["policies"]["version"]) == POLICIES  # the first one reads all
    for view in (console.overview, console.versions, lambda: console.history({})):
        store.reads = 0
        with tally.counting():
            await view()
        assert store.reads < 30 and tally.steps < 30, (view, store.reads, tally.steps)
    with tally.counting():
        tally.rows("SELECT MAX(reward) FROM vote")
    assert tally.steps > 100, "a scan would be noticed"
    overview = await console.overview()
    assert (overview["votes"]["total"], overview["votes"]["backlog"]) == (VOTES, WAITING)
    assert overview["votes"]["per_minute"] == [600] * 60
    assert overview["click_to_live"]["p50_s"] == 499.0
    assert len((await console.history({}))["events"]) == 200
    tally.close()
    log.close()
