"""Reading Prometheus metrics of this process."""

from prometheus_client.metrics import MetricWrapperBase


def value(metric: MetricWrapperBase, ending: str = "") -> float:
    """Of a counter or gauge without labels, or with all of them given; of a histogram "_count" or "_sum"."""
    kept = [item for family in metric.collect() for item in family.samples if not item.name.endswith("_created")]
    [found] = [item for item in kept if item.name.endswith(ending)]
    return found.value
