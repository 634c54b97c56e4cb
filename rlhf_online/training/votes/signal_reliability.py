"""The reliability ρ of each implicit signal (regenerate, rephrase, stop), learned from how well it agrees with people's
votes.

A signal is a noisy label, as in the spammer–hammer model of crowdsourcing (Karger, Oh & Shah 2011): with probability ρ
it says that the answer is worse than the baseline, else it is a coin toss (`algorithms.reward_losses.implicit_loss`).
ρ is the most probable value, under a Beta prior, for the answers that the signal came with last. Their utilities are
those of the reward model *before* it learned from these signals, so that a signal is believed for agreeing with what
else people said, never for having been learned.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from rlhf_online.events import SIGNALS

PRIOR_A, PRIOR_B = 2.0, 4.0
"""Of the Beta distribution: most probable is ρ = (A − 1)/(A + B − 2) = ¼, worth four signals."""
MAX_SIGNALS = 500
"""The newest of a kind, which ρ is fitted to."""


class SignalReliability:
    """What was seen of each signal: by how much the answers were below the baseline, in units of utility."""

    def __init__(self) -> None:
        self._below: dict[str, list[float]] = {}

    def observe(self, signal: str, below: Sequence[float]) -> None:
        """`below`, one for each new signal: the baseline's utility less the answer's, before learning from it."""
        finite = [round(value, 6) for value in below if math.isfinite(value)]
        self._below[signal] = [*self._below.get(signal, []), *finite][-MAX_SIGNALS:]

    def of(self, signal: str) -> float:
        """ρ, in (0, 1)."""
        agree = [1 / (1 + math.exp(-min(max(value, -30.0), 30.0))) for value in self._below.get(signal, [])]
        low, high = 1e-6, 1 - 1e-6
        # The log posterior is concave in ρ: its slope falls, and is 0 at the most probable value.
        for _ in range(40):
            rho = (low + high) / 2
            slope = (PRIOR_A - 1) / rho - (PRIOR_B - 1) / (1 - rho)
            slope += sum((p - 0.5) / (rho * p + (1 - rho) / 2) for p in agree)
            low, high = (rho, high) if slope > 0 else (low, rho)
        return (low + high) / 2

    def figures(self) -> dict[str, float]:
        """ρ of each signal seen so far."""
        return {signal: self.of(signal) for signal in sorted(self._below)}

    def to_json(self) -> dict[str, Any]:
        return dict(self._below)

    def load_json(self, values: Mapping[str, Sequence[float]]) -> None:
        seen = {signal: below for signal, below in values.items() if signal in SIGNALS}  # earlier releases kept ai here
        self._below = {signal: [float(value) for value in below] for signal, below in seen.items()}
