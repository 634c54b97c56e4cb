"""OpenTelemetry's SDK, set up: spans in batches to an OTLP receiver over HTTP, by a thread of their own.

Imported where traces are sent, and only there: the extra `tracing` brings the packages.
"""

import logging
import secrets
import threading
from collections.abc import Callable, Sequence

import structlog
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_ON

Count = Callable[[str, int], None]
PATH = "/v1/traces"


def provider(service: str, endpoint: str, count: Count, queue: int, max_links: int) -> TracerProvider:
    """One that keeps every span it is asked for; `queue` of them wait at most.

    Standard variables say the rest: OTEL_EXPORTER_OTLP_* how they are sent (headers, TLS, compression, timeout), and
    where to without an `endpoint`; OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES what the service is called.
    """
    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)  # it tells of each batch, `_Told` once
    url = (endpoint if endpoint.endswith(PATH) else endpoint.rstrip("/") + PATH) if endpoint else None
    named = {"service.namespace": "rlhf-online", "service.name": f"rlhf-online-{service}"}
    made = TracerProvider(
        sampler=ALWAYS_ON,
        resource=Resource.create(named).merge(OTELResourceDetector().detect()),
        shutdown_on_exit=False,
        id_generator=_Ids(),
        span_limits=SpanLimits(max_links=max_links),
    )
    made.add_span_processor(_Bounded(_Told(OTLPSpanExporter(url), count, queue), count, queue))
    return made


class _Ids(IdGenerator):
    """Not Python's `random`, which a trainer may seed: two runs would have the same traces."""

    def generate_trace_id(self) -> int:
        return secrets.randbits(128) or 1

    def generate_span_id(self) -> int:
        return secrets.randbits(64) or 1


class _Told(SpanExporter):
    """Counts what became of spans, and logs when the receiver goes and comes."""

    def __init__(self, exporter: SpanExporter, count: Count, queue: int) -> None:
        self.waiting = 0
        self._queue = queue
        self._exporter = exporter
        self._count = count
        self._lock = threading.Lock()
        self._away = False

    def enqueue(self) -> bool:
        """Whether one more may wait."""
        with self._lock:
            if self.waiting >= self._queue:
                return False
            self.waiting += 1
            return True

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        with self._lock:
            self.waiting -= len(spans)
        result = self._exporter.export(spans)
        away = result is not SpanExportResult.SUCCESS
        self._count("failed" if away else "exported", len(spans))
        if away is not self._away:
            self._away = away
            log = structlog.get_logger()
            log.warning("traces are not taken by their receiver") if away else log.info("traces are taken again")
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()


class _Bounded(BatchSpanProcessor):
    """Drops a span where too many wait; the SDK's own does so too, and tells nobody but a log."""

    def __init__(self, exporter: _Told, count: Count, queue: int) -> None:
        super().__init__(exporter, max_queue_size=queue)
        self._told = exporter
        self._dropped = count

    def on_end(self, span: ReadableSpan) -> None:
        if self._told.enqueue():
            super().on_end(span)
        else:
            self._dropped("dropped", 1)
