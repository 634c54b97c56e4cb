"""Does the candidate lose to the live version by a reward model that it never learned from?

That one has learned from votes of its own, of other conversations. Where it orders held-out votes no better than
chance it has nothing to say, and says so: `held_back_knows` is 0, and the other checks decide. With `required` the
policy does not learn until then.
"""

import statistics
from typing import ClassVar

from pydantic import Field

from rlhf_online.config import Only
from rlhf_online.gate.check import Check, Evidence, Finding
from rlhf_online.gate.win_rate import wins
from rlhf_online.intervals import share


class HeldBackCheck(Check):
    only_with: ClassVar = dict.fromkeys(("trunk", "min_win_rate", "required"), Only("share", above=0))

    share: float = Field(
        default=0.2,
        ge=0,
        lt=1,
        description="Share of the conversations whose votes teach the held-back reward model, and not the policy's; 0: "
        "there is none, and candidates are judged by the reward model that they learned from alone.",
    )
    trunk: str = Field(
        default="",
        description="Folder of the model that its trunk begins as, of the same tokenizer; that of the policy's reward "
        "model by default.",
    )
    min_win_rate: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="Share of wins over the live version that the 95 % interval must reach: a candidate of which the "
        "model is not sure is let pass.",
    )
    required: bool = Field(
        default=False,
        description="The policy stays as it is until the held-back model orders more than half of the held-out votes "
        "rightly, by the lower end of the 95 % interval.",
    )

    def examine(self, evidence: Evidence) -> Finding:
        """The interval is Wilson's (1927), at the effective number of samples where a prompt was asked more than once;
        a tie is half a win."""
        if not evidence.held_back_model:
            return Finding(figures={})
        if not evidence.held_back_knows:
            return Finding(figures={"held_back_knows": 0.0})
        ours, theirs, rows = evidence.candidate.held_back, evidence.live.held_back, evidence.usable
        won = share(wins([(ours[row], theirs[row]) for row in rows]), [evidence.prompts[row] for row in rows])
        said = f"{won.value:.2f} (95 %: {won.low:.2f} … {won.high:.2f})"
        objection = f"win rate over the live version by the held-back reward model {said} < {self.min_win_rate:g}"
        return Finding(
            figures={
                "held_back_knows": 1.0,
                "held_back_win_rate": won.value,
                "held_back_win_rate_low": won.low,
                "held_back_win_rate_high": won.high,
                "held_back_score": statistics.fmean(ours[row] for row in rows),
                "held_back_live_score": statistics.fmean(theirs[row] for row in rows),
            },
            objections=(objection,) if won.high < self.min_win_rate else (),
            examples=evidence.worst(lambda row: theirs[row] - ours[row]),
        )
