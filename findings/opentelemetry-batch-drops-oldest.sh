#!/bin/sh
# opentelemetry-sdk 1.45.2, BatchSpanProcessor: what a full queue loses, and what export_timeout_millis does.
# Expected: a full queue refuses the span that comes, as the SDKs of Java and Go do, so that the beginning of an outage
#       is kept; export_timeout_millis, or force_flush(timeout_millis), bounds how long an export may take.
# Seen: the oldest spans go, so that the beginning is lost and traces lack the spans that ended first; neither timeout
#       has an effect: an export of 1 s with timeouts of 50 ms takes 1 s, and force_flush says that all is well.
# It bites who flushes at shutdown while the collector is slow: only the exporter's own timeout bounds it.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check opentelemetry-sdk==1.45.2
cat > "$work/spans.py" <<'PY'
import logging
import threading
import time

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

TIMEOUT_MS = 50
logging.getLogger("opentelemetry").setLevel(logging.ERROR)


class Exporter(SpanExporter):
    def __init__(self):
        self.names, self.began, self.go_on = [], threading.Event(), threading.Event()

    def export(self, spans):
        self.began.set()
        self.go_on.wait()
        self.names += [span.name for span in spans]
        return SpanExportResult.SUCCESS


def tracer(exporter, size):
    processor = BatchSpanProcessor(exporter, max_queue_size=size, max_export_batch_size=size,
        schedule_delay_millis=3_600_000, export_timeout_millis=TIMEOUT_MS)
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(processor)
    return provider.get_tracer("findings"), processor


def kept():
    """Of spans 0 to 9, which end while an export of other spans goes on, with room for four."""
    exporter = Exporter()
    spans, processor = tracer(exporter, 4)
    for _ in range(4):
        spans.start_span("first batch").end()
    exporter.began.wait()
    for number in range(10):
        spans.start_span(str(number)).end()
    exporter.go_on.set()
    processor.shutdown()
    return [name for name in exporter.names if name != "first batch"]


def flush():
    exporter = Exporter()
    spans, processor = tracer(exporter, 4)
    spans.start_span("one").end()
    threading.Timer(1.0, exporter.go_on.set).start()
    began = time.monotonic()
    outcome = processor.force_flush(timeout_millis=TIMEOUT_MS)
    return outcome, time.monotonic() - began


names = kept()
outcome, seconds = flush()
print(f"Expected: spans 0 to 3 of ten are kept; an export ends, or is given up, after {TIMEOUT_MS} ms")
print("Seen: kept", ", ".join(names))
print(f"Seen: force_flush of a slow export took {seconds:.1f} s and returned {outcome}")
raise SystemExit(not (names == ["6", "7", "8", "9"] and outcome is True and seconds > 0.9))
PY
"$work/venv/bin/python" "$work/spans.py"
