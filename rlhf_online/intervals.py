"""Intervals of measured shares. Pure, and without torch: the chat service shows them, too."""

import math

Z = 1.959964
"""Standard deviations of a 95 % interval."""


def wilson(mean: float, n: float) -> tuple[float, float]:
    """Wilson's (1927) 95 % interval of a probability whose estimate from `n` independent samples is `mean`."""
    centre = (mean + Z * Z / (2 * n)) / (1 + Z * Z / n)
    half = Z / (1 + Z * Z / n) * math.sqrt(mean * (1 - mean) / n + Z * Z / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)
