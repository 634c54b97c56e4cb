"""What the reporter is told of a trainer's state and of each cycle's end. Nothing here decides anything."""

from collections import Counter
from typing import Any

from rlhf_online.training.parts import TrainerParts
from rlhf_online.training.policy_update import PolicyReport
from rlhf_online.training.progress import JudgedVersion, Progress
from rlhf_online.training.update_metrics import show_verdict

GATE = ("gate", "held_back")
"""The phases that there would be none of without the gate."""


def show(parts: TrainerParts, progress: Progress) -> None:
    """Counts of votes and answers, and the versions in memory."""
    counts, reporter = parts.ledger.counts(), parts.reporter
    votes = {name: counts[name] for name in counts if name != "rollout"}
    reporter.votes(votes | {"pending": parts.intake.pending})
    reporter.dead_letters(parts.intake.dead_letters.counts)
    left_out = Counter(parts.intake.policy_inputs.buffer.left_out)
    left_out.update(parts.intake.policy_inputs.left_out)
    left_out.update(progress.left_out)
    reporter.left_out(left_out)
    reporter.versions(progress.policy_version, progress.reward_version)
    reporter.set(cycle=progress.cycle)


def end_cycle(parts: TrainerParts, progress: Progress, outcome: str, **facts: object) -> None:
    """A cycle ended; see `Reporter.cycle` for the outcomes."""
    show(parts, progress)
    common = {"cycle": progress.cycle, "reward_version": progress.reward_version, "position": progress.position}
    parts.reporter.cycle(outcome, **{**common, "reward_accuracy": parts.reporter.accuracy, **facts})


def end_published_cycle(
    parts: TrainerParts, progress: Progress, outcome: str, judged: JudgedVersion, report: PolicyReport
) -> None:
    """A cycle ended with a version, promoted or rejected."""
    metrics = parts.reporter.metrics
    metrics.policy.kl.set(judged.kl)
    show_verdict(metrics.gate, judged)
    if judged.passed:
        parts.reporter.clicks.gated()
    seconds = parts.reporter.seconds
    gate_share = sum(seconds.get(name, 0.0) for name in GATE) / (sum(seconds.values()) or 1.0)
    metrics.gate.share.set(gate_share)
    if outcome == "promoted":
        parts.reporter.set(kl=judged.kl)
    details = update_facts(report) | {
        "kl": judged.kl,
        "gate": judged.figures,
        "win_rate": judged.figures.get("win_rate"),
        "gate_share": round(gate_share, 4),
    }
    end_cycle(parts, progress, outcome, policy_version=judged.version, reasons=list(judged.reasons), **details)


def update_facts(report: PolicyReport) -> dict[str, Any]:
    """A policy update, for the history in the status file."""
    return report.stats | {
        "algorithm": report.algorithm,
        "kl_before": report.kl,
        "kl_coef": report.kl_coef,
        "step_kl": report.step_kl,
        "score": report.score,
        "length": report.length,
        "behaviour_k3": report.behaviour_k3,
        "rollouts": report.rollouts,
    }
