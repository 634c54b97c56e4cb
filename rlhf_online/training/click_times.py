"""How long votes take from the click to each stage in the trainer, for the metric of click → live.

    joined ─▶ trained ─▶ scored ─▶ gated       a vote whose policy is undone or rejected goes on with the next one

Kept in memory alone: of votes learned from before a restart the later stages are not told.
"""

from collections.abc import Iterable

from prometheus_client import Histogram

from rlhf_online.events import now_ms

MOST = 100_000
"""Votes on their way that are remembered; the oldest go first."""


class ClickTimes:
    """`to_live` is the metric; times are the votes' `created_ms`, 0 where an earlier release did not keep it."""

    def __init__(self, to_live: Histogram) -> None:
        self._to_live = to_live
        self._learned: list[int] = []
        self._scored: list[int] = []

    def joined(self, created_ms: Iterable[int]) -> None:
        """Votes that have met the answers that they judge."""
        self._tell("joined", created_ms)

    def trained(self, created_ms: Iterable[int]) -> None:
        """Votes that the reward model has learned from, for good."""
        new = [ms for ms in created_ms if ms]
        self._tell("trained", new)
        self._learned = [*self._learned, *new][-MOST:]

    def scored(self) -> None:
        """Answers for the policy have scores of the reward model that has learned from all of these."""
        self._tell("scored", self._learned)
        self._scored, self._learned = [*self._scored, *self._learned][-MOST:], []

    def gated(self) -> None:
        """A policy that has learned from such scores has passed the gate."""
        self._tell("gated", self._scored)
        self._scored = []

    def _tell(self, stage: str, created_ms: Iterable[int]) -> None:
        now, metric = now_ms(), self._to_live.labels(stage)
        for ms in created_ms:
            if ms:
                metric.observe(max(0, now - ms) / 1000)
