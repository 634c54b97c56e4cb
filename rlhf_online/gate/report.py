"""What the gate found of a candidate, for people: as JSON, kept with the version (`versions.reports`).

    passed, samples
    checks      of each: name, passed, figures, limits, objections, notes, rows (a table), and as
                examples, worst first, places in the list of
    examples    of each: prompt, live, candidate, live_score, score, origin, owners

Its size is bounded: EXAMPLES a check, TEXT characters of each text. `origin` is whose conversation a prompt stems from,
and `owners` names the person, so that erasing either takes the example away.
"""

import math
from collections.abc import Mapping
from typing import Any

from rlhf_online.gate.check import Check, Evidence, Finding

TEXT = 600
"""Characters of a prompt, its end, and of an answer, its beginning."""


def report(evidence: Evidence, checks: Mapping[str, Check], findings: Mapping[str, Finding]) -> dict[str, Any]:
    """Of all checks, in their order."""
    shown = list(dict.fromkeys(row for finding in findings.values() for row in finding.examples))
    return {
        "passed": not any(finding.objections for finding in findings.values()),
        "samples": len(evidence.prompts),
        "checks": [
            {
                "name": name,
                "passed": not finding.objections,
                "figures": _numbers(finding.figures),
                "limits": _numbers({limit: value for limit, value in checks[name] if isinstance(value, int | float)}),
                "objections": list(finding.objections),
                "notes": list(finding.notes),
                "rows": [_numbers(row) for row in finding.rows],
                "examples": [shown.index(row) for row in finding.examples],
            }
            for name, finding in findings.items()
        ],
        "examples": [_example(evidence, row) for row in shown],
    }


def _example(evidence: Evidence, row: int) -> dict[str, Any]:
    ours, theirs = evidence.candidate, evidence.live
    return {
        "prompt": _end(evidence.prompt_texts[row]),
        "live": _beginning(theirs.texts[row]),
        "candidate": _beginning(ours.texts[row]),
        **_numbers({"live_score": theirs.scores[row], "score": ours.scores[row]}),
        "origin": evidence.origins[row] if evidence.origins else "",
        "owners": [evidence.people[row]] if evidence.people and evidence.people[row] else [],
    }


def _numbers(values: Mapping[str, Any]) -> dict[str, Any]:
    """None for what is no finite number: JSON knows no other."""
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in values.items()
    }


def _beginning(text: str) -> str:
    return text if len(text) <= TEXT else text[:TEXT] + " …"


def _end(text: str) -> str:
    return text if len(text) <= TEXT else "… " + text[-TEXT:]
