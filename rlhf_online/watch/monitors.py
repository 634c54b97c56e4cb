"""What a monitor says, in one form for metrics, alerts, the console and the command. Pure."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

Monitor = Literal[
    "drift", "tampering", "poison", "segments", "over_optimisation", "length", "format", "diversity", "sycophancy"
]
MONITORS: tuple[Monitor, ...] = get_args(Monitor)
RUNBOOKS: Mapping[Monitor, str] = {
    "drift": "RlhfPreferencesDrift",
    "tampering": "RlhfVotesTampered",
    "poison": "RlhfVotesPoisoned",
    "segments": "RlhfSegmentWorse",
    "over_optimisation": "RlhfOverOptimised",
    "length": "RlhfAnswersCreep",
    "format": "RlhfAnswersCreep",
    "diversity": "RlhfAnswersCreep",
    "sycophancy": "RlhfSycophancy",
}
"""The alert of each, and its page in docs/runbooks."""
Row = Mapping[str, str | float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """`evidence` says how near to its alarm a monitor is: 1 and more raises it, NaN where it cannot tell. `says` is a
    sentence for people; `rows`, a table for operators alone, may name people by their hash. Neither goes into a
    metric's label or a line of the log."""

    evidence: float = math.nan
    says: str = "nothing is known yet"
    rows: tuple[Row, ...] = ()

    @property
    def alarm(self) -> bool:
        return self.evidence >= 1.0

    def to_json(self) -> dict[str, Any]:
        """Null for what is no number."""
        told = asdict(self) | {"alarm": self.alarm, "rows": [_finite(row) for row in self.rows]}
        return told | _finite({"evidence": self.evidence})


UNKNOWN = Reading()


def _finite(values: Row) -> dict[str, str | float | None]:
    return {name: None if isinstance(v, float) and not math.isfinite(v) else v for name, v in values.items()}
