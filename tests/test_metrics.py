"""The metrics' names as Prometheus sees them: dashboards and alerts rely on them."""

import shutil
import time
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from rlhf_online.metrics import ChatMetrics, MachineMetrics, RewardMetrics, TrainerMetrics, show_version
from tests.support.small_disk import cannot_mount, small_disk


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


def test_each_file_system_of_the_state_folder_is_told_once(tmp_path: Path) -> None:
    state = tmp_path / "state"
    if why := cannot_mount(state / "checkpoints"):
        pytest.skip(why)
    (state / "log").mkdir()
    with small_disk(state / "checkpoints", mib=4) as disk:
        MachineMetrics(state, registry := CollectorRegistry())
        disk.fill()

        def told(name: str, folder: str) -> float | None:
            return registry.get_sample_value(name, {"folder": folder})

        assert told("rlhf_state_free_bytes", "checkpoints") == 0
        assert told("rlhf_state_size_bytes", "checkpoints") == 4 << 20
        assert told("rlhf_state_size_bytes", "state") == shutil.disk_usage(state).total
        assert told("rlhf_state_size_bytes", "log") is None, "it lies on the same disk"
        assert told("rlhf_state_size_bytes", "versions") is None, "it is not there yet"


def test_the_clock_is_read_at_each_scrape(tmp_path: Path) -> None:
    MachineMetrics(tmp_path, registry := CollectorRegistry())
    before, told, after = time.time(), registry.get_sample_value("rlhf_time_seconds"), time.time()
    assert told is not None and before <= told <= after
