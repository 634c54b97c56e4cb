"""What the chat service tells moves for what happened, and for nothing that a client chooses."""

import asyncio
from types import SimpleNamespace as Space
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics
from prometheus_client.parser import text_string_to_metric_families

from rlhf_online.eventlog.base import Shipping
from rlhf_online.events import now_ms
from rlhf_online.metrics import ChatMetrics, MachineMetrics
from services.chat.completions import in_flight
from services.chat.completions.in_flight import Choice, Generation
from services.chat.console.gauges import Gauges
from tests.support.chat_service import Service
from tests.support.metric_labels import strays
from tests.support.waiting import eventually

TRACE = "0af7651916cd43dd8448eb211c80319c"
THUMB = {"thumb": {"answer": {"completion_id": "a"}, "up": True}}


async def scrape(service: Service, accept: str = "text/plain") -> tuple[str, str]:
    async with service.session.get(service.url + "/metrics", headers={"accept": accept}) as response:
        assert response.status == 200
        return await response.text(), response.headers["content-type"]


async def test_a_request_that_has_no_token_yet_waits(service: Service) -> None:
    await service.engine.hold()
    asked = asyncio.create_task(service.ask())
    await eventually(lambda: service.chat.gateway.active == 1)
    assert await service.metric("rlhf_chat_requests_waiting") == 1
    await service.engine.allow(1)
    await eventually(lambda: any(found.first for found in service.chat.gateway.flight.generations))
    assert await service.metric("rlhf_chat_requests_waiting") == 0
    assert await service.metric("rlhf_chat_requests_in_progress") == 1
    await service.engine.release()
    _, answer = await asked
    assert await service.metric("rlhf_chat_requests_in_progress") == 0
    assert await service.metric("rlhf_chat_prompt_tokens_total") == answer["usage"]["prompt_tokens"] > 0
    assert await service.metric("rlhf_chat_time_per_output_token_seconds_count") == 1
    assert await service.metric("rlhf_chat_longest_token_gap_seconds_count") == 1
    longest_s = await service.metric("rlhf_chat_longest_token_gap_seconds_sum")
    assert longest_s >= await service.metric("rlhf_chat_time_per_output_token_seconds_sum") > 0


def test_the_time_of_a_token_is_that_between_the_first_and_the_last_of_the_longest_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    times = iter([10.0, 10.5, 13.0, 13.5])
    monkeypatch.setattr(in_flight, "time", Space(monotonic=lambda: next(times)))
    long, short = Choice(index=0, spans=()), Choice(index=1, spans=())
    made: dict[str, Any] = {"request": None, "visit": None, "started_ms": 0, "started_s": 0.0, "restarts": 0}
    generation = Generation(**made, choices=[long, short])
    for choice in (long, short, long, long):
        assert generation.token_s() is None or choice is long
        choice.token_ids.append(1)
        generation.token_came()
    assert (generation.token_s(), generation.longest_gap_s) == (1.75, 2.5)


async def test_an_accepted_vote_is_timed_from_its_click_and_one_that_is_refused_is_not(service: Service) -> None:
    accepted = 'rlhf_click_to_live_seconds_count{stage="accepted"}'
    assert (await service.post("/v1/feedback", THUMB))[0] == 200
    assert (await service.post("/v1/feedback", {"thumb": {}}))[0] == 400
    assert await service.metric(accepted) == 1
    service.sink.failing = "future"
    assert (await service.post("/v1/feedback", {"thumb": {**THUMB["thumb"], "up": False}}))[0] == 503
    assert await service.metric(accepted) == 1, "it is not on disk"


async def test_a_scraper_of_openmetrics_sees_the_trace_of_a_slow_answer(service: Service) -> None:
    body = {"messages": [{"role": "user", "content": "hi"}]}
    for sampled in ("01", "00"):
        headers = {"traceparent": f"00-{TRACE if sampled == '01' else 'f' * 32}-00f067aa0ba902b7-{sampled}"}
        async with service.session.post(service.url + "/v1/chat/completions", json=body, headers=headers) as reply:
            assert reply.status == 200
    text, kind = await scrape(service, "application/openmetrics-text;version=1.0.0,text/plain;q=0.5")
    assert kind.startswith("application/openmetrics-text")
    told = {
        (family.name, sample.exemplar.labels["trace_id"])
        for family in read_openmetrics(text)
        for sample in family.samples
        if sample.exemplar
    }
    names = ("latency_seconds", "first_token_seconds", "time_per_output_token_seconds", "longest_token_gap_seconds")
    assert told == {(f"rlhf_chat_{name}", TRACE) for name in names}, "only of traces that are recorded"
    assert "trace_id" not in (await scrape(service))[0]


