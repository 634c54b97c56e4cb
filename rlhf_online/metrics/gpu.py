"""Memory and utilisation of the machine's GPUs, asked of NVIDIA's driver at each scrape (NVML, the package
nvidia-ml-py); nothing where there is no GPU, or the package is not installed."""

import importlib
from collections.abc import Iterator
from typing import Any

import structlog
from prometheus_client.core import GaugeMetricFamily, Metric

from rlhf_online.metrics import labels
from rlhf_online.metrics.catalogue import Catalogue


class GpuMetrics:
    """`nvml` is NVIDIA's module, initialised; None: no GPU."""

    def __init__(self, made: Catalogue, nvml: Any) -> None:
        self._nvml = nvml
        self._entries = (
            made.describe("gauge", "rlhf_gpu_memory_used_bytes", "Memory of the GPU that is in use.", labels.GPU),
            made.describe("gauge", "rlhf_gpu_memory_size_bytes", "Memory of the GPU.", labels.GPU),
            made.describe(
                "gauge",
                "rlhf_gpu_utilization_ratio",
                "Share of the driver's last sampling period, up to a second, in which the GPU computed.",
                labels.GPU,
            ),
        )
        made.registry.register(self)

    def describe(self) -> Iterator[Metric]:
        """What `collect` may name."""
        for entry in self._entries:
            yield GaugeMetricFamily(entry.name, entry.text, labels=["gpu"])

    def collect(self) -> Iterator[Metric]:
        """One sample a GPU; none of one that is lost, or does not tell."""
        if (nvml := self._nvml) is None:
            return
        families = [GaugeMetricFamily(entry.name, entry.text, labels=["gpu"]) for entry in self._entries]
        used, size, utilization = families
        try:
            numbers = range(nvml.nvmlDeviceGetCount())
        except nvml.NVMLError:  # the driver has gone: the scrape tells of all else
            return
        for number in numbers:
            try:
                gpu = nvml.nvmlDeviceGetHandleByIndex(number)
                memory = nvml.nvmlDeviceGetMemoryInfo(gpu)
                used.add_metric([str(number)], memory.used)
                size.add_metric([str(number)], memory.total)
                utilization.add_metric([str(number)], nvml.nvmlDeviceGetUtilizationRates(gpu).gpu / 100)
            except nvml.NVMLError:
                continue
        yield from families


def find_nvml() -> Any:
    """NVIDIA's module, if it is installed and finds a driver; else None."""
    try:
        nvml: Any = importlib.import_module("pynvml")
    except ImportError:
        return None
    try:
        nvml.nvmlInit()
    except nvml.NVMLError as error:
        structlog.get_logger().debug("no GPU is told of in the metrics", why=str(error))
        return None
    return nvml
