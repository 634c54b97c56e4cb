"""The same runs computed in another type: how far apart they are, and whether that is more than chance."""

import math
import statistics
from collections.abc import Sequence
from typing import Any

STUDENT = {2: 12.71, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 7: 2.447, 8: 2.365, 9: 2.306, 10: 2.262}
"""Half the width of a 95 % interval in standard errors, for so many values (Student's t)."""


def compared(values: Sequence[float], exact: Sequence[float], *, least: float) -> dict[str, Any]:
    """`values` against `exact`, paired by seed: the mean difference, and half of its 95 % interval (NaN for one seed).

    `within_noise` if the interval holds 0, or the difference is at most `least`, which nobody would call one.
    """
    differences = [one - other for one, other in zip(values, exact, strict=True)]
    count, mean = len(differences), statistics.fmean(differences)
    half = math.nan
    if count > 1:
        half = STUDENT.get(count, 2.2) * statistics.stdev(differences) / count**0.5
    return {
        "difference": round(mean, 4),
        "interval": None if math.isnan(half) else round(half, 4),
        "within_noise": abs(mean) <= least or abs(mean) <= half,
    }
