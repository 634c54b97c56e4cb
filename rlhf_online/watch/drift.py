"""Do people judge otherwise than they did? A sequential test of votes that the reward model has not learned from yet.

    comparison ─▶ which answers won oftener than foretold: those with which token (`leanings`) ─▶ p ─▶ bets ─┬▶ alarm
    thumb ─▶ how much worse it was foretold than the model expected ─▶ p, its rank among earlier votes ─▶ bets ─┘

A comparison says in which direction the model was wrong, which tells a change within a few dozen votes, and is silent
where answers have become harder to tell apart; how large the surprise was tells neither (docs/results.md, the watch).
A thumb, and a comparison of answers of the same tokens, is watched by that, since no other answer is held against it.

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

*False alarms.* R_n − n is a martingale that begins at 0 (Pollak 1985), so that R reaches L within n votes with
probability n / L at most (Doob). There are three pasts, whose ranks tell of each other, so that no mean of theirs is a
martingale: their probabilities are added, L = 6 · LIMIT for each, and half of the alarms in vain is left to leanings.
So an alarm comes in vain within n votes, of the beginning or of the alarm before, with probability n / LIMIT at most,
n = 1, 2, …. The model goes on learning, which is no exchangeable
past; but if the votes of a kind are independent and their excess becomes no larger with time (the quantile functions of
later ones lie nowhere above those of earlier ones), every p is at least what the same draws would give with all of them
alike, every f falls with p, and R is no larger: a model that improves raises no more false alarms. Not covered: a model
that grows worse while people stay as they are, which this calls drift, too; and votes that are not independent, as many
by one person with a taste of their own.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import astuple, dataclass, field
from typing import Any

from rlhf_online.watch.leanings import LONGER, Bet, Leanings
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
SHARE = 2.0
"""Thumbs and comparisons have half of the alarms in vain each."""
PASTS = ((0, 0), (1000, 0), (1000, 500))
"""(length, offset) of the pasts that votes are compared with: all of it, and two that begin anew every thousand votes
by turns, so that a model that foretold badly at first does not excuse for ever what it foretells badly now."""
SURE = (0.1, 0.25, 0.4, 0.55, 0.65)
"""Borders of how sure the model was, by the loss that it expected, nats; a coin toss has ln 2."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Surprise:
    """A vote, as it was foretold. `expected` is the model's own entropy, `loss` that of what was said, nats; both are
    means over the pairs that a comparison orders. `said` is what it is about: its objective, thumb or comparison;
    `believed` is how far who gave it was. `residuals` are those of a comparison's tokens (`leanings`)."""

    said: str
    expected: float
    loss: float
    believed: float = 1.0
    residuals: Mapping[int, float] = field(default_factory=dict)

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


def foretold(
    said: str, logits: list[float], *, believed: float = 1.0, residuals: Mapping[int, float] | None = None
) -> Surprise:
    """Of a vote that says yes to each of these questions, the model's log-odds of a yes: u_better − u_worse of each
    pair that a comparison orders, or ± (u + the rater's bias) of a thumb. One logit or more."""
    losses = [math.log1p(math.exp(-abs(x))) + max(0.0, -x) for x in logits]
    expected = sum(map(_entropy, logits)) / len(logits)
    loss = sum(losses) / len(losses)
    return Surprise(said=said, expected=expected, loss=loss, believed=believed, residuals=residuals or {})


def _entropy(logit: float) -> float:
    """Of a coin with these log-odds, nats."""
    x = abs(logit)
    return math.log1p(math.exp(-x)) + x / (1 + math.exp(min(x, 700.0)))


@dataclass(frozen=True, slots=True)
class Alarm:
    """Preferences have changed: most likely with a vote given at `since_ms`, `votes` votes ago. `token` is what answers
    hold that win, if they are `liked`, or lose oftener than foretold; None where surprise alone tells."""

    since_ms: int
    votes: int
    token: int | None = None
    liked: bool = False


