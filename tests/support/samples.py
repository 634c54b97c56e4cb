"""Reading Prometheus metrics of this process."""

from prometheus_client.metrics import MetricWrapperBase


def value(metric: MetricWrapperBase) -> float:
    """Of a counter or gauge without labels, or with all of them given."""
    [sample] = [item for family in metric.collect() for item in family.samples if not item.name.endswith("_created")]
    return sample.value
