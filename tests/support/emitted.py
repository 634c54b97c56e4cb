"""Every metric that the product emits, as Prometheus sees it, with its labels: what alerts and dashboards may name."""

from pathlib import Path

from prometheus_client import CollectorRegistry

from rlhf_online.metrics import ChatMetrics, MachineMetrics, RewardMetrics, TrainerMetrics
from rlhf_online.metrics.catalogue import Entry

ENGINE = {
    "vllm:num_requests_running", "vllm:num_requests_waiting", "vllm:kv_cache_usage_perc", "vllm:prompt_tokens_total",
    "vllm:generation_tokens_total", "vllm:prefix_cache_hits_total", "vllm:prefix_cache_queries_total",
    "vllm:time_to_first_token_seconds_bucket", "vllm:inter_token_latency_seconds_bucket",
}  # fmt: skip
"""The engine's own that are asked for; tests/ops/dashboards/test_answers.py sees vLLM emit them."""
PROMETHEUS = {"up"}
"""What Prometheus itself writes of each target."""


def emitted() -> dict[str, set[str]]:
    """Names of series, a histogram's three among them, and the labels of each besides the target's."""
    registry = CollectorRegistry()
    entries = [
        *ChatMetrics(registry).entries,
        *RewardMetrics(registry).entries,
        *TrainerMetrics(CollectorRegistry()).entries,
    ]
    entries += MachineMetrics(Path(), registry).entries
    found: dict[str, set[str]] = {name: {"model_name", "engine", "le"} for name in ENGINE} | {
        name: set() for name in PROMETHEUS
    }
    for entry in entries:
        found |= _series(entry)
    return found


def _series(entry: Entry) -> dict[str, set[str]]:
    labels = {label.name for label in entry.labels}
    if entry.type != "histogram":
        return {entry.name: labels}
    return {f"{entry.name}_bucket": labels | {"le"}, f"{entry.name}_sum": labels, f"{entry.name}_count": labels}
