"""A share of answers that must not rise: how the checks of single answers compare two versions. Pure."""

from collections.abc import Sequence

from rlhf_online.gate.check import Evidence, Finding
from rlhf_online.gate.statistics import rises


def share_finding(
    name: str, what: str, ours: Sequence[bool], theirs: Sequence[bool], max_rise: float, evidence: Evidence
) -> Finding:
    """Of the candidate's answers and the live version's: whether each is `what`. Objects to a share that is more than
    `max_rise` above the live version's, and not by chance (`statistics.rises`)."""
    share, live = sum(ours) / max(1, len(ours)), sum(theirs) / max(1, len(theirs))
    above = rises((sum(ours), len(ours)), (sum(theirs), len(theirs)), max_rise)
    objection = f"{share:.0%} of the answers are {what}, {live:.0%} of the live version's: over {max_rise:.0%} more"
    return Finding(
        figures={name: share, f"live_{name}": live},
        objections=(objection,) if above else (),
        examples=evidence.worst(lambda row: ours[row] - theirs[row] if ours[row] else float("nan")),
    )
