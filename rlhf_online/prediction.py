"""How well the gate's predictions meet what people then say. Pure, and without numpy: the chat service asks.

Both are a share: how often a version's answer is better than that of the version before it. The gate predicts it before
the version serves; people say it by blind pairs of the two, or by their thumbs on either. People choose less sharply
than a reward model, and a thumb says less than a pair, so that people's shares stand nearer to one half than the
gate's, however good it is: the difference between the two (`gap`) and a slope below 1 are told, and are no alarm. What
may not be is told by `Assessment.alarm`:

- *people take it back*: over the last RECENT versions that the gate let pass, people prefer the ones before. The
  interval of their share, pooled with the inverse variances for weights, lies below one half.
- *the better for the gate, the worse for people*: the interval of the correlation lies below 0, over at least
  LEAST_CORRELATED versions. It is Fisher's: artanh r ± Z / √(n − 3) (R. A. Fisher, Metron 1 (1921)).

A version counts once, when its time is over and what people say of it is clear to ± CLEAR; so looking often does not
make an alarm likelier.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rlhf_online.intervals import Z, wilson

CLEAR = 0.25
"""Half the width of an interval up to which what people say is clear enough to be compared."""
RECENT, LEAST_CORRELATED, WINDOW = 5, 10, 50
"""Versions: of the first rule; for the second rule at least, and the last ones that figures are made of."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """Sums over people: how many opinions they gave, each between 0 and 1, and each person's mean."""

    people: int = 0
    opinions: int = 0
    means: float = 0.0

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(
            people=self.people + other.people,
            opinions=self.opinions + other.opinions,
            means=self.means + other.means,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """A share with its 95 % interval."""

    value: float
    low: float
    high: float
    opinions: int
    people: int

    @property
    def clear(self) -> bool:
        return (self.high - self.low) / 2 <= CLEAR

    @property
    def variance(self) -> float:
        """Of a normal estimate with this interval."""
        return ((self.high - self.low) / (2 * Z)) ** 2


def share(counts: Counts) -> Share | None:
    """The mean of people's means, where there is anybody: each person counts once, however much they say.

    The interval is Wilson's of as many samples as there are people: somebody's mean varies at most as one opinion does.
    """
    if not counts.people:
        return None
    value = min(max(counts.means / counts.people, 0.0), 1.0)
    low, high = wilson(value, counts.people)
    return Share(value=value, low=low, high=high, opinions=counts.opinions, people=counts.people)


def thumbs_share(version: Counts, before: Counts) -> Share | None:
    """How often a thumb on the version's answer is better than one on the other's, ties half: ½ + (p − q)/2 for the
    shares p and q of thumbs up.

    The interval of p − q is R. G. Newcombe's (Statistics in Medicine 17 (1998), 873, method 10), of Wilson's two. Who
    judged both versions counts as two people, which makes it no narrower.
    """
    ours, theirs = share(version), share(before)
    if ours is None or theirs is None:
        return None
    difference = ours.value - theirs.value
    down = math.hypot(ours.value - ours.low, theirs.high - theirs.value)
    up = math.hypot(ours.high - ours.value, theirs.value - theirs.low)
    return Share(
        value=0.5 + difference / 2,
        low=max(0.0, 0.5 + (difference - down) / 2),
        high=min(1.0, 0.5 + (difference + up) / 2),
        opinions=min(ours.opinions, theirs.opinions),
        people=min(ours.people, theirs.people),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What the gate predicted of a version and people said then."""

    version: str
    predicted: float
    said: Share


@dataclass(frozen=True, slots=True, kw_only=True)
class Assessment:
    """Of the last `versions`, WINDOW at most. None: too few to tell.

    `correlation` of prediction and people's share; `slope` of the line by which the one tells the other best (least
    squares); `gap`: people's share less the prediction, on average. `recent`: people's share over the last RECENT
    versions, pooled. `alarm`: why the two have parted, "" if they have not.
    """

    versions: int = 0
    correlation: float | None = None
    correlation_low: float | None = None
    correlation_high: float | None = None
    slope: float | None = None
    gap: float | None = None
    recent: Share | None = None
    alarm: str = ""


def assess(outcomes: Sequence[Outcome]) -> Assessment:
    """`outcomes` of versions whose time is over, the oldest first, each clear (`Share.clear`)."""
    window = outcomes[-WINDOW:]
    if not window:
        return Assessment()
    predicted, said = [item.predicted for item in window], [item.said.value for item in window]
    n, slope, correlation = len(window), *_line(predicted, said)
    low, high = fisher(correlation, n) if correlation is not None else (None, None)
    recent = _pooled([item.said for item in window[-RECENT:]]) if n >= RECENT else None
    return Assessment(
        versions=n,
        correlation=correlation,
        correlation_low=low,
        correlation_high=high,
        slope=slope,
        gap=(sum(said) - sum(predicted)) / n,
        recent=recent,
        alarm=_alarm(window, recent, correlation, low, high),
    )


def fisher(r: float, n: int) -> tuple[float, float]:
    """The 95 % interval of a correlation of n pairs; −1 … 1 of fewer than four."""
    if n < 4:
        return -1.0, 1.0
    z, half = math.atanh(min(max(r, -1 + 1e-12), 1 - 1e-12)), Z / math.sqrt(n - 3)
    return math.tanh(z - half), math.tanh(z + half)


def _line(xs: Sequence[float], ys: Sequence[float]) -> tuple[float | None, float | None]:
    """Least squares' slope of y on x, and Pearson's correlation; None where either is constant."""
    mean_x, mean_y = sum(xs) / len(xs), sum(ys) / len(ys)
    xx, yy = sum((x - mean_x) ** 2 for x in xs), sum((y - mean_y) ** 2 for y in ys)
    xy = sum((x - mean_x) * (y - mean_y) for x, y in zip(xs, ys, strict=True))
    if len(xs) < 3 or xx < 1e-12:
        return None, None
    return xy / xx, max(-1.0, min(1.0, xy / math.sqrt(xx * yy))) if yy > 1e-12 else None


def _pooled(shares: Sequence[Share]) -> Share:
    """Weighted by the inverse of their variances: a fixed-effect mean."""
    weights = [1 / max(item.variance, 1e-9) for item in shares]
    total = sum(weights)
    value, half = sum(w * item.value for w, item in zip(weights, shares, strict=True)) / total, Z / math.sqrt(total)
    return Share(
        value=value,
        low=max(0.0, value - half),
        high=min(1.0, value + half),
        opinions=sum(item.opinions for item in shares),
        people=sum(item.people for item in shares),
    )


def _alarm(
    window: Sequence[Outcome], recent: Share | None, r: float | None, low: float | None, high: float | None
) -> str:
    if recent is not None and recent.high < 0.5:
        predicted = sum(item.predicted for item in window[-RECENT:]) / RECENT
        return (
            f"people prefer the versions before to the last {RECENT}: these are better {recent.value:.0%} of the time "
            f"({recent.low:.0%} to {recent.high:.0%}), and the gate predicted {predicted:.0%}"
        )
    if r is not None and low is not None and high is not None and len(window) >= LEAST_CORRELATED and high < 0:
        return (
            f"the better the gate finds a version, the worse people do: r = {r:.2f} ({low:.2f} to {high:.2f}) over "
            f"{len(window)} versions"
        )
    return ""
