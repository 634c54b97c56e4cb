"""The engine host's and the log's counts as metrics, read at each scrape and whenever a version changes."""

from rlhf_online.eventlog.base import Shipping, Sink
from rlhf_online.events import now_ms
from rlhf_online.metrics import ChatMetrics, show_version
from rlhf_online.versions.manifest import Change
from services.chat.host import Host, Swap


class Exporter:
    """Copies the host's and the log's counts into the metrics, each event once."""

    def __init__(self, host: Host, sink: Sink, metrics: ChatMetrics) -> None:
        self.host = host
        self.sink = sink
        self.metrics = metrics
        self._last: Swap | None = None
        self._restarts = 0
        self._serving = ""
        self._shipping = Shipping()

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
        self._show_shipping(self.sink.shipping())

    def _show_shipping(self, now: Shipping) -> None:
        before, self._shipping = self._shipping, now
        self.metrics.backlog.set(now.backlog)
        self.metrics.backlog_age.set(max(0.0, (now_ms() - now.oldest_ms) / 1000) if now.oldest_ms else 0.0)
        self.metrics.deliveries_failed.inc(now.failures - before.failures)
        self.metrics.refused.inc(now.refused - before.refused)

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
