"""Every version's state and figures in memory, so that a thousand of them are shown without reading a file of each.

    refresh ──▶ names of the store ──▶ new ones: manifest and state ──▶ rows
                                   └─▶ those that may change: the candidates, what is live, what was

A state that is settled changes seldom and by few: those are read anew once in FULL_S. What the trainer and the gate
measured comes from manifests and states, and is not computed here; the interval of a win rate, which they do not hold,
follows from its rate and number.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from rlhf_online.errors import UnknownVersion, VersionCorrupt
from rlhf_online.intervals import wilson
from rlhf_online.versions.catalogue import Catalogue
from rlhf_online.versions.manifest import Manifest, Status, kind_of
from rlhf_online.versions.registry import Registry
from rlhf_online.versions.summary import VersionSummary
from services.chat.console.comparing import Compared, number

FULL_S = 60.0
"""After which all states are read again."""
OPEN = ("candidate", "canary", "live")
SERVED = ("live", "retired")


class VersionTable:
    """Of one registry. One thread at a time."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._full_s = -FULL_S
        self.known: dict[str, VersionSummary] = {}
        """By name, policies and rewards, oldest first. Manifests without files and probes, which are long."""
        self.live: dict[str, str | None] = {"policy": None, "reward": None}

    def refresh(self) -> set[str]:
        """Take in what is new; the versions of which something has changed. Raises OSError."""
        live = {"policy": self._registry.live("policy"), "reward": self._registry.live("reward")}
        names = self._registry.versions()
        full = time.monotonic() - self._full_s >= FULL_S
        if full:
            self._full_s = time.monotonic()
        changed: set[str] = set()
        for name in names:
            before = self.known.get(name)
            open_ = before is None or before.status.state in OPEN or name in (*live.values(), *self.live.values())
            if (full or open_) and (now := self._read(name, before)) is not None and now != before:
                self.known[name] = now
                changed.add(name)
        if any(after < before for before, after in zip(self.known, list(self.known)[1:], strict=False)):
            self.known = dict(sorted(self.known.items()))
        self.live = live
        return changed

    def first_reward_ms(self) -> int:
        """When the first reward version was made; 0 before."""
        made = (found.manifest.created_ms for found in self.known.values() if found.kind == "reward" and found.manifest)
        return next(made, 0)

    def first_served(self, reward: str) -> VersionSummary | None:
        """The first policy version that served and was trained with that reward version or a later one."""
        for found in self.known.values():
            served = found.kind == "policy" and (
                found.status.first_live_ms or found.status.state in ("live", "retired")
            )
            if served and found.manifest and _number(found.manifest.reward_version) >= _number(reward):
                return found
        return None

    def _read(self, name: str, before: VersionSummary | None) -> VersionSummary | None:
        """None for one that went away meanwhile."""
        try:
            status = self._registry.status(name)
            if before is not None and before.manifest is not None:
                return replace(before, status=status)
            manifest = Catalogue(self._registry.store).manifest(name)  # one that keeps no probes in memory
            manifest = replace(manifest, files=(), probe=())
        except UnknownVersion:
            return None
        except VersionCorrupt as error:
            status = replace(self._registry.status(name), reason=str(error))
            return VersionSummary(version=name, kind=kind_of(name), status=status, manifest=None)
        return VersionSummary(version=name, kind=kind_of(name), status=status, manifest=manifest)


def policy_row(
    found: VersionSummary, worth: Mapping[str, float], thumbs: tuple[int, int], compared: Compared
) -> dict[str, Any]:
    """One version's values by the names of `PolicySeries`; `worth`: the figures of its reward version."""
    gate, (up, down) = found.status.gate, thumbs
    manifest = found.manifest or Manifest(version=found.version, tuning="full")
    wins = _interval(number(gate, "win_rate"), number(gate, "samples"))
    share = up / (up + down) if up + down else None
    liked = _interval(share, up + down)
    return {
        **_common(found),
        "parent": manifest.parent,
        "reward_version": manifest.reward_version,
        "reward": number(gate, "score"),
        "live_reward": number(gate, "live_score"),
        "win_rate": number(gate, "win_rate"),
        "win_rate_low": wins[0],
        "win_rate_high": wins[1],
        "samples": number(gate, "samples"),
        "kl": number(gate, "kl") if gate else manifest.kl if found.manifest else None,
        "length": number(gate, "length"),
        "live_length": number(gate, "live_length"),
        **_measured(worth, ("accuracy", "accuracy_low", "accuracy_high"), "accuracy_n"),
        "thumbs_up": up,
        "thumbs_down": down,
        "thumbs_share": share,
        "thumbs_low": liked[0],
        "thumbs_high": liked[1],
        **compared.row(),
    }


def reward_row(found: VersionSummary) -> dict[str, Any]:
    """One version's values by the names of `RewardSeries`."""
    figures = found.manifest.figures if found.manifest else {}
    pairs = ("accuracy", "accuracy_low", "accuracy_high", "ece")
    return {
        **_common(found),
        **_measured(figures, pairs, "accuracy_n"),
        "accuracy_n": number(figures, "accuracy_n"),
        **_measured(figures, ("thumb_auc", "thumb_auc_low", "thumb_auc_high"), "thumb_n"),
        "thumb_n": number(figures, "thumb_n"),
    }


def columns(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> dict[str, list[Any]]:
    """The rows turned."""
    return {name: [row[name] for row in rows] for name in names}


def judged_ms(status: Status) -> int:
    """When the gate judged the version of that state; 0 if it did not, or nobody noted it."""
    if not status.gate:
        return 0
    return status.changed_ms if status.state == "rejected" else status.first_live_ms


def _common(found: VersionSummary) -> dict[str, Any]:
    status = found.status
    return {
        "version": found.version,
        "state": status.state,
        "reason": status.reason,
        "created_ms": found.manifest.created_ms if found.manifest else 0,
        "changed_ms": status.changed_ms,
        "first_live_ms": status.first_live_ms,
    }


def _measured(figures: Mapping[str, float], names: Sequence[str], count: str) -> dict[str, float | None]:
    """The figures, None where `count` says that there was nothing to measure by."""
    return {name: number(figures, name) if figures.get(count) else None for name in names}


def _interval(share: float | None, n: float | None) -> tuple[float | None, float | None]:
    return wilson(share, n) if share is not None and n else (None, None)


def _number(version: str) -> int:
    return int(version.partition("-")[2] or -1)
