"""What creeps: a line of versions, each of which passed the gate, against where it began. Pure.

The gate compares a candidate with the version before, so that a little at a time passes. Here is what the promoted
versions of one line have come to:

    over_optimisation  since the version that the held-back reward model liked best: what their own reward model says
                       was gained, less what the held-back one says (Gao, Schulman, Hilton 2023, arXiv 2210.10760:
                       beyond some KL the proxy rises on and what it stands for falls)
    length, format     mean tokens of an answer, and the share of answers with Markdown, against the beginning
    diversity          distinct n-grams, likewise; entropy is told and raises nothing, since learning lowers it

Each gain is the gate's, over the version before, in standard deviations of that one's scores; they are added up, and
so are the variances of the gaps. A line begins at the reference, and anew when that is refreshed; a version that was
taken back leaves it.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rlhf_online.intervals import Z
from rlhf_online.watch.monitors import UNKNOWN, Monitor, Reading

LENGTH, FEWER = 2.0, 0.5
"""Times as long, or as short, as in the beginning; the share of the beginning's different n-grams that must be left."""
FORMAT = 0.3
"""Of all answers, by which the share with Markdown may change."""
KEPT = 500
LOOKED_AT = ("length", "distinct", "entropy", "trait_format_rate")
BEGINNING = {name: f"live_{name}" for name in LOOKED_AT} | {"trait_format_rate": "trait_format_live_rate"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """A promoted version: its KL to the reference, and its gains over the one before by both reward models."""

    version: str
    kl: float
    gain: float
    held_back_gain: float
    gap_stderr: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """`begun` and `now` are figures of the version that it began with, and of the last one."""

    reference: str = ""
    points: tuple[Point, ...] = ()
    begun: Mapping[str, float] | None = None
    now: Mapping[str, float] | None = None

    def after(self, version: str, parent: str, reference: str, kl: float, figures: Mapping[str, float]) -> "Line":
        """The line with one more version, of which the gate measured these figures."""
        goes_on = self.begun is not None and reference == self.reference
        begun = self.begun if goes_on else {name: figures[live] for name, live in BEGINNING.items() if live in figures}
        known = [point.version for point in self.points] if goes_on else []
        before = self.points[: known.index(parent) + 1] if parent in known else ()
        names = ("gain", "held_back_gain", "proxy_gap_stderr")
        gains = [figures.get(name, 0.0) for name in names]
        point = Point(version=version, kl=kl, gain=gains[0], held_back_gain=gains[1], gap_stderr=gains[2])
        now = {name: figures[name] for name in LOOKED_AT if name in figures}
        return Line(reference=reference, points=(*before, point)[-KEPT:], begun=begun, now=now)

    def readings(self, max_gap: float) -> dict[Monitor, Reading]:
        """`max_gap` is what one candidate may gain more by its own reward model than by the held-back one."""
        return {
            "over_optimisation": self._over_optimisation(max_gap),
            "length": self._length(),
            "format": self._format(),
            "diversity": self._diversity(),
        }

    def _over_optimisation(self, max_gap: float) -> Reading:
        if not any(point.gap_stderr for point in self.points):
            return UNKNOWN
        held_back = _summed([point.held_back_gain for point in self.points])
        best = max(range(len(held_back)), key=held_back.__getitem__)
        since = self.points[best:]
        proxy = sum(point.gain for point in since)
        apart = sum(point.held_back_gain for point in since)
        error = math.sqrt(sum(point.gap_stderr**2 for point in since))
        own = _summed([point.gain for point in self.points])
        rows = [
            {"version": point.version, "kl": point.kl, "own": by_own, "held_back": by_other}
            for point, by_own, by_other in zip(self.points, own[1:], held_back[1:], strict=True)
        ]
        says = (
            f"{len(since)} versions since the one that the held-back model likes best: {proxy:+.2f} σ by their own, "
            f"{apart:+.2f} σ by the held-back one"
        )
        return Reading(evidence=max(0.0, proxy - apart - Z * error) / max_gap, says=says, rows=tuple(rows[-20:]))

    def _length(self) -> Reading:
        begun, now = self._both("length")
        if not begun or not now:
            return UNKNOWN
        says = f"answers of {now:.1f} tokens, {begun:.1f} in the beginning"
        return Reading(evidence=abs(math.log(now / begun)) / math.log(LENGTH), says=says)

    def _format(self) -> Reading:
        begun, now = self._both("trait_format_rate")
        if begun is None or now is None:
            return UNKNOWN
        says = f"{now:.0%} of answers with Markdown, {begun:.0%} in the beginning"
        return Reading(evidence=abs(now - begun) / FORMAT, says=says)

    def _diversity(self) -> Reading:
        begun, now = self._both("distinct")
        if not begun or now is None:
            return UNKNOWN
        before, entropy = self._both("entropy")
        says = f"{now:.2f} of all n-grams are different, {begun:.2f} in the beginning"
        if before is not None and entropy is not None:
            says += f"; {entropy:.2f} nats a token, {before:.2f} in the beginning"
        return Reading(evidence=max(0.0, math.log(max(now, 1e-9) / begun) / math.log(FEWER)), says=says)

    def _both(self, name: str) -> tuple[float | None, float | None]:
        return (self.begun or {}).get(name), (self.now or {}).get(name)

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"points": [asdict(point) for point in self.points]}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Line":
        return cls(**{**values, "points": tuple(Point(**point) for point in values["points"])}) if values else cls()


def _summed(values: Sequence[float]) -> list[float]:
    """0, and the sum after each."""
    found = [0.0]
    for value in values:
        found.append(found[-1] + value)
    return found
