"""What metrics say of votes that are joined, of updates and their answers, of the gate's verdict and of the canary.

Nothing here decides anything.
"""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence

from rlhf_online.canary.decision import Evidence
from rlhf_online.canary.record import Canary
from rlhf_online.metrics import show_version
from rlhf_online.metrics.labels import ADVANTAGE, GATE_FIGURE, LAG
from rlhf_online.metrics.trainer import CanaryMetrics, GateMetrics, MismatchMetrics, PolicyMetrics
from rlhf_online.rollout.types import ScoredRollout
from rlhf_online.training.policy import mismatch
from rlhf_online.training.policy.mismatch import Mismatch
from rlhf_online.training.policy_update import PolicyReport
from rlhf_online.training.progress import JudgedVersion
from rlhf_online.training.reporter import Reporter
from rlhf_online.versions.manifest import kind_of


def show_joined(reporter: Reporter, created_ms: Sequence[int]) -> None:
    """Votes that were joined with their answers, by when they were given."""
    reporter.metrics.intake.joins.inc(len(created_ms))
    reporter.clicks.joined(created_ms)


def show_answers(
    reporter: Reporter, scored: Sequence[ScoredRollout], spreads: Sequence[float], staleness: Mapping[str, int]
) -> None:
    """The answers of a cycle: scores, how far the ensemble's members are apart, versions promoted since by those that
    wrote them."""
    reporter.clicks.scored()
    reporter.metrics.reward_model.psi.set(reporter.drift.add(item.score for item in scored))
    if spreads:
        reporter.metrics.reward_model.spread.set(sum(spreads) / len(spreads))
    for item in scored:
        reporter.metrics.policy.staleness.observe(staleness[item.rollout.policy_version])


def show_update(metrics: PolicyMetrics, report: PolicyReport) -> None:
    """An update, kept or not; NaN for what its algorithm has not, or what was not come to."""
    outcome = "undone" if report.undone else "kept" if report.rollouts else "skipped"
    metrics.updates.labels(report.algorithm, outcome).inc()
    metrics.answers.set(report.rollouts)
    if outcome == "skipped":
        return
    metrics.step_kl.set(report.step_kl)
    metrics.reward.set(report.score)
    metrics.kl_coef.set(report.kl_coef)
    metrics.behaviour_k3.set(report.behaviour_k3)
    metrics.entropy.set(report.sampling_entropy)
    for gauge, name in (
        (metrics.loss, "policy_loss"),
        (metrics.clip_fraction, "clip_fraction"),
        (metrics.grad_norm, "grad_norm"),
        *((metrics.advantage.labels(figure), f"advantage_{figure}") for figure in ADVANTAGE.values),
    ):
        gauge.set(report.stats.get(name, math.nan))


def show_mismatch(metrics: MismatchMetrics, report: PolicyReport, staleness: Mapping[str, int]) -> None:
    """Of an update that had answers; `staleness` is how many versions were promoted since each that wrote some."""
    if not report.rollouts:
        return
    by_lag: defaultdict[str, list[Mismatch]] = defaultdict(list)
    for version, found in report.mismatch.items():
        by_lag[LAG.values[min(staleness[version], len(LAG.values) - 1)]].append(found)
    for lag in LAG.values:
        whole = mismatch.together(by_lag[lag])
        metrics.k3.labels(lag).set(math.nan if whole is None else whole.k3)
        metrics.outside.labels(lag).set(math.nan if whole is None else whole.outside)


def count_verdict(metrics: GateMetrics, judged: JudgedVersion) -> None:
    """A candidate before the gate, everybody's or an audience's."""
    kind = kind_of(judged.version)
    metrics.candidates.labels(kind, "passed" if judged.passed else "rejected").inc()
    for check in judged.report.get("checks", ()):
        metrics.verdicts.labels(kind, check["name"], "passed" if check["passed"] else "objected").inc()


def show_verdict(metrics: GateMetrics, judged: JudgedVersion) -> None:
    """Everybody's candidate before the gate, and what it was measured by."""
    count_verdict(metrics, judged)
    metrics.win_rate.set(judged.figures.get("win_rate", 0.0))
    metrics.proxy_gap.set(judged.figures.get("proxy_gap", math.nan))
    for name in GATE_FIGURE.values:
        metrics.figure.labels(name).set(judged.figures.get(name, math.nan))


def show_canary(metrics: CanaryMetrics, canary: Canary, found: Evidence, answers: int) -> None:
    """The canary that is under way, and what is known of it."""
    show_version(metrics.version, canary.version, canary.live)
    told = found.to_json()
    metrics.began.set(canary.began_ms / 1000)
    metrics.share.set(canary.share)
    metrics.answers.set(answers)
    metrics.people.set(found.people)
    for side in ("better", "worse"):
        metrics.evidence.labels(side).set(told[side])
    for end, value in zip(("low", "high"), found.preference, strict=True):
        metrics.preference.labels(end).set(value)
    for name, share in found.shares.items():
        metrics.guardrail.labels(name).set(math.nan if share is None else share)


def show_no_canary(metrics: CanaryMetrics) -> None:
    """There is none, or none any more."""
    show_version(metrics.version)
    for gauge in (metrics.began, metrics.share, metrics.answers, metrics.people):
        gauge.set(0)
    for gauge in (metrics.evidence, metrics.preference, metrics.guardrail):
        gauge.clear()
