"""The chat service with metrics and traces that can be switched while it runs, by SIGRTMIN + i to CASES[i]:
`python -m tests.benches.support.switched --config FILE`, whose settings have a tracing endpoint.

So that what they cost is told within one process: two processes of the same service differ by more than that. Only to
be measured; the product has no such switch.
"""

import signal
import sys
from typing import Any

from prometheus_client import Counter, Gauge, Histogram, Summary

from rlhf_online import tracing
from rlhf_online.config import ChatTracingSettings
from services.chat.__main__ import main

CASES = {
    "bare": None,
    "bare again": None,
    "metrics": 0.0,
    "default": ChatTracingSettings().sample,
    "every request": 1.0,
}
"""The share of the requests that is traced; None: nor are there metrics."""

_COUNTING: list[tuple[Any, str, Any]] = [
    (kind, method, getattr(kind, method))
    for kind in (Counter, Gauge, Histogram, Summary)
    for method in ("inc", "dec", "set", "observe")
    if hasattr(kind, method)
]


def _nothing(*_: object, **__: object) -> None:
    pass


class Switch:
    """What the signals do."""

    def __init__(self) -> None:
        self._tracer: Any = None
        for number in range(len(CASES)):
            signal.signal(signal.SIGRTMIN + number, self._to)

    def _to(self, signum: int, _: object) -> None:
        share = list(CASES.values())[signum - signal.SIGRTMIN]
        for kind, method, real in _COUNTING:
            setattr(kind, method, _nothing if share is None else real)
        state = tracing._tracing  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
        self._tracer = self._tracer or state.tracer
        state.tracer = self._tracer if share else None
        state.sample = share or 0.0


if __name__ == "__main__":
    switch = Switch()
    sys.exit(main())
