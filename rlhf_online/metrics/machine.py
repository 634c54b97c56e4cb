"""What every service tells of the machine that it runs on, read at each scrape: clock, disks, its process, GPUs."""

import os
import time
from collections.abc import Iterator
from contextlib import suppress
from importlib import metadata
from pathlib import Path

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import GaugeMetricFamily, Metric

from rlhf_online import tracing
from rlhf_online.metrics import labels
from rlhf_online.metrics.catalogue import Catalogue, Entry, Type
from rlhf_online.metrics.gpu import GpuMetrics, find_nvml

VOLUMES = ("log", "versions", "checkpoints")
"""Folders of the state folder that may be file systems of their own."""

PROCESS: tuple[tuple[Type, str, str, str], ...] = (
    ("counter", "process_cpu_seconds_total", "", "User and system CPU time of the process."),
    ("gauge", "process_resident_memory_bytes", "", "Memory of the process that is resident."),
    ("gauge", "process_virtual_memory_bytes", "", "Memory that the process has mapped."),
    ("gauge", "process_start_time_seconds", "", "When the process started, seconds since 1970."),
    ("gauge", "process_open_fds", "files", "Files and connections that are open."),
    ("gauge", "process_max_fds", "files", "How many may be."),
)
"""What prometheus_client's ProcessCollector tells."""


class MachineMetrics:
    """Of a service whose state is in the folder `state`."""

    def __init__(self, state: Path, registry: CollectorRegistry) -> None:
        made = Catalogue(registry)
        self._state = state
        made.gauge("rlhf_time_seconds", "The service's clock, seconds since 1970.").set_function(time.time)
        release = made.gauge("rlhf_build_info", "1 for the release that runs.", labels.RELEASE)
        release.labels(_release()).set(1)
        self._free = made.describe(
            "gauge", "rlhf_state_free_bytes", "What a service may still write there.", labels.FOLDER
        )
        self._size = made.describe("gauge", "rlhf_state_size_bytes", "How large that file system is.", labels.FOLDER)
        registry.register(self)
        GpuMetrics(made, find_nvml())
        ProcessCollector(registry=registry)
        for kind, name, unit, text in PROCESS:
            made.describe(kind, name, text, unit=unit)
        spans = made.counter(
            "rlhf_tracing_spans",
            "Spans of traces by what became of them, dropped where too many waited.",
            labels.SPANS,
            unit="spans",
        )
        tracing.count_with(lambda outcome, count: spans.labels(outcome).inc(count))
        self.entries = made.entries

    def describe(self) -> Iterator[Metric]:
        """Before the first scrape: what `collect` will name."""
        yield from (_family(self._free), _family(self._size))

    def collect(self) -> Iterator[Metric]:
        """The state folder's file system as `folder="state"`, and those mounted below it by their folders' names."""
        free, size = _family(self._free), _family(self._size)
        seen: set[int] = set()
        for folder in ("state", *VOLUMES):
            path = self._state if folder == "state" else self._state / folder
            with suppress(OSError):  # not there yet
                if (device := path.stat().st_dev) not in seen:
                    seen.add(device)
                    found = os.statvfs(path)
                    free.add_metric([folder], found.f_bavail * found.f_frsize)
                    size.add_metric([folder], found.f_blocks * found.f_frsize)
        yield free
        yield size


def _family(entry: Entry) -> GaugeMetricFamily:
    return GaugeMetricFamily(entry.name, entry.text, labels=[label.name for label in entry.labels])


def _release() -> str:
    try:
        return metadata.version("rlhf-online")
    except metadata.PackageNotFoundError:
        return "unknown"
