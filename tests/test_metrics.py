"""The metrics' names as Prometheus sees them: dashboards and alerts rely on them."""

from prometheus_client import CollectorRegistry, generate_latest

from rlhf_online.metrics import ChatMetrics, RewardMetrics, TrainerMetrics, show_version


def names(registry: CollectorRegistry) -> set[str]:
    lines = generate_latest(registry).decode().splitlines()
    return {line.split()[2] for line in lines if line.startswith("# TYPE")}


def test_the_names_of_the_chat_service() -> None:
    registry = CollectorRegistry()
    ChatMetrics(registry)
    assert {
        "rlhf_chat_requests_total",
        "rlhf_chat_tokens_total",
        "rlhf_chat_latency_seconds",
        "rlhf_chat_first_token_seconds",
        "rlhf_feedback_total",
        "rlhf_log_append_seconds",
        "rlhf_log_failures_total",
        "rlhf_log_backlog_records",
        "rlhf_log_backlog_seconds",
        "rlhf_swaps_total",
        "rlhf_swap_pause_seconds",
        "rlhf_engine_restarts_total",
        "rlhf_serving_version_info",
    } <= names(registry)


def test_the_names_of_reward_and_trainer_do_not_collide() -> None:
    registry = CollectorRegistry()
    RewardMetrics(registry)
    TrainerMetrics(registry)
    ChatMetrics(registry)
    found = names(registry)
    assert {"rlhf_reward_items_total", "rlhf_reward_batch_size", "rlhf_reward_latency_seconds"} <= found
    assert {"rlhf_trainer_cycles_total", "rlhf_trainer_kl", "rlhf_trainer_phase_seconds"} <= found
    assert all(name.startswith("rlhf_") for name in found)


def test_an_info_gauge_shows_one_version() -> None:
    metrics = RewardMetrics(CollectorRegistry())
    for version in ("reward-000001", "reward-000002", ""):
        show_version(metrics.serving, version)
        samples = [sample for family in metrics.serving.collect() for sample in family.samples]
        assert [(sample.labels["version"], sample.value) for sample in samples] == ([(version, 1.0)] if version else [])
