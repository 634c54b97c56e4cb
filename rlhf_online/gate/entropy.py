"""Does the candidate become too sure of one answer, or lose its way?

Measured as the mean of −log p of the tokens that a version wrote itself, which estimates its entropy, nats a token.
"""

import math
import statistics
from collections.abc import Sequence

from pydantic import Field

from rlhf_online.gate.check import Check, Evidence, Finding


class EntropyCheck(Check):
    min_ratio: float = Field(default=0.25, ge=0, description="Least entropy a token, relative to the live version's.")
    max_ratio: float = Field(default=2.0, gt=0, description="Largest entropy a token, relative to the live version's.")
    floor: float = Field(
        default=0.02, gt=0, description="Entropies below this, in nats a token, count as this: both are sure then."
    )

    def examine(self, evidence: Evidence) -> Finding:
        entropy, live = _entropy(evidence.candidate.logprobs), _entropy(evidence.live.logprobs)
        ratio = max(entropy, self.floor) / max(live, self.floor)
        limit = f"< {self.min_ratio:g}" if ratio < self.min_ratio else f"> {self.max_ratio:g}"
        objection = f"entropy {entropy:.3f} nats a token, {ratio:.2f} times the live version's {limit}"
        sign = 1 if ratio < 1 else -1
        return Finding(
            figures={"entropy": entropy, "live_entropy": live},
            objections=() if self.min_ratio <= ratio <= self.max_ratio else (objection,),
            examples=evidence.worst(lambda row: sign * evidence.candidate.logprobs[row]),
        )


def _entropy(logprobs: Sequence[float]) -> float:
    known = [-value for value in logprobs if math.isfinite(value)]
    return statistics.fmean(known) if known else 0.0
