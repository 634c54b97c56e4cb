"""Do the candidate's answers become all alike?

Measured as distinct-n (Li et al. 2016, arXiv 1510.03055): different n-grams of tokens over all answers, a share of all
n-grams. It falls as their number grows, so that both versions' are counted to the same number.
"""

from pydantic import Field

from rlhf_online.gate.check import Check, Evidence, Finding
from rlhf_online.texts.words import distinct, ngrams


class DistinctCheck(Check):
    n: int = Field(default=2, ge=1, le=8, description="Tokens of what is counted.")
    min_ratio: float = Field(
        default=0.5, ge=0, description="Least share of different n-grams, relative to the live version's."
    )

    def examine(self, evidence: Evidence) -> Finding:
        ours, theirs = evidence.candidate.token_ids, evidence.live.token_ids
        most = min(sum(len(ngrams(ids, self.n)) for ids in answers) for answers in (ours, theirs))
        share, live = distinct(ours, self.n, most), distinct(theirs, self.n, most)
        low = share < self.min_ratio * live
        objection = f"{share:.2f} of all {self.n}-grams are different, of the live version's {live:.2f}"
        return Finding(
            figures={"distinct": share, "live_distinct": live},
            objections=(f"{objection}: fewer than {self.min_ratio:g} times as many",) if low else (),
            examples=_commonest(evidence),
        )


def _commonest(evidence: Evidence) -> tuple[int, ...]:
    """Prompts whose answers by the candidate stand there most often."""
    answers = list(evidence.candidate.token_ids)
    return evidence.worst(lambda row: float(answers.count(answers[row])))
