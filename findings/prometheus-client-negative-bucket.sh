#!/bin/sh
# prometheus_client 0.26.0: a histogram with a bucket below zero loses its sum, and its OpenMetrics text cannot be read back.
# Expected: a Histogram with buckets (-1, 0, 1) is exposed like any other, with _bucket, _count and _sum.
# Seen: observe() works and nothing warns, but no format has _sum, so that _sum / _count, the mean, is an empty graph; and
#       prometheus_client's own OpenMetrics parser refuses the text, for it has _count without _sum: one such histogram
#       makes a whole page of metrics unreadable to it. HistogramMetricFamily of the same package leaves out both.
# It bites who observes rewards, advantages or differences of log-probs. A Summary, which keeps sum and count, is readable.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check prometheus_client==0.26.0
cat > "$work/histogram.py" <<'PY'
from prometheus_client import CollectorRegistry, Histogram, Summary, generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families


def exposed(kind, **options):
    """Whether the plain text has the sum, and what the OpenMetrics parser says of the other text."""
    registry = CollectorRegistry()
    metric = kind("reward", "Of a rollout", registry=registry, **options)
    for value in (-0.5, 2.0):
        metric.observe(value)
    has_sum = "reward_sum 1.5" in generate_latest(registry).decode()
    try:
        list(text_string_to_metric_families(generate_openmetrics(registry).decode()))
    except ValueError as error:
        return has_sum, str(error)
    return has_sum, "read"


SEEN = {
    "Histogram, buckets (-1, 0, 1)": (False, "_sum/_gsum must be present if _count is present: reward"),
    "Histogram, buckets (0, 1)": (True, "read"),
    "Summary": (True, "read"),
}
seen = {
    "Histogram, buckets (-1, 0, 1)": exposed(Histogram, buckets=(-1, 0, 1)),
    "Histogram, buckets (0, 1)": exposed(Histogram, buckets=(0, 1)),
    "Summary": exposed(Summary),
}
print("Expected: _sum in all, and all are read")
for name, (has_sum, parsed) in seen.items():
    print(f"Seen: {name}: {'_sum' if has_sum else 'no _sum'}; OpenMetrics: {parsed}")
raise SystemExit(seen != SEEN)
PY
"$work/venv/bin/python" "$work/histogram.py"