async def test_what_kafka_has_confirmed_is_counted_and_a_forwarder_that_goes_back_takes_nothing_off(
    service: Service,
) -> None:
    for confirmed, refused, counted in ((5, 2, 5), (3, 0, 5), (9, 0, 9)):
        service.sink.ships = Shipping(confirmed=confirmed, refused=refused)
        assert await service.metric("rlhf_log_shipped_records_total") == counted
        assert await service.metric("rlhf_log_refused_total") == 2


async def test_since_when_a_version_serves_is_told_when_it_begins(service: Service) -> None:
    before = await service.metric("rlhf_serving_since_timestamp_seconds")
    await service.host.swap("policy-000001")
    began = await service.metric("rlhf_serving_since_timestamp_seconds")
    assert began > before and abs(began - now_ms() / 1000) < 60
    await service.host.swap("policy-000002", ok=False)
    assert await service.metric("rlhf_serving_since_timestamp_seconds") == began


async def test_vllms_metrics_are_handed_on_as_they_are_and_an_engine_that_is_away_is_a_503(service: Service) -> None:
    async with service.session.get(service.url + "/metrics/engine") as response:
        assert (response.status, response.headers["content-type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
        assert await response.text() == service.engine.metrics
    await service.engine.stop()
    status, body = await service.get("/metrics/engine")
    assert (status, body["error"]["type"]) == (503, "server_error")
    assert str(service.engine.url.removeprefix("unix:")) not in body["error"]["message"]


def test_votes_that_wait_and_versions_are_told_as_the_console_counts_them() -> None:
    gauges = Gauges(ChatMetrics(registry := CollectorRegistry()))
    found: Any = [
        Space(kind="policy", status=Space(state=state)) for state in ("retired", "retired", "live", "rejected")
    ]
    flow: Any = {"backlog": 3, "oldest_waiting_ms": now_ms() - 90_000}
    gauges.tell(flow, found)

    def value(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(f"rlhf_{name}", labels)

    assert value("votes_waiting") == 3 and 90 <= (value("votes_waiting_seconds") or 0) < 100
    assert [value("versions", kind="policy", state=state) for state in ("retired", "live", "failed")] == [2, 1, 0]
    assert value("versions", kind="reward", state="live") == 0
    flow |= {"backlog": 0, "oldest_waiting_ms": 0}
    gauges.tell(flow, [])
    assert (value("votes_waiting"), value("votes_waiting_seconds")) == (0, 0)
    assert value("versions", kind="policy", state="live") == 0


async def test_whatever_clients_send_there_are_no_more_series_and_each_keeps_to_the_catalogue(
    service: Service,
) -> None:
    """Thousands of people, conversations, models, paths, votes and reasons, each of its own."""

    async def series() -> set[tuple[str, ...]]:
        families = text_string_to_metric_families((await scrape(service))[0])
        return {
            (sample.name, *(f"{name}={value}" for name, value in sorted(sample.labels.items())))
            for family in families
            for sample in family.samples
        }

    async def trouble(n: int) -> None:
        message = {"messages": [{"role": "user", "content": f"question {n}"}]}
        match n % 5:
            case 0:
                await service.post("/v1/chat/completions", {**message, "user": f"person-{n}"})
            case 1:
                await service.post("/v1/chat/completions", {**message, "model": f"model-{n}"})
            case 2:
                await service.post("/v1/feedback", {"thumb": {"answer": {"completion_id": f"c-{n}"}, "up": True}})
            case 3:
                await service.post("/v1/feedback", {f"kind-{n}": {}, "user": f"person-{n}"})
            case _:
                async with service.session.get(f"{service.url}/path-{n}", headers={"origin": f"https://o{n}.example"}):
                    pass

    before: set[tuple[str, ...]] = set()
    for start in range(0, 2000, 50):
        await asyncio.gather(*(trouble(n) for n in range(start, start + 50)))
        before = before or await series()
    after = await series()
    assert {each for each in after - before if not each[0].startswith("rlhf_versions")} == set()
    assert len(after) < 700
    machine = MachineMetrics(service.state.root, CollectorRegistry())
    entries = [*service.chat.gateway.metrics.entries, *machine.entries]
    assert strays((await scrape(service))[0], entries) == []
