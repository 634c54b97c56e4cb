"""What the host went through, as metrics: its counts are read when somebody asks, and when a version changes."""

from rlhf_online.metrics import ChatMetrics, show_version
from rlhf_online.registry import Change
from services.chat.host import Host, Swap


class Watch:
    """Copies the host's counts into the metrics, each event once."""

    def __init__(self, host: Host, metrics: ChatMetrics) -> None:
        self.host = host
        self.metrics = metrics
        self._last: Swap | None = None
        self._restarts = 0
        self._serving = ""

    async def changed(self, change: Change) -> None:
        """The host calls this."""
        self.update()

    def update(self) -> None:
        for swap in self._new_swaps():
            self.metrics.swaps.labels(outcome="ok" if swap.ok else "failed").inc()
            self.metrics.swap_pause.observe(swap.pause_s)
        if self.host.restarts > self._restarts:
            self.metrics.engine_restarts.inc(self.host.restarts - self._restarts)
            self._restarts = self.host.restarts
        if self.host.serving != self._serving:
            self._serving = self.host.serving
            show_version(self.metrics.serving, self._serving)
        self.metrics.engine_ready.set(self.host.state == "ready")

    def _new_swaps(self) -> list[Swap]:
        """Those after the last one seen; the host keeps only the latest."""
        new: list[Swap] = []
        for swap in reversed(self.host.swaps):
            if swap is self._last:
                break
            new.append(swap)
        if new:
            self._last = new[0]
        return new[::-1]
