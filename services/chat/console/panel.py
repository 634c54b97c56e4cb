"""How it stands and what is known of each version, kept current by looks of which each takes in what is new.

    versions' records ─▶ VersionTable ──────────┐
    the log ──────────▶ Tally, Fates, Opinions ─┼─▶ look ─▶ overview, a row a version
    trainer's status ───────────────────────────┘

Nothing is read again for it that was read before.
"""

import bisect
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Protocol, cast

from prometheus_client import Histogram

from rlhf_online.errors import FileDamaged, ReadModelUnavailable
from rlhf_online.events import now_ms
from rlhf_online.feedback.outcomes import OutcomeBoard
from rlhf_online.state import StateDir
from rlhf_online.versions.registry import Registry
from rlhf_online.versions.summary import VersionSummary
from rlhf_online.watch.monitors import MONITORS, RUNBOOKS
from services.chat.console.comparing import Compared, assessed, compared
from services.chat.console.fates import Fates
from services.chat.console.opinions import Opinions
from services.chat.console.replies import (
    ClickToLive,
    ConsoleOverview,
    MonitorState,
    PolicySeries,
    RewardSeries,
    TrainerState,
    VoteFlow,
)
from services.chat.console.tally import MINUTE_MS, Tally
from services.chat.console.version_table import VersionTable, columns, policy_row, reward_row
from services.chat.learning import Learning

UP_TO_S = (10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0, 7200.0, 21_600.0, 86_400.0)
"""Ends of the bins of the time from a click to a live version."""
DUE = 0
"""Instead of a look: the version's row is still to be made."""
TRAINER: TrainerState = {"phase": "", "waiting_for": "", "step": 0, "steps": 0, "cycle": 0, "updated_ms": 0}


class Serving(Protocol):
    """Knows what serves."""

    @property
    def serving(self) -> str: ...

    @property
    def state(self) -> str: ...


