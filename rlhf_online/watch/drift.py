"""Do people judge otherwise than they did? A sequential test of votes that the reward model has not learned from yet.

    vote ─▶ how much worse it was foretold than the model expected ─▶ p, its rank among earlier votes ─▶ bets ─▶ alarm

*Surprise.* Before the model learns from a vote it foretells it. What is compared is the excess: the log loss of what
the person said less what the model expected it to be, its own entropy. An even race is no surprise either way.

*p.* Of each vote, the share of earlier votes of its kind (`Surprise.kind`: objective, thumb or comparison, how sure
the model was) that were at least as surprising; ties are broken at random. So answers that become more alike, or more
thumbs than comparisons, are no drift: the mix of kinds may change, only what people say within a kind may not. These
are the p-values of a Mondrian conformal predictor (Vovk, Gammerman, Shafer 2005, *Algorithmic Learning in a Random
World*, ch. 4): while the excesses of each kind are exchangeable they are independent and uniform on [0, 1].

*Bets.* f(p) = ε p^(ε−1), ε < 1, has mean 1 for a uniform p and wins on small ones (Vovk, Nouretdinov, Gammerman 2003,
"Testing exchangeability on-line"). On a vote by somebody who is believed as far as ρ, which is known before, only that
share of the capital is bet: f_ρ(p) = (1 − ρ) + ρ f(p), of mean 1, too. The Shiryaev–Roberts statistic
R ← (1 + R) f_ρ(p) adds up the capital of bettors of whom one begins at each vote, and so does the mean over several ε
(an e-detector: Shin, Ramdas, Rinaldo 2022, arXiv 2203.03532). A past that begins anew gives uniform p-values anew, and
has a mean of its own.

*False alarms.* R_n − n is a martingale that begins at 0 (Pollak 1985), so that R reaches 3 · LIMIT within n votes with
probability n / (3 · LIMIT) at most (Doob). There are three pasts, whose ranks tell of each other, so that no mean of
theirs is a martingale: their probabilities are added. So an alarm comes in vain within n votes, of the beginning or of
the alarm before, with probability n / LIMIT at most, n = 1, 2, …. The model goes on learning, which is no exchangeable
past; but if the votes of a kind are independent and their excess becomes no larger with time (the quantile functions of
later ones lie nowhere above those of earlier ones), every p is at least what the same draws would give with all of them
alike, every f falls with p, and R is no larger: a model that improves raises no more false alarms. Not covered: a model
that grows worse while people stay as they are, which this calls drift, too; and votes that are not independent, as many
by one person with a taste of their own.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rlhf_online.watch.monitors import UNKNOWN, Reading

LIMIT = 20_000.0
"""Within n votes an alarm comes in vain with probability n / LIMIT at most."""
POWERS = (0.5, 0.65, 0.8, 0.9)
"""The ε that are bet on: drifts that are plain, and slight ones."""
GRID = 64
"""Excesses are rounded to parts of a nat: all that is kept of them is how many there were of each."""
LARGEST = 8.0
"""Nats beyond which one is as surprising as the other."""
LEAST_P = 1e-6
SHOWN = 500
"""Votes for which an alarm stands, so that it is seen."""
PASTS = ((0, 0), (1000, 0), (1000, 500))
"""(length, offset) of the pasts that votes are compared with: all of it, and two that begin anew every thousand votes
by turns, so that a model that foretold badly at first does not excuse for ever what it foretells badly now."""
SURE = (0.1, 0.25, 0.4, 0.55, 0.65)
"""Borders of how sure the model was, by the loss that it expected, nats; a coin toss has ln 2."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Surprise:
    """A vote, as it was foretold. `expected` is the model's own entropy, `loss` that of what was said, nats; both are
    means over the pairs that a comparison orders. `said` is what it is about: its objective, thumb or comparison;
    `believed` is how far who gave it was."""

    said: str
    expected: float
    loss: float
    believed: float = 1.0

    @property
    def kind(self) -> str:
        """What it may be compared with."""
        return f"{self.said}/{sum(self.expected > border for border in SURE)}"

    @property
    def right(self) -> bool:
        """Whether what was said was likelier than by a coin's toss."""
        return self.loss < math.log(2)

    @property
    def excess(self) -> float:
        return self.loss - self.expected


def foretold(said: str, logits: list[float], *, believed: float = 1.0) -> Surprise:
    """Of a vote that says yes to each of these questions, the model's log-odds of a yes: u_better − u_worse of each
    pair that a comparison orders, or ± (u + the rater's bias) of a thumb. One logit or more."""
    losses = [math.log1p(math.exp(-abs(x))) + max(0.0, -x) for x in logits]
    expected = sum(map(_entropy, logits)) / len(logits)
    return Surprise(said=said, expected=expected, loss=sum(losses) / len(losses), believed=believed)


