"""Has the candidate drifted from the reference?"""

from pydantic import Field

from rlhf_online.gate.check import Check, Evidence, Finding


class KlCheck(Check):
    max: float = Field(default=12.0, gt=0, description="Largest KL to the reference, nats an answer.")

    def examine(self, evidence: Evidence) -> Finding:
        """Objects to a KL that is not a number, too."""
        kl = evidence.kl
        objections = () if kl <= self.max else (f"KL to the reference {kl:.2f} > {self.max:g} nats an answer",)
        return Finding(figures={"kl": kl}, objections=objections)
