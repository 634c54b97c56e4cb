"""What each chat pod says of itself in the store: which version it serves, and which it could not serve, and why.

    pods/00 … pods/15    {POD: {"serving": …, "state": …, "canary": …, "could_not": {VERSION: why}, "told_ms": …}}

A pod writes into the record that the hash of its name chooses, by compare-and-set, and leaves out of it whoever has
told nothing for LATELY_S. So all pods are read in SHARDS reads however many they are, a store needs to list and to
delete nothing, few pods write into one record, and the records stay bounded. "Lately" is by the pods' own clocks, which
must agree within a minute (NTP). A record that is damaged is written anew by the next pod that tells.
"""

import hashlib
import json
import random
import re
import socket
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from rlhf_online.errors import FileDamaged
from rlhf_online.events import now_ms
from rlhf_online.versions.store import VersionStore

SHARDS = 16
REPORT_S = 30.0
"""How often a pod tells where nothing changes."""
LATELY_S = 3 * REPORT_S
LONGEST_REASON = 500
MOST_REASONS = 4
RETRY_S = 0.05
"""The longest wait before a record that another pod changed meanwhile is read again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PodReport:
    """What one pod says. `serving` is "" where nothing serves; `could_not`: {version: why}; `canary`: it serves the
    canary in the live version's place, while there is one."""

    pod: str
    serving: str = ""
    state: str = ""
    could_not: dict[str, str] = field(default_factory=dict)
    canary: bool = False
    told_ms: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """Of the pods that told something lately: how many, how many serve the version, how many could not."""

    pods: int
    serve: int
    could_not: int

    def fails(self, quorum: float) -> bool:
        """Whether the version fails for all: more than that share of the pods could not serve it."""
        return self.could_not > quorum * self.pods


def pod_name(state: Path) -> str:
    """This pod's name: the machine's (Kubernetes: the pod's), and a digest of the state folder, which no two share."""
    digest = hashlib.sha256(str(state.resolve()).encode()).hexdigest()[:8]
    return f"{re.sub(r'[^A-Za-z0-9.-]', '-', socket.gethostname())[:63]}-{digest}"


def shard(pod: str) -> str:
    """The record that the pod writes into."""
    return f"pods/{int(hashlib.sha256(pod.encode()).hexdigest(), 16) % SHARDS:02d}"


def tell(store: VersionStore, report: PodReport) -> int:
    """Replace what the pod said before; about how many pods there are. Raises OSError or FileDamaged."""
    key = shard(report.pod)
    brief = {version: why[:LONGEST_REASON] for version, why in [*report.could_not.items()][-MOST_REASONS:]}
    while True:
        before = store.read(key)
        report = replace(report, could_not=brief, told_ms=now_ms())
        told = {other.pod: other for other in _parse(before) if _lately(other)} | {report.pod: report}
        after = json.dumps({pod: _values(each) for pod, each in sorted(told.items())})
        if store.replace(key, after, expected=before):
            return len(told) if len(told) == 1 else len(told) * SHARDS
        time.sleep(random.uniform(0, RETRY_S))


def reports(store: VersionStore) -> list[PodReport]:
    """Of all pods that told something lately, by name. Raises OSError."""
    told: list[PodReport] = []
    for number in range(SHARDS):
        try:
            told += _parse(store.read(f"pods/{number:02d}"))
        except FileDamaged:  # those pods are not counted until it is readable again
            continue
    return sorted((each for each in told if _lately(each)), key=lambda each: each.pod)


def tally(told: Iterable[PodReport], version: str) -> Tally:
    """How the pods fare with the version."""
    told = list(told)
    return Tally(
        pods=len(told),
        serve=sum(each.serving == version for each in told),
        could_not=sum(version in each.could_not for each in told),
    )


def _lately(report: PodReport) -> bool:
    return abs(now_ms() - report.told_ms) <= LATELY_S * 1000


def _values(report: PodReport) -> dict[str, object]:
    values = asdict(report)
    del values["pod"]
    return values


def _parse(record: str | None) -> list[PodReport]:
    """What stands in a record; what is no report is left out, for a later release may say more or other things."""
    try:
        values = json.loads(record or "{}")
    except ValueError:
        return []
    if not isinstance(values, dict):
        return []
    return [report for pod, said in values.items() if (report := _report(pod, said)) is not None]


def _report(pod: str, said: object) -> PodReport | None:
    if not isinstance(said, dict):
        return None
    serving, state, could_not, told_ms = (said.get(name) for name in ("serving", "state", "could_not", "told_ms"))
    if not (isinstance(serving, str) and isinstance(state, str) and isinstance(told_ms, int)):
        return None
    if not (isinstance(could_not, dict) and all(isinstance(why, str) for why in could_not.values())):
        return None
    canary = said.get("canary") is True  # an earlier release does not say
    return PodReport(pod=pod, serving=serving, state=state, could_not=could_not, canary=canary, told_ms=told_ms)
