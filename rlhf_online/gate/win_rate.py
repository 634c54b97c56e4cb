"""Does the candidate lose to the live version, by the reward model that it learned from?

A win is a higher score on the same prompt; a tie is half a win. Pairs with a score that is not finite are left out.
"""

import math
import statistics
from collections.abc import Sequence

from pydantic import Field

from rlhf_online.gate.check import Check, Evidence, Finding


class WinRateCheck(Check):
    min: float = Field(default=0.45, ge=0, le=1, description="Least share of wins over the live version.")

    def examine(self, evidence: Evidence) -> Finding:
        pairs = evidence.score_pairs()
        won = wins(pairs)
        rate = statistics.fmean(won)
        figures = {
            "win_rate": rate,
            "win_rate_stderr": _stderr(won),
            "score": statistics.fmean(ours for ours, _ in pairs),
            "live_score": statistics.fmean(theirs for _, theirs in pairs),
        }
        low = rate < self.min
        return Finding(
            figures=figures,
            objections=(f"win rate over the live version {rate:.2f} < {self.min:g}",) if low else (),
            examples=evidence.worst(lambda row: evidence.live.scores[row] - evidence.candidate.scores[row]),
        )


def wins(pairs: Sequence[tuple[float, float]]) -> list[float]:
    """Of each (candidate's, live version's) score: 1 for a win, ½ for a tie, 0 for a loss."""
    return [1.0 if ours > theirs else 0.5 if ours == theirs else 0.0 for ours, theirs in pairs]


def _stderr(values: Sequence[float]) -> float:
    return statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else 0.5
