"""From what was recorded to the report's numbers: pure functions, and the printed summary.

The latency of a vote runs from its acknowledgement to the first answer by a version that learned from it: one whose
manifest's log position covers the vote's own. Percentiles are nearest-rank.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rlhf_online.eventlog.base import has_reached
from rlhf_online.simulation.client import Ack
from rlhf_online.simulation.traffic import Measurement, Records

EXPECTED_GAIN, EXPECTED_SWAPS, EXPECTED_LIVE_S = 0.30, 5, 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionFacts:
    """A policy version as the registry has it at the end."""

    version: str
    state: str
    reason: str
    kl: float
    gate: dict[str, Any]
    position: dict[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class VoteCounts:
    """What became of every acknowledged vote. `trained_ids` are those that a reward update took."""

    accepted: int
    trained: int
    held_out: int
    pending: int
    orphaned: int
    dead_lettered: int
    withdrawn: int
    erased: int
    trained_twice: int
    trained_ids: frozenset[str] = frozenset()

    @property
    def balanced(self) -> bool:
        aside = self.orphaned + self.dead_lettered + self.withdrawn + self.erased
        return self.accepted == self.trained + self.held_out + self.pending + aside


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """Everything that a report is made of."""

    seed: int
    votes: str
    wall_s: float
    first: Measurement
    last: Measurement
    records: Records
    versions: Sequence[VersionFacts]
    swap_pauses_s: Sequence[float]
    vote_counts: VoteCounts
    restarts: dict[str, Any] = field(default_factory=dict)
    steps_s: dict[str, float] = field(default_factory=dict)
    history: Sequence[Mapping[str, Any]] = ()
    """The trainer's cycles."""


def numbers(run: Run) -> dict[str, Any]:
    """The content of report.json."""
    records, vote_counts = run.records, run.vote_counts
    latencies = feedback_to_live(
        [ack for event_id, ack in records.acks.items() if event_id in vote_counts.trained_ids],
        {facts.version: facts.position for facts in run.versions},
        records.first_answer,
    )
    return {
        "seed": run.seed,
        "votes": run.votes,
        "wall_s": round(run.wall_s, 1),
        "steps_s": {title: round(seconds, 1) for title, seconds in run.steps_s.items()},
        "true_reward": {
            "first": round(run.first.mean, 4),
            "last": round(run.last.mean, 4),
            "stderr": round(run.last.stderr, 4),
            "first_stderr": round(run.first.stderr, 4),
            "n": run.last.n,
        },
        "versions": [_version(facts, records) for facts in run.versions],
        "requests": records.traffic.requests,
        "failed_requests": records.traffic.failed_requests,
        "failures": dict(records.traffic.failures),
        "feedback_retries": records.traffic.feedback_retries,
        "answers": records.answers,
        "answers_across_swaps": records.across_swaps,
        "swaps": len(run.swap_pauses_s),
        "swap_pause_s": percentiles(run.swap_pauses_s),
        "feedback_to_live_s": percentiles(latencies) | {"n": len(latencies)},
        "events": {
            "accepted": vote_counts.accepted,
            "trained": vote_counts.trained,
            "held_out": vote_counts.held_out,
            "pending": vote_counts.pending,
            "orphaned": vote_counts.orphaned,
            "dead_lettered": vote_counts.dead_lettered,
            "withdrawn": vote_counts.withdrawn,
            "erased": vote_counts.erased,
        },
        "trained_twice": vote_counts.trained_twice,
        "restarts": run.restarts,
    }


def _version(facts: VersionFacts, records: Records) -> dict[str, Any]:
    rewards = records.by_version.get(facts.version)
    return {
        "id": facts.version,
        "true_reward": round(rewards.mean, 4) if rewards else None,
        "stderr": round(rewards.stderr, 4) if rewards else None,
        "n": rewards.n if rewards else 0,
        "kl": round(facts.kl, 4),
        "gate": facts.gate,
        "state": facts.state,
        "reason": facts.reason,
    }


