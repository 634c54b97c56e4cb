"""Says that the gate's predictions and people have parted: as metrics, in the state folder for `status`, in the log."""

import math
from contextlib import suppress

import structlog

from rlhf_online.metrics import PredictionMetrics
from rlhf_online.state import StateDir
from services.chat.console.replies import GatePrediction

STATUS = "prediction"


class PredictionAlarm:
    """Of one service."""

    def __init__(self, metrics: PredictionMetrics, state: StateDir) -> None:
        self._metrics = metrics
        self._state = state
        self._told: GatePrediction | None = None
        metrics.correlation.set(math.nan)
        metrics.gap.set(math.nan)

    def tell(self, found: GatePrediction) -> None:
        """Whenever it was looked at; what is as it was is not told again."""
        if found == self._told:
            return
        before, self._told = self._told["alarm"] if self._told else "", found
        metrics = self._metrics
        metrics.correlation.set(_or_nan(found["correlation"]))
        metrics.gap.set(_or_nan(found["gap"]))
        metrics.versions.set(found["versions"])
        metrics.alarm.set(bool(found["alarm"]))
        with suppress(OSError):  # a full disk must not stop what else is told
            self._state.write_status(STATUS, dict(found))
        log = structlog.get_logger()
        if found["alarm"] and found["alarm"] != before:
            log.warning("the gate's predictions and people have parted", why=found["alarm"])
        elif before and not found["alarm"]:
            log.info("the gate's predictions and people agree again")


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value
