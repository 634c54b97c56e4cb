"""What follows from what people said of a canary. Pure.

In this order:

    a guardrail is broken                         take back    its share of the canary's answers is above its bound
    people prefer the live version                take back
    people prefer the candidate, at the last step promote
    enough answers at this step, not the last     go on to the next one
    too many people, or too long                  take back    nothing was shown, and the learner waits
    else                                          hold

"People prefer" and "is above its bound" mean that somebody who bet against it has made 1/α out of 1 (`betting`): so
each is wrong in at most a share α of the canaries, however often one looks. The evidence of pairs and that of thumbs
are of different people, and multiply. A guardrail whose bets begin anew at each of S steps has to make S/α.

A step is a matter of exposure, not of proof: what breaks under load shows before everybody has it. The proof must be
there before the candidate becomes the live version, which is its share of 100 %.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from rlhf_online.canary.betting import confidence_sequence, log_capital, mirrored
from rlhf_online.canary.record import Canary
from rlhf_online.canary.settings import CanarySettings
from rlhf_online.canary.tally import BY_STEP, GUARDS, Tally

Action = Literal["hold", "advance", "promote", "take back"]
HOUR_MS = 3_600_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """`reason`: for people."""

    action: Action
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What is known of a canary. `better` and `worse` are ln of the evidence that people prefer the candidate, or the
    live version; `preference` is the 95 % confidence sequence of the mean over people, ½ where they find no difference:
    of pairs if there are any, else of thumbs. `shares`: of each guardrail, None before there is anything to count.
    """

    people: int
    better: float
    worse: float
    preference: tuple[float, float]
    shares: Mapping[str, float | None]

    def to_json(self) -> dict[str, Any]:
        return {
            "people": self.people,
            "better": math.exp(min(self.better, 700.0)),
            "worse": math.exp(min(self.worse, 700.0)),
            "preference_low": self.preference[0],
            "preference_high": self.preference[1],
            **{f"{name}_share": share for name, share in self.shares.items()},
        }


def evidence(tally: Tally) -> Evidence:
    """What the tally says."""
    said = (tally.people.pairs.outcomes, tally.people.thumbs)
    return Evidence(
        people=len(tally.people),
        better=sum(map(log_capital, said)),
        worse=sum(log_capital(mirrored(outcomes)) for outcomes in said),
        preference=confidence_sequence(said[0] or said[1]),
        shares={name: _mean(tally.guards[name].outcomes) for name in GUARDS},
    )


def decide(tally: Tally, canary: Canary, settings: CanarySettings, now_ms: int) -> Decision:
    """What to do with the canary now. The same tally, canary, settings and time give the same decision."""
    limit, found = math.log(1 / settings.alpha), evidence(tally)
    for name in GUARDS:
        bound = getattr(settings.guardrails, name)
        anew = math.log(len(canary.steps)) if name in BY_STEP else 0.0
        if log_capital(tally.guards[name].outcomes, bound) >= limit + anew:
            share = found.shares[name] or 0.0
            return Decision(action="take back", reason=f"{name}: {share:.1%} of its answers, {bound:.1%} are allowed")
    told = f"{found.people} people, evidence {math.exp(min(found.better, 700.0)):.3g} of {1 / settings.alpha:.3g}"
    if found.worse >= limit:
        return Decision(action="take back", reason=f"people prefer {canary.live} ({found.people} people)")
    last = canary.step == len(canary.steps) - 1
    enough = tally.answers >= settings.min_answers
    if found.better >= limit and last and enough:
        return Decision(action="promote", reason=f"people prefer it: {told}")
    if enough and not last:
        reason = f"{tally.answers} answers at {canary.share:.0%} of the conversations and nothing wrong; {told}"
        return Decision(action="advance", reason=reason)
    if found.better < limit:
        if found.people >= settings.max_people:
            return Decision(action="take back", reason=f"not shown to be better than {canary.live}: {told}")
        if now_ms - canary.began_ms >= settings.max_hours * HOUR_MS:
            reason = f"not shown to be better than {canary.live} in {settings.max_hours:g} hours: {told}"
            return Decision(action="take back", reason=reason)
    return Decision(
        action="hold",
        reason=f"{canary.version} answers {canary.share:.0%} of the conversations: {told}, "
        f"{tally.answers} of {settings.min_answers} answers at this step",
    )


def _mean(outcomes: Mapping[float, int]) -> float | None:
    count = sum(outcomes.values())
    return sum(x * n for x, n in outcomes.items()) / count if count else None
