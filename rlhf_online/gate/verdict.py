"""All checks' findings about a candidate, as one verdict."""

from dataclasses import dataclass

from rlhf_online.gate.check import Evidence
from rlhf_online.gate.settings import GateSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """`reasons` says why not, all checks' objections in their order; `figures` is what they measured."""

    passed: bool
    reasons: tuple[str, ...]
    figures: dict[str, float]


def judge(evidence: Evidence, settings: GateSettings) -> Verdict:
    """Passed if no check objects. Nothing to compare is no pass."""
    samples = len(evidence.score_pairs())
    figures: dict[str, float] = {"kl": evidence.kl, "samples": samples}
    if not samples:
        return Verdict(passed=False, reasons=("no answers to compare with the live version's",), figures=figures)
    findings = [check.examine(evidence) for check in settings.checks]
    for finding in findings:
        figures |= finding.figures
    reasons = tuple(reason for finding in findings for reason in finding.objections)
    return Verdict(passed=not reasons, reasons=reasons, figures=figures)
