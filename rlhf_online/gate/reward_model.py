"""Was the reward model that taught the candidate any good, on votes that it never learned from?

By the ends of 95 % intervals: one that few votes have measured is let pass, since nothing is known against it;
`reward.policy_accuracy` asks for proof before the policy learns.
"""

from pydantic import Field

from rlhf_online.gate.check import Check, Evidence, Finding

MIN_PAIRS = 100
"""Held-out comparisons below which nothing is said of the calibration: sorted into bins, few of them look badly
calibrated whatever the model is (Roelofs et al. 2022, arXiv 2012.08668)."""
FIGURES = ("accuracy", "accuracy_low", "accuracy_high", "ece", "ece_low", "ece_high")


class RewardModelCheck(Check):
    min_accuracy: float = Field(
        default=0.5,
        ge=0,
        lt=1,
        description="Share of held-out comparisons ordered rightly that its 95 % interval must reach.",
    )
    max_ece: float = Field(
        default=0.2,
        gt=0,
        description="Largest expected calibration error, of the probabilities that it gives to comparisons; its 95 % "
        "interval must reach down to it.",
    )

    def examine(self, evidence: Evidence) -> Finding:
        """Says nothing where no comparison was held out yet."""
        found = evidence.reward_model
        if not found.get("accuracy_n"):
            return Finding(figures={})
        accuracy, _, high, ece, low, _ = (found[name] for name in FIGURES)
        objections = []
        if high < self.min_accuracy:
            objections.append(
                f"its reward model orders {accuracy:.2f} of held-out votes rightly < {self.min_accuracy:g}"
            )
        if low > self.max_ece and found["accuracy_n"] >= MIN_PAIRS:
            objections.append(f"its reward model's calibration error on held-out votes {ece:.2f} > {self.max_ece:g}")
        figures = {f"reward_{name}": found[name] for name in FIGURES}
        return Finding(figures=figures, objections=tuple(objections))
