"""What a scraper is answered: the classic text, or OpenMetrics, as it asks."""

import subprocess
from pathlib import Path

import httpx
import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics
from prometheus_client.parser import text_string_to_metric_families as read_text

from rlhf_online.metrics import (
    ChatMetrics,
    MachineMetrics,
    RewardMetrics,
    TrainerMetrics,
    exposition,
    serve,
    show_version,
)
from tests.support.ops_tools import tool

OPENMETRICS = "application/openmetrics-text;version=1.0.0;q=0.8,text/plain;version=0.0.4;q=0.5"


@pytest.mark.parametrize("service", [ChatMetrics, RewardMetrics, TrainerMetrics])
def test_both_formats_say_the_same(service: type[ChatMetrics | RewardMetrics | TrainerMetrics]) -> None:
    service(registry := CollectorRegistry())
    text, kind = exposition(registry, "")
    assert kind == "text/plain; version=0.0.4; charset=utf-8"
    classic = [sample for family in read_text(text.decode()) for sample in family.samples]
    text, kind = exposition(registry, OPENMETRICS)
    assert kind.startswith("application/openmetrics-text; version=1.0.0")
    modern = [sample for family in read_openmetrics(text.decode()) for sample in family.samples]
    assert {(s.name, *sorted(s.labels.items())) for s in classic} == {
        (s.name, *sorted(s.labels.items())) for s in modern
    }
    assert classic and not [sample for sample in classic if sample.name.endswith("_created")]


def test_a_bucket_remembers_a_trace_for_openmetrics_alone() -> None:
    metrics = ChatMetrics(registry := CollectorRegistry())
    metrics.latency.observe(0.3, {"trace_id": "0af7651916cd43dd8448eb211c80319c"})
    assert b"trace_id" not in exposition(registry, "text/plain")[0]
    families = read_openmetrics(exposition(registry, OPENMETRICS)[0].decode())
    [latency] = [family for family in families if family.name == "rlhf_chat_latency_seconds"]
    told = {sample.labels["le"]: sample.exemplar for sample in latency.samples if sample.exemplar}
    assert [(le, found.labels, found.value) for le, found in told.items()] == [
        ("0.5", {"trace_id": "0af7651916cd43dd8448eb211c80319c"}, 0.3)
    ]


@pytest.mark.parametrize("accept", ["application/openmetrics-text;version=new", "nonsense;;;=", "text/plain;version=x"])
def test_who_asks_for_what_there_is_not_gets_the_classic_text(accept: str) -> None:
    RewardMetrics(registry := CollectorRegistry())
    assert exposition(registry, accept)[1] == "text/plain; version=0.0.4; charset=utf-8"
    reply = httpx.get(f"http://127.0.0.1:{serve(registry, '127.0.0.1', 0)}/metrics", headers={"accept": accept})
    assert (reply.status_code, reply.headers["content-type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")


def test_who_would_take_native_histograms_is_answered_with_classic_ones() -> None:
    """prometheus_client writes no protobuf, in which alone Prometheus takes them, and its histograms hold none."""
    RewardMetrics(registry := CollectorRegistry())
    proto = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.6"
    assert exposition(registry, f"{proto},{OPENMETRICS}")[1].startswith("application/openmetrics-text; version=1.0.0")
    samples = [sample for family in registry.collect() for sample in family.samples]
    assert [each for each in samples if each.name.endswith("_bucket")]
    assert not [each for each in samples if each.native_histogram is not None]


def test_an_info_gauge_shows_one_version() -> None:
    metrics = RewardMetrics(CollectorRegistry())
    for version in ("reward-000001", "reward-000002", ""):
        show_version(metrics.serving, version)
        samples = [sample for family in metrics.serving.collect() for sample in family.samples]
        assert [(sample.labels["version"], sample.value) for sample in samples] == ([(version, 1.0)] if version else [])


def test_a_service_is_scraped_over_http_as_the_scraper_asks_and_may_be_asked_for_some_names_alone() -> None:
    metrics = RewardMetrics(registry := CollectorRegistry())
    metrics.items.inc(3)
    url = f"http://127.0.0.1:{serve(registry, '127.0.0.1', 0)}/metrics"
    reply = httpx.get(url, headers={"accept": OPENMETRICS})
    assert reply.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    assert "rlhf_reward_items_total 3.0" in reply.text and "_created" not in reply.text
    some = httpx.get(url, params={"name[]": "rlhf_reward_items_total"}).text
    assert {line.split()[0] for line in some.splitlines() if line[:1] != "#"} == {"rlhf_reward_items_total"}


@pytest.mark.parametrize("service", [ChatMetrics, RewardMetrics, TrainerMetrics])
def test_prometheus_own_linter_finds_nothing(
    service: type[ChatMetrics | RewardMetrics | TrainerMetrics], tmp_path: Path
) -> None:
    service(registry := CollectorRegistry())
    MachineMetrics(tmp_path, registry)
    text, _ = exposition(registry, "")
    checked = subprocess.run(
        [tool("promtool"), "check", "metrics"], input=text, capture_output=True, timeout=60, check=False
    )
    assert (checked.returncode, checked.stderr.decode()) == (0, "")
