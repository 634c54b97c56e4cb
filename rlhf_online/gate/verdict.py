"""All checks' findings about a candidate, as one verdict."""

from dataclasses import dataclass, field
from typing import Any

from rlhf_online.gate.check import Evidence
from rlhf_online.gate.report import report
from rlhf_online.gate.settings import GateSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """`reasons` says why not, all checks' objections in their order; `figures` is what they measured; `report` is for
    people (`report.report`)."""

    passed: bool
    reasons: tuple[str, ...]
    figures: dict[str, float]
    report: dict[str, Any] = field(default_factory=dict)


def judge(evidence: Evidence, settings: GateSettings) -> Verdict:
    """Passed if no check objects. Nothing to compare is no pass."""
    samples = len(evidence.score_pairs())
    figures: dict[str, float] = {"kl": evidence.kl, "samples": samples}
    if not samples:
        return Verdict(passed=False, reasons=("no answers to compare with the live version's",), figures=figures)
    findings = {name: check.examine(evidence) for name, check in settings.named.items()}
    for finding in findings.values():
        figures |= finding.figures
    reasons = tuple(reason for finding in findings.values() for reason in finding.objections)
    return Verdict(
        passed=not reasons,
        reasons=reasons,
        figures=figures,
        report=report(evidence, settings.named, findings),
    )
