"""Do the candidate's answers repeat themselves?

Measured as seq-rep-n (Welleck et al. 2020, arXiv 1908.04319): the share of an answer's n-grams of tokens that came
before in it. People's texts have about .01 of it at n = 4, greedy answers that got caught in a loop more than .4.
"""

import statistics

from pydantic import Field

from rlhf_online.gate.check import Check, Evidence, Finding
from rlhf_online.gate.statistics import mean_interval
from rlhf_online.texts.words import repeated_share


class RepetitionCheck(Check):
    n: int = Field(default=3, ge=1, le=8, description="Tokens of what is looked for again in an answer.")
    max_rise: float = Field(
        default=0.1, ge=0, le=1, description="Largest rise of the share of repeated n-grams, of the mean answer."
    )

    def examine(self, evidence: Evidence) -> Finding:
        """Objects where the rise is no chance, too: the 95 % interval of the paired difference lies above 0."""
        ours = [repeated_share(ids, self.n) for ids in evidence.candidate.token_ids]
        theirs = [repeated_share(ids, self.n) for ids in evidence.live.token_ids]
        rise, half = mean_interval([a - b for a, b in zip(ours, theirs, strict=True)])
        above = rise > self.max_rise and rise - half > 0
        objection = f"the share of repeated {self.n}-grams in an answer is {rise:.2f} above the live version's"
        return Finding(
            figures={"repetition": statistics.fmean(ours), "live_repetition": statistics.fmean(theirs)},
            objections=(f"{objection} > {self.max_rise:g}",) if above else (),
            examples=evidence.worst(lambda row: ours[row] - theirs[row]),
        )