def _entropy(logit: float) -> float:
    """Of a coin with these log-odds, nats."""
    x = abs(logit)
    return math.log1p(math.exp(-x)) + x / (1 + math.exp(min(x, 700.0)))


@dataclass(frozen=True, slots=True)
class Alarm:
    """Preferences have changed: most likely with a vote given at `since_ms`, `votes` votes ago."""

    since_ms: int
    votes: int


@dataclass(slots=True)
class _Bet:
    """Of one ε: the sum R of all bettors' capital; the largest gain of one of them in logs (CUSUM, Page 1954), and
    since which vote and when it has been gaining."""

    total: float = 0.0
    gain: float = 0.0
    begun: int = 0
    begun_ms: int = 0


class _Past:
    """Votes that later ones are ranked among, and what was made of bets on these ranks."""

    def __init__(self) -> None:
        self.counts: dict[str, dict[int, int]] = {}
        """Of each kind how many votes there were of each excess, in parts of a nat."""
        self.bets = [_Bet() for _ in POWERS]

    def observe(self, surprise: Surprise, number: int, at_ms: int, tie: float) -> None:
        p = max(LEAST_P, self._p_value(surprise, tie))
        for power, bet in zip(POWERS, self.bets, strict=True):
            factor = 1.0 + surprise.believed * (power * p ** (power - 1) - 1.0)
            bet.total = (1.0 + bet.total) * factor
            if bet.gain <= 0.0:
                bet.gain, bet.begun, bet.begun_ms = 0.0, number, at_ms
            bet.gain += math.log(factor)

    def _p_value(self, surprise: Surprise, tie: float) -> float:
        """The conformal p-value, (n of the larger + `tie` · n of the equal, itself included) / n of all, with it."""
        seen = self.counts.setdefault(surprise.kind, {})
        own = round(min(surprise.excess, LARGEST) * GRID)
        larger = sum(count for value, count in seen.items() if value > own)
        seen[own] = seen.get(own, 0) + 1
        return (larger + tie * seen[own]) / sum(seen.values())


class DriftDetector:
    """Sees every vote once, in order, before the model learns from it. Begins anew after an alarm."""

    def __init__(self) -> None:
        self.votes = 0
        """Since it began anew."""
        self.raised: Alarm | None = None
        """The last alarm."""
        self._pasts = [_Past() for _ in PASTS]

    @property
    def evidence(self) -> float:
        """The largest R of a past, over the number of pasts: an alarm is raised when it reaches LIMIT."""
        return max(sum(bet.total for bet in past.bets) / len(past.bets) for past in self._pasts) / len(self._pasts)

    @property
    def _bets(self) -> list[_Bet]:
        return [bet for past in self._pasts for bet in past.bets]

    def observe(self, surprise: Surprise, *, at_ms: int, tie: float) -> Alarm | None:
        """`tie` ∈ [0, 1) is random, and the vote's own. A loss that is no number is passed over."""
        if not math.isfinite(surprise.excess):
            return None
        for (length, offset), past in zip(PASTS, self._pasts, strict=True):
            if length and self.votes % length == offset:
                past.counts.clear()
            past.observe(surprise, self.votes + 1, at_ms, 1.0 - tie)
        self.votes += 1
        if self.evidence < LIMIT:
            return None
        surest = max(self._bets, key=lambda bet: bet.total)
        alarm = Alarm(since_ms=surest.begun_ms, votes=self.votes - surest.begun + 1)
        self.__init__()
        self.raised = alarm
        return alarm

    def reading(self) -> Reading:
        """What it says now."""
        if self.raised is not None and self.votes < SHOWN:
            says = f"people judge otherwise than they did, most likely since {self.raised.votes} votes before the alarm"
            return Reading(evidence=1.0, says=says, rows=({"since_ms": self.raised.since_ms},))
        if not self.votes:
            return UNKNOWN
        return Reading(evidence=self.evidence / LIMIT, says=f"{self.votes} votes were such as were foretold")

    def to_json(self) -> dict[str, Any]:
        pasts = [
            {
                "counts": {kind: sorted(seen.items()) for kind, seen in sorted(past.counts.items())},
                "bets": [[bet.total, bet.gain, bet.begun, bet.begun_ms] for bet in past.bets],
            }
            for past in self._pasts
        ]
        raised = None if self.raised is None else [self.raised.since_ms, self.raised.votes]
        return {"votes": self.votes, "pasts": pasts, "raised": raised}

    def load_json(self, values: Mapping[str, Any]) -> None:
        self.__init__()
        self.votes = values["votes"]
        self.raised = None if values["raised"] is None else Alarm(*values["raised"])
        for past, stored in zip(self._pasts, values["pasts"], strict=True):
            past.counts = {kind: {int(v): int(n) for v, n in seen} for kind, seen in stored["counts"].items()}
            past.bets = [_Bet(*bet) for bet in stored["bets"]]
