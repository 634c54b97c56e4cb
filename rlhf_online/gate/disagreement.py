"""Do the heads of the reward model disagree about the candidate's answers more than about the live version's?

They have read different votes, and agree where votes have spoken: answers on which they part are such as nobody has
judged, where a score is a guess and a policy that seeks high ones finds errors (Coste et al. 2023, arXiv 2310.02743).
"""

import statistics

from pydantic import Field

from rlhf_online.gate.check import Check, Evidence, Finding


class DisagreementCheck(Check):
    max_ratio: float = Field(
        default=2.0,
        gt=0,
        description="Largest mean spread of an answer's score over the heads, relative to the live version's answers.",
    )

    def examine(self, evidence: Evidence) -> Finding:
        """Says nothing of a model of one head, which agrees with itself; objects to a ratio that is no number, too."""
        rows = evidence.usable
        spread = statistics.fmean(evidence.candidate.spreads[row] for row in rows)
        live = statistics.fmean(evidence.live.spreads[row] for row in rows)
        if not live:
            return Finding(figures={})
        ratio = spread / live
        objection = (
            f"the reward model's heads disagree {ratio:.2f} times as much about its answers as about the live "
            f"version's > {self.max_ratio:g}"
        )
        return Finding(
            figures={"spread": spread, "live_spread": live, "spread_ratio": ratio},
            objections=() if ratio <= self.max_ratio else (objection,),
            examples=evidence.worst(lambda row: evidence.candidate.spreads[row]),
        )
