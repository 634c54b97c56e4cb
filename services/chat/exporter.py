"""Counts of the engine, the log and the supervisor as metrics, read at each scrape and each change."""

from contextlib import suppress
from dataclasses import replace

from rlhf_online.eventlog.base import Shipping, Sink
from rlhf_online.events import now_ms
from rlhf_online.metrics import ChatMetrics, show_version
from rlhf_online.state import SERVICES_STATUS, StateDir
from rlhf_online.versions.catalogue import Catalogue
from rlhf_online.versions.manifest import Change
from services.chat.access.secrets import INTACT, Secrets
from services.chat.completions.engine import Engine, Swap
from services.chat.completions.in_flight import InFlight


class Exporter:
    """Copies what they count into the metrics, each event once. The supervisor's, if there is one, lie in `state`."""

    def __init__(
        self,
        engine: Engine,
        flight: InFlight,
        sink: Sink,
        metrics: ChatMetrics,
        state: StateDir,
        secrets: Secrets,
        catalogue: Catalogue,
    ) -> None:
        self.engine = engine
        self.flight = flight
        self.state = state
        self.secrets = secrets
        self.sink = sink
        self.metrics = metrics
        self.catalogue = catalogue
        self._last: Swap | None = None
        self._restarts = 0
        self._serving = ""
        self._shipping = Shipping()

    async def changed(self, change: Change) -> None:
        """The engine calls this."""
        self.update()

    def update(self) -> None:
        for swap in self._new_swaps():
            self.metrics.serving.swaps.labels(outcome="ok" if swap.ok else "failed").inc()
            self.metrics.serving.swap_pause.observe(swap.pause_s)
        if self.engine.restarts > self._restarts:
            self.metrics.serving.engine_restarts.inc(self.engine.restarts - self._restarts)
            self._restarts = self.engine.restarts
        if self.engine.serving != self._serving:
            self._serving = self.engine.serving
            show_version(self.metrics.serving.version, self._serving)
            self.metrics.serving.since.set_to_current_time()
        self.metrics.waiting.set(sum(generation.first is None for generation in self.flight.generations))
        self.metrics.serving.engine_ready.set(self.engine.state == "ready")
        self.metrics.serving.version_lag.set(self.engine.pod.lag_s)
        self.metrics.serving.could_not_serve.set(bool(self.engine.pod.could_not))
        self.metrics.serving.behind.set(bool(self.engine.pod.behind))
        self.metrics.serving.store_silent.set(self.engine.pod.store.silent_s)
        self.metrics.access.secrets_intact.set(self.secrets.check() == INTACT)
        self.metrics.serving.damaged_records.set(len(self.catalogue.damaged))
        self._show_shipping(self.sink.shipping())
        with suppress(OSError, ValueError):
            for name, status in self.state.read_status(SERVICES_STATUS).items():
                self.metrics.service_up.labels(service=name).set(status["state"] == "running")
                self.metrics.service_restarts.labels(service=name).set(status["restarts"])

    def _show_shipping(self, now: Shipping) -> None:
        before = self._shipping
        # A forwarder that was started again goes on from what is on disk, and ships some records once more.
        self._shipping = replace(now, confirmed=max(now.confirmed, before.confirmed))
        self.metrics.log.shipped.inc(self._shipping.confirmed - before.confirmed)
        self.metrics.log.backlog.set(now.backlog)
        self.metrics.log.backlog_age.set(max(0.0, (now_ms() - now.oldest_ms) / 1000) if now.oldest_ms else 0.0)
        self.metrics.log.deliveries_failed.inc(now.failures - before.failures)
        self.metrics.log.refused.inc(max(0, now.refused - before.refused))  # an operator may clear them away

    def _new_swaps(self) -> list[Swap]:
        """Those after the last one seen; the engine keeps only the latest."""
        new: list[Swap] = []
        for swap in reversed(self.engine.swaps):
            if swap is self._last:
                break
            new.append(swap)
        if new:
            self._last = new[0]
        return new[::-1]
