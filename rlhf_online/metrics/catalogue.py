"""What a metric is, told where it is made: its name, unit, sentence, labels, and the values that each label may have.

A service's class of metrics (`chat`, `reward`, `trainer`, `machine`) makes each of its metrics through a `Catalogue`,
which registers it and keeps its `Entry`. So a metric that is not described does not exist, docs/metrics.md is written
from the entries (scripts/metrics_docs.py), and a test can say of any scrape whether it keeps to them.

Names follow Prometheus' conventions: base units (seconds, bytes, ratios) at the end of the name, `_total` for counters,
`_info` for gauges whose labels are what they tell, `_timestamp_seconds` for points in time. Counters and
histograms all of whose labels have closed sets of values stand at 0 from the start: `increase()` sees the first event.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Literal, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

Type = Literal["counter", "gauge", "histogram"]
Counted = TypeVar("Counted", Counter, Histogram)
BASE_UNITS = ("seconds", "bytes", "ratio", "info")


@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    """`values`: the closed set of what it may be; () where `bound` says what keeps their number small."""

    name: str
    values: tuple[str, ...] = ()
    bound: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A metric as a scrape shows it; `name` is a counter's with `_total`."""

    name: str
    type: Type
    unit: str
    text: str
    labels: tuple[Label, ...] = ()
    buckets: tuple[float, ...] = ()


class Catalogue:
    """Makes metrics in `registry`; `entries` describe them, in their order."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        self.entries: list[Entry] = []

    def counter(self, name: str, text: str, *labels: Label, unit: str = "") -> Counter:
        """`name` without `_total`; `unit` is what is counted, where the name does not end in it."""
        self.describe("counter", f"{name}_total", text, *labels, unit=unit or name.rpartition("_")[2])
        return _from_the_start(Counter(name, text, _names(labels), registry=self.registry), labels)

    def gauge(self, name: str, text: str, *labels: Label, unit: str = "") -> Gauge:
        """`unit` where the name does not end in a base unit."""
        self.describe("gauge", name, text, *labels, unit=unit)
        return Gauge(name, text, _names(labels), registry=self.registry)

    def histogram(self, name: str, text: str, buckets: Sequence[float], *labels: Label, unit: str = "") -> Histogram:
        """`unit` where the name does not end in a base unit."""
        self.describe("histogram", name, text, *labels, unit=unit, buckets=tuple(buckets))
        return _from_the_start(Histogram(name, text, _names(labels), buckets=buckets, registry=self.registry), labels)

    def describe(
        self, kind: Type, name: str, text: str, *labels: Label, unit: str = "", buckets: tuple[float, ...] = ()
    ) -> Entry:
        """The entry of a metric that is made elsewhere, as a collector's."""
        ending = name.removesuffix("_total").rpartition("_")[2]
        unit = unit or (ending if ending in BASE_UNITS else "")
        assert unit, f"{name} tells no unit"
        entry = Entry(name=name, type=kind, unit=unit, text=text, labels=labels, buckets=buckets)
        self.entries.append(entry)
        return entry


def _from_the_start(made: Counted, labels: Sequence[Label]) -> Counted:
    """The metric, each of its series at 0 where it can be told which there will be."""
    if labels and all(label.values for label in labels):
        for values in product(*(label.values for label in labels)):
            made.labels(*values)
    return made


def _names(labels: Sequence[Label]) -> list[str]:
    return [label.name for label in labels]
