"""Do the candidate's answers run away in length, or shrink to nothing?"""

import statistics

from pydantic import Field

from rlhf_online.gate.check import Check, Evidence, Finding


class LengthCheck(Check):
    max_ratio: float = Field(default=1.5, gt=0, description="Longest mean answer, relative to the live version's.")
    min_ratio: float = Field(default=0.3, ge=0, description="Shortest mean answer, relative to the live version's.")

    def examine(self, evidence: Evidence) -> Finding:
        ours, theirs = evidence.candidate.lengths, evidence.live.lengths
        length, live = statistics.fmean(ours), statistics.fmean(theirs)
        ratio = length / max(1.0, live)
        figures = {"length": length, "live_length": live, "length_ratio": ratio}
        relation = (
            f"> {self.max_ratio:g}"
            if ratio > self.max_ratio
            else f"< {self.min_ratio:g}"
            if ratio < self.min_ratio
            else ""
        )
        objection = f"answers {ratio:.2f} times as long as the live version's {relation}"
        sign = 1 if ratio > 1 else -1
        return Finding(
            figures=figures,
            objections=(objection,) if relation else (),
            examples=evidence.worst(lambda row: sign * (ours[row] - theirs[row])),
        )