class _Past:
    """Votes that later ones are ranked among, and what was made of bets on these ranks."""

    def __init__(self) -> None:
        self.counts: dict[str, dict[int, int]] = {}
        """Of each kind how many votes there were of each excess, in parts of a nat."""
        self.bets = [Bet() for _ in POWERS]

    def observe(self, surprise: Surprise, number: int, at_ms: int, tie: float) -> None:
        p = max(LEAST_P, self._p_value(surprise, tie))
        for power, bet in zip(POWERS, self.bets, strict=True):
            bet.win(1.0 + surprise.believed * (power * p ** (power - 1) - 1.0), number, at_ms)

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
        self._leanings = Leanings(SHARE * LIMIT)

    @property
    def evidence(self) -> float:
        """An alarm is raised when it reaches 1."""
        leaning = self._leanings.surest()
        return max(self._surprised(), leaning.evidence if leaning else 0.0)

    def _surprised(self) -> float:
        totals = [sum(bet.total for bet in past.bets) / len(past.bets) for past in self._pasts]
        return max(totals) / (len(totals) * SHARE * LIMIT)

    def observe(self, surprise: Surprise, *, at_ms: int, tie: float) -> Alarm | None:
        """`tie` ∈ [0, 1) is random, and the vote's own. A loss that is no number is passed over."""
        if not math.isfinite(surprise.excess):
            return None
        for (length, offset), past in zip(PASTS, self._pasts, strict=True):
            if length and self.votes % length == offset:
                past.counts.clear()
        self.votes += 1
        if surprise.residuals:
            alarm = self._by_token(surprise, at_ms, 1.0 - tie)
        else:
            alarm = self._by_surprise(surprise, at_ms, 1.0 - tie)
        if alarm is not None:
            self.__init__()
            self.raised = alarm
        return alarm

    def _by_token(self, surprise: Surprise, at_ms: int, tie: float) -> Alarm | None:
        found = surprise.residuals
        self._leanings.observe(found, believed=surprise.believed, number=self.votes, at_ms=at_ms, tie=tie)
        leaning = self._leanings.surest(found)
        if leaning is None or leaning.evidence < 1.0:
            return None
        return Alarm(*self._dated(leaning.bet), token=leaning.token, liked=leaning.liked)

    def _by_surprise(self, surprise: Surprise, at_ms: int, tie: float) -> Alarm | None:
        for past in self._pasts:
            past.observe(surprise, self.votes, at_ms, tie)
        if self._surprised() < 1.0:
            return None
        return Alarm(*self._dated(max((bet for past in self._pasts for bet in past.bets), key=lambda bet: bet.total)))

    def _dated(self, bet: Bet) -> tuple[int, int]:
        """When it began to win, and how many votes ago."""
        return bet.begun_ms, self.votes - bet.begun + 1

    def reading(self, named: Callable[[int], str] = str) -> Reading:
        """What it says now. `named` gives a token's text."""
        if (raised := self.raised) is not None and self.votes < SHOWN:
            says = f"people judge otherwise than they did, most likely since {raised.votes} votes before the alarm"
            row: dict[str, str | float] = {"since_ms": raised.since_ms}
            if raised.token is not None:
                row["answers"] = "the longer of two" if raised.token == LONGER else f"with {named(raised.token)!r}"
                row["than foretold"] = "win oftener" if raised.liked else "lose oftener"
            return Reading(evidence=1.0, says=says, rows=(row,))
        if not self.votes:
            return UNKNOWN
        return Reading(evidence=self.evidence, says=f"{self.votes} votes were such as were foretold")

    def to_json(self) -> dict[str, Any]:
        pasts = [
            {
                "counts": {kind: sorted(seen.items()) for kind, seen in sorted(past.counts.items())},
                "bets": [bet.to_json() for bet in past.bets],
            }
            for past in self._pasts
        ]
        raised = None if self.raised is None else [*astuple(self.raised)]
        return {"votes": self.votes, "pasts": pasts, "leanings": self._leanings.to_json(), "raised": raised}

    def load_json(self, values: Mapping[str, Any]) -> None:
        self.__init__()
        self.votes = values["votes"]
        self.raised = None if values["raised"] is None else Alarm(*values["raised"])
        for past, stored in zip(self._pasts, values["pasts"], strict=True):
            past.counts = {kind: {int(v): int(n) for v, n in seen} for kind, seen in stored["counts"].items()}
            past.bets = [Bet(*bet) for bet in stored["bets"]]
        self._leanings.load_json(values.get("leanings", []))  # which earlier releases did not watch