class Panel:
    """One thread at a time."""

    def __init__(
        self,
        registry: Registry,
        engine: Serving,
        learning: Learning,
        state: StateDir,
        tally: Tally,
        opinions: Opinions,
        to_live: Histogram,
    ) -> None:
        """`to_live`: the metric of click → live, by stage."""
        self.table = VersionTable(registry)
        self.looks = 0
        self._tally = tally
        self._fates = Fates(tally, OutcomeBoard(registry.store), to_live)
        self._engine = engine
        self._learning = learning
        self._state = state
        self._rows: dict[str, dict[str, Any]] = {}
        self._changed: dict[str, int] = {}
        """By version, the look at which its row changed last, or DUE."""
        self._opinions = opinions
        self._compared: dict[str, Compared] = {}
        """Of policy versions: what was predicted, and said."""
        self._prediction = assessed(())

    def look(self) -> ConsoleOverview:
        """Take in what is new; how it stands, at no time in particular. Raises OSError, ReadModelUnavailable, after
        which the next look makes up for it."""
        self._are_due(self.table.refresh())
        with suppress(ReadModelUnavailable, FileDamaged):  # told where it is followed; what was counted so far is shown
            self._follow_votes()
        with suppress(ReadModelUnavailable):
            self._opinions.catch_up()
        self.looks += 1
        self._are_due(self._tally.take_liked() & self.table.known.keys())
        self._are_due(self._judged_anew())
        due = [version for version, look in self._changed.items() if look == DUE]
        for version in due:
            self._rows[version] = self._row(self.table.known[version])
            self._changed[version] = self.looks
        if due:
            known = ((name, self.table.known[name].status.state, item) for name, item in sorted(self._compared.items()))
            self._prediction = assessed(known)
        return {
            "now_ms": 0,
            "serving": self._engine.serving,
            "live": dict(self.table.live),
            "swapped_ms": self._tally.last_change_ms(),
            "engine": self._engine.state,
            "learning": self._learning.state(),
            "trainer": _trainer(self._state.read_status("trainer")),
            "votes": self._votes(),
            "click_to_live": click_to_live(self._fates.clicks()),
            "prediction": self._prediction,
            "watch": _watch(self._state.read_status("watch")),
        }

    def _are_due(self, versions: Iterable[str]) -> None:
        self._changed |= dict.fromkeys(versions, DUE)

    def _row(self, found: VersionSummary) -> dict[str, Any]:
        if found.kind == "reward":
            return reward_row(found)
        scored_by = self.table.known.get(found.manifest.reward_version) if found.manifest else None
        worth = scored_by.manifest.figures if scored_by and scored_by.manifest else {}
        self._compared[found.version] = now = self._compare(found)
        return policy_row(found, worth, self._tally.thumbs.of(found.version), now)

    def _judged_anew(self) -> set[str]:
        """Policy versions of which, or of whose parents, people have said something."""
        said = self._opinions.take_changed()
        return {
            name
            for name, found in (self.table.known.items() if said else ())
            if name in said or (found.manifest is not None and found.manifest.parent in said)
        }

    def _compare(self, found: VersionSummary) -> Compared:
        parent = found.manifest.parent if found.manifest else ""
        if not parent:
            return Compared()
        pairs, thumbs = self._opinions.of(found.version, parent), self._opinions.of(found.version)
        return compared(found.status.gate, pairs, thumbs, self._opinions.of(parent))

    def _follow_votes(self) -> None:
        """What became of votes: facts, and the versions that have learned from them."""
        self._tally.catch_up()
        self._fates.settle(self.table.first_reward_ms())
        for reward in self._fates.taught():
            if (served := self.table.first_served(reward)) is not None:
                self._fates.went_live(reward, served.version, served.status.first_live_ms)

    def _votes(self) -> VoteFlow:
        minute = now_ms() // MINUTE_MS - 1
        backlog, oldest_ms = self._tally.waiting()
        return {
            "total": self._tally.total(),
            "minute_ms": minute * MINUTE_MS,
            "per_minute": self._tally.minutes(minute),
            "backlog": backlog,
            "oldest_waiting_ms": oldest_ms,
        }

    def series(self, since: int) -> tuple[PolicySeries, RewardSeries]:
        """The rows that changed after that look, all for 0."""
        found = [name for name in self.table.known if self._changed[name] > since]
        policies = [self._rows[name] for name in found if name.startswith("policy-")]
        rewards = [self._rows[name] for name in found if name.startswith("reward-")]
        return (
            cast("PolicySeries", columns(policies, list(PolicySeries.__annotations__))),
            cast("RewardSeries", columns(rewards, list(RewardSeries.__annotations__))),
        )


def _trainer(status: Mapping[str, Any]) -> TrainerState:
    told = {name: status.get(name, default) for name, default in TRAINER.items()}
    return cast("TrainerState", told)


def _watch(status: Mapping[str, Any]) -> list[MonitorState]:
    told = status.get("monitors", {})
    return [
        {
            "monitor": monitor,
            "evidence": (said := told.get(monitor, {})).get("evidence"),
            "alarm": said.get("alarm", False),
            "says": said.get("says", ""),
            "runbook": f"docs/runbooks/{RUNBOOKS[monitor]}.md",
        }
        for monitor in MONITORS
    ]


def click_to_live(seconds: Sequence[float]) -> ClickToLive:
    """Of durations in ascending order; a percentile is the least of them that so many do not exceed."""
    p50, p90, p99 = (
        seconds[math.ceil(len(seconds) * percent / 100) - 1] if seconds else None for percent in (50, 90, 99)
    )
    ends = [bisect.bisect_right(seconds, end) for end in UP_TO_S]
    return {
        "votes": len(seconds),
        "p50_s": p50,
        "p90_s": p90,
        "p99_s": p99,
        "up_to_s": list(UP_TO_S),
        "counts": [end - begin for begin, end in itertools.pairwise([0, *ends, len(seconds)])],
    }
