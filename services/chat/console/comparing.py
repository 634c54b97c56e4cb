"""What the gate predicted of a version and what people said of it then, beside each other (`rlhf_online.prediction`).

gate's figures ──▶ predicted win rate over the parent: by the held-back reward model, or else by the policy's own
opinions ────────▶ people's: by blind pairs where they are clear, or else by thumbs on either version
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from rlhf_online.intervals import wilson
from rlhf_online.prediction import Assessment, Counts, Outcome, Share, assess, share, thumbs_share
from services.chat.console.replies import GatePrediction

PREDICTIONS = ("held_back_win_rate", "win_rate")
"""Figures of the gate, the better one first."""
Interval = tuple[float | None, float | None, float | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """Of one version. `predicted`: value, low, high; `by`: "pairs", "thumbs" or ""."""

    predicted: Interval = (None, None, None)
    said: Share | None = None
    by: str = ""

    def row(self) -> dict[str, Any]:
        """By the names of `PolicySeries`."""
        value, low, high = self.predicted
        found = self.said
        return {
            "predicted": value,
            "predicted_low": low,
            "predicted_high": high,
            "said": found.value if found else None,
            "said_low": found.low if found else None,
            "said_high": found.high if found else None,
            "said_n": found.opinions if found else None,
            "said_people": found.people if found else None,
            "said_by": self.by,
        }


def compared(gate: Mapping[str, Any], pairs: Counts, thumbs: Counts, before: Counts) -> Compared:
    """`pairs`: opinions of the version over its parent; `thumbs`, `before`: thumbs on either's answers."""
    by_pairs, by_thumbs = share(pairs), thumbs_share(thumbs, before)
    if by_pairs is not None and (by_pairs.clear or by_thumbs is None):
        return Compared(predicted=predicted(gate), said=by_pairs, by="pairs")
    return Compared(predicted=predicted(gate), said=by_thumbs, by="thumbs" if by_thumbs else "")


def predicted(gate: Mapping[str, Any]) -> Interval:
    """The gate's win rate over the parent and its 95 % interval; Wilson's where the gate told none."""
    name = next((each for each in PREDICTIONS if number(gate, each) is not None), "")
    if not name or (value := number(gate, name)) is None:
        return None, None, None
    low, high, n = number(gate, f"{name}_low"), number(gate, f"{name}_high"), number(gate, "samples")
    if low is None or high is None:
        low, high = wilson(value, n) if n else (None, None)
    return value, low, high


def outcomes(rows: Iterable[tuple[str, str, Compared]]) -> list[Outcome]:
    """Of (version, state, both): those whose time is over and of which people's word is clear."""
    return [
        Outcome(version=version, predicted=item.predicted[0], said=item.said)
        for version, state, item in rows
        if state in ("retired", "rejected", "failed")
        and item.predicted[0] is not None
        and item.said is not None
        and item.said.clear
        and item.said.people > 1
    ]


def told(found: Assessment) -> GatePrediction:
    """As the service answers it."""
    recent = found.recent
    return {
        "versions": found.versions,
        "correlation": found.correlation,
        "correlation_low": found.correlation_low,
        "correlation_high": found.correlation_high,
        "slope": found.slope,
        "gap": found.gap,
        "recent": recent.value if recent else None,
        "recent_low": recent.low if recent else None,
        "recent_high": recent.high if recent else None,
        "alarm": found.alarm,
    }


def assessed(rows: Iterable[tuple[str, str, Compared]]) -> GatePrediction:
    """See `rlhf_online.prediction.assess`."""
    return told(assess(outcomes(rows)))


def number(figures: Mapping[str, Any], name: str) -> float | None:
    """A figure, None where it was not measured."""
    value = figures.get(name)
    return value if isinstance(value, int | float) and value == value else None
