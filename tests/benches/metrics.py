"""What metrics cost: `make bench BENCH=metrics`.

A scrape of each service over HTTP with every series that there can be, as Prometheus asks for it (OpenMetrics,
exemplars in all buckets) and as text: bytes, and the time from the request to the last byte, best of some. And what the
gateway's metrics take of an answer of ten chunks: CPU of this process alone.
"""

import argparse
import http.client
import math
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import orjson
from prometheus_client import CollectorRegistry
from prometheus_client.metrics import MetricWrapperBase

from rlhf_online.metrics import ChatMetrics, MachineMetrics, RewardMetrics, TrainerMetrics, serve
from rlhf_online.metrics.catalogue import Entry, Label
from services.chat.completions.in_flight import Choice, Generation

MAX_BYTES, MAX_MS = 200_000, 20.0
OPEN_VALUES = 24
"""Values of each label that is neither closed nor one at a time: objectives, and the figures of as many."""
SCRAPES = 60
ANSWERS, CHUNKS = 20_000, 10
TRACE = {"trace_id": "0af7651916cd43dd8448eb211c80319c"}
OPENMETRICS = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"


def filled(service: Callable[[CollectorRegistry], Any], folder: Path) -> CollectorRegistry:
    """The service's registry with every series that there can be."""
    made = service(registry := CollectorRegistry())
    MachineMetrics(folder, registry)
    by_name: dict[str, Entry] = {entry.name.removesuffix("_total"): entry for entry in made.entries}
    for metric in _metrics(made):
        [family] = metric.collect()
        entry = by_name[family.name]
        for values in product(*map(_values, entry.labels)):
            child: Any = metric.labels(*values) if values else metric
            if entry.type == "histogram":
                for bound in (*entry.buckets, math.inf):
                    child.observe(min(bound, 1e9), TRACE)
            elif entry.type == "counter":
                child.inc(12345.678)
    return registry


def _metrics(made: Any) -> list[MetricWrapperBase]:
    found: list[MetricWrapperBase] = []
    for attribute in vars(made).values():
        if isinstance(attribute, MetricWrapperBase):
            found.append(attribute)
        elif hasattr(attribute, "entries"):
            found += _metrics(attribute)
    return found


def _values(label: Label) -> tuple[str, ...]:
    number = 1 if label.bound.startswith("one") else OPEN_VALUES
    return label.values or tuple(f"policy-{n:06d}" for n in range(number))


def scrape(port: int, accept: str) -> tuple[int, float]:
    """Bytes, and milliseconds, best of SCRAPES."""
    times, size = [], 0
    for _ in range(SCRAPES):
        began = time.perf_counter()
        connection = http.client.HTTPConnection("127.0.0.1", port)
        connection.request("GET", "/metrics", headers={"Accept": accept})
        size = len(connection.getresponse().read())
        connection.close()
        times.append(1000 * (time.perf_counter() - began))
    return size, min(times)


def answer_us() -> float:
    """CPU microseconds that an answer's metrics take."""
    metrics = ChatMetrics(CollectorRegistry())
    given: dict[str, Any] = {"request": None, "visit": None, "started_ms": 0, "started_s": 0.0, "restarts": 0}
    began = time.process_time()
    for _ in range(ANSWERS):
        generation = Generation(**given, choices=[Choice(index=0, spans=())])
        metrics.active.set(1)
        for _ in range(CHUNKS):
            generation.choices[0].token_ids.append(1)
            generation.token_came()
        metrics.first_token.observe(0.01)
        metrics.tokens.inc(CHUNKS)
        metrics.prompt_tokens.inc(20)
        metrics.uncertain.inc(0)
        metrics.token_time.observe(generation.token_s() or 0.0)
        metrics.longest_gap.observe(generation.longest_gap_s)
        metrics.log.append.observe(0.001)
        metrics.latency.observe(0.1)
        metrics.active.set(0)
        metrics.requests.labels(outcome="ok").inc()
    return 1e6 * (time.process_time() - began) / ANSWERS


def main() -> int:
    """0 where all is within its bounds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    asked = parser.parse_args()
    figures: dict[str, float | int] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, service in (("chat", ChatMetrics), ("reward", RewardMetrics), ("trainer", TrainerMetrics)):
            port = serve(filled(service, Path(folder)), "127.0.0.1", 0)
            for kind, accept in (("openmetrics", OPENMETRICS), ("text", "text/plain")):
                figures[f"{name}_{kind}_bytes"], took_ms = scrape(port, accept)
                figures[f"{name}_{kind}_ms"] = round(took_ms, 2)
    figures["answer_us"] = round(answer_us(), 1)
    ok = all(
        value <= (MAX_BYTES if name.endswith("_bytes") else MAX_MS)
        for name, value in figures.items()
        if name != "answer_us"
    )
    if asked.json:
        print(orjson.dumps({"ok": ok, **figures}).decode())
    else:
        for name, value in figures.items():
            print(f"{name:28} {value:>10}")
        print(f"at most {MAX_BYTES} bytes and {MAX_MS:g} ms a scrape: {'ok' if ok else 'MISSED'}")
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