def feedback_to_live(
    acks: Iterable[Ack], positions: Mapping[str, Mapping[str, int]], first_answer: Mapping[str, float]
) -> list[float]:
    """Seconds from each acknowledgement to the first answer by a version whose position covers it.

    Votes that no version with an answer covers are left out.
    """
    served = [(first_answer[version], position) for version, position in positions.items() if version in first_answer]
    latencies = []
    for ack in acks:
        times = [at for at, position in served if has_reached(position, ack.position)]
        if times:
            latencies.append(max(0.0, min(times) - ack.at))
    return latencies


def percentiles(values: Sequence[float]) -> dict[str, float | None]:
    """p50 and p99 by nearest rank; None of nothing."""
    return {f"p{p}": percentile(values, p) for p in (50, 99)}


def percentile(values: Sequence[float], p: float) -> float | None:
    """The smallest value that at least p % of the values do not exceed."""
    if not values:
        return None
    return round(sorted(values)[max(1, math.ceil(len(values) * p / 100)) - 1], 4)


def expectations(report: Mapping[str, Any], *, chaos: bool = False) -> list[tuple[str, bool]]:
    """What a run must show, and whether it did. Under chaos the engine dies with answers in flight."""
    reward, events = report["true_reward"], report["events"]
    gain = reward["last"] - reward["first"]
    checks = {
        "people": (f"true reward {gain:+.3f} (≥ +{EXPECTED_GAIN})", gain >= EXPECTED_GAIN),
        "random": (f"true reward {gain:+.3f} (≤ +.05: nothing to learn from random votes)", gain <= 0.05),
        "inverted": (f"true reward {gain:+.3f} (< 0: inverted votes)", gain < 0),
    }
    live = report["feedback_to_live_s"]["p50"]
    total = sum(count for name, count in events.items() if name != "accepted")
    rest = [
        (f"answers measured {reward['n']} (≥ 1000)", reward["n"] >= 1000),
        (
            f"failed requests {report['failed_requests']} ({'the engine was killed: not judged' if chaos else '0'})",
            chaos or report["failed_requests"] == 0,
        ),
        (f"accepted {events['accepted']} = {total}, the sum of the others", events["accepted"] == total),
        (f"trained twice {report['trained_twice']} (0)", report["trained_twice"] == 0),
    ]
    if report["votes"] == "people":
        rest += [
            (f"swaps under traffic {report['swaps']} (≥ {EXPECTED_SWAPS})", report["swaps"] >= EXPECTED_SWAPS),
            (f"click → live p50 {live} s (≤ {EXPECTED_LIVE_S:.0f})", live is not None and live <= EXPECTED_LIVE_S),
        ]
    return [checks[report["votes"]], *rest]


def summary(report: Mapping[str, Any], *, chaos: bool = False) -> str:
    """The report in a few lines for a terminal."""
    reward, pause, live = report["true_reward"], report["swap_pause_s"], report["feedback_to_live_s"]
    lines = [
        f"true reward on held-out prompts  {reward['first']:+.3f} ± {reward['first_stderr']:.3f}  →  "
        f"{reward['last']:+.3f} ± {reward['stderr']:.3f}   (n = {reward['n']} answers each)",
        f"versions {len(report['versions'])} · swaps {report['swaps']}, pause p50 {_s(pause['p50'])} p99 "
        f"{_s(pause['p99'])} · click → live p50 {_s(live['p50'])} p99 {_s(live['p99'])}",
        f"requests {report['requests']}, failed {report['failed_requests']} · answers {report['answers']}, "
        f"{report['answers_across_swaps']} written across a swap",
        "votes "
        + " · ".join(f"{name.replace('_', '-')} {count}" for name, count in report["events"].items())
        + f" · trained twice {report['trained_twice']}",
    ]
    if report["restarts"]:
        lines.append("killed on purpose: " + ", ".join(f"{name} {what}" for name, what in report["restarts"].items()))
    lines += [f"  {'✓' if passed else '✗'} {text}" for text, passed in expectations(report, chaos=chaos)]
    lines.append(f"wall {report['wall_s']:.0f} s, seed {report['seed']}, votes {report['votes']}")
    return "\n".join(lines)


def _s(seconds: float | None) -> str:
    return "–" if seconds is None else f"{seconds:.2f} s"
