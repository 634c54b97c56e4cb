"""The canary in the engine, behind a socket: held beside the live version, let go of, refused; on a pod of its own."""

import pytest

from rlhf_online.canary import record
from rlhf_online.engine import follower
from rlhf_online.engine.host import EngineHost
from rlhf_online.versions import pods
from rlhf_online.versions.manifest import Change
from rlhf_online.versions.pods import PodReport
from rlhf_online.versions.registry import Registry
from tests.engine.test_host import hosting, live, publish
from tests.support.fake_vllm import FakeVllm
from tests.support.waiting import eventually


def told(changes: list[Change]) -> list[tuple[str, str, str]]:
    return [(change.version, change.state, change.reason) for change in changes]


def held(host: EngineHost) -> str:
    return host.canary.version if host.canary is not None else ""


async def test_it_is_held_beside_the_live_version_at_its_share_and_let_go_of(
    engine: FakeVllm, registry: Registry
) -> None:
    first = live(registry, tuning="lora", files=False)
    async with hosting(engine, registry, tuning="lora") as (host, changes):
        await eventually(lambda: host.serving == first)
        candidate = publish(registry, tuning="lora")
        found = record.begin(registry, candidate, (0.1, 0.5), {})
        assert found is not None
        await eventually(lambda: held(host) == candidate)
        assert (host.serving, [*host.models]) == (first, [candidate, first])
        assert f"probe {candidate}" in engine.calls and f"name {candidate}" not in engine.calls
        record.advance(registry, found, "nothing wrong")
        await eventually(lambda: host.canary is not None and host.canary.share == 0.5)
        record.end(registry, found, "people prefer the other")
        await eventually(lambda: not held(host))
        assert [*host.models] == [first]
        await eventually(lambda: "rejected" in [change.state for change in changes])
        assert [(change.version, change.state, change.previous, change.reason) for change in changes[1:]] == [
            (candidate, "canary", first, "10% of the conversations: began"),
            (candidate, "canary", first, "50% of the conversations: nothing wrong"),
            (candidate, "rejected", first, "people prefer the other"),
        ]
        assert engine.calls.count(f"load_lora {candidate}") == 1


async def test_it_becomes_the_live_version_without_being_loaded_again_and_the_next_one_takes_its_place(
    engine: FakeVllm, registry: Registry
) -> None:
    live(registry, tuning="lora", files=False)
    async with hosting(engine, registry, tuning="lora") as (host, changes):
        await eventually(lambda: host.serving)
        candidate = publish(registry, tuning="lora")
        record.begin(registry, candidate, (0.1,), {})
        await eventually(lambda: held(host) == candidate)
        registry.promote(candidate, reason="people prefer it")
        await eventually(lambda: host.serving == candidate)
        assert not held(host)
        assert engine.calls.count(f"load_lora {candidate}") == 1
        await eventually(lambda: (candidate, "live", "people prefer it") in told(changes))
        second, third = publish(registry, tuning="lora"), publish(registry, tuning="lora")
        found = record.begin(registry, second, (0.1,), {})
        await eventually(lambda: held(host) == second)
        assert found is not None
        record.end(registry, found, "worse")
        record.begin(registry, third, (0.1,), {})
        await eventually(lambda: held(host) == third)
        assert [*host.models][-2:] == [third, candidate]
        await eventually(lambda: set(engine.adapters) == {candidate, third}, what="only the live one and the canary")


async def test_one_that_the_engine_cannot_serve_is_nobodys_canary(engine: FakeVllm, registry: Registry) -> None:
    first = live(registry, tuning="lora", files=False)
    async with hosting(engine, registry, tuning="lora") as (host, changes):
        await eventually(lambda: host.serving == first)
        candidate = publish(registry, tuning="lora")
        engine.probe_error[candidate] = 0.5
        record.begin(registry, candidate, (1.0,), {})
        await eventually(lambda: "failed" in [change.state for change in changes])
        assert "differ from those of its manifest" in registry.status(candidate).reason
        assert (host.serving, held(host), record.under_way(registry)) == (first, "", None)
        assert candidate not in host.models and candidate not in engine.adapters


async def test_one_pod_of_many_that_cannot_hold_it_fails_it_for_nobody_and_tries_again(
    engine: FakeVllm, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follower, "FIRST_RETRY_S", 0.01)
    first = live(registry, tuning="lora", files=False)
    for other in ("other", "third"):
        pods.tell(registry.store, PodReport(pod=other, serving=first))
    async with hosting(engine, registry, tuning="lora") as (host, _):
        await eventually(lambda: host.serving == first)
        candidate = publish(registry, tuning="lora")
        engine.refuse_load.add(candidate)
        record.begin(registry, candidate, (1.0,), {})
        await eventually(lambda: candidate in host.pod.could_not and engine.calls.count(f"load_lora {candidate}") > 1)
        assert (host.serving, held(host), registry.status(candidate).state) == (first, "", "canary")
        assert pods.tally(pods.reports(registry.store), candidate).could_not == 1
        engine.refuse_load.clear()
        await eventually(lambda: held(host) == candidate)
        await eventually(lambda: pods.tally(pods.reports(registry.store), candidate).could_not == 0)


async def test_one_that_most_pods_cannot_hold_is_nobodys_canary(engine: FakeVllm, registry: Registry) -> None:
    first = live(registry, tuning="lora", files=False)
    candidate = publish(registry, tuning="lora")
    pods.tell(registry.store, PodReport(pod="other", serving=first, could_not={candidate: "no memory"}))
    async with hosting(engine, registry, tuning="lora") as (host, _):
        await eventually(lambda: host.serving == first)
        engine.refuse_load.add(candidate)
        record.begin(registry, candidate, (1.0,), {})
        await eventually(lambda: registry.status(candidate).state == "failed")


async def test_one_that_the_engine_dies_of_is_loaded_twice_and_no_more(engine: FakeVllm, registry: Registry) -> None:
    first = live(registry, tuning="lora", files=False)
    async with hosting(engine, registry, tuning="lora") as (host, _):
        await eventually(lambda: host.serving == first)
        candidate = publish(registry, tuning="lora")
        engine.dies_of.add(candidate)
        record.begin(registry, candidate, (1.0,), {})
        await eventually(lambda: registry.status(candidate).state == "failed")
        assert registry.status(candidate).reason == "the engine died on it twice"
        assert engine.calls.count(f"load_lora {candidate}") == 2
        assert (host.serving, held(host), record.under_way(registry)) == (first, "", None)


async def test_of_whole_weights_a_pod_that_starts_on_one_that_it_cannot_serve_serves_the_live_version(
    engine: FakeVllm, registry: Registry
) -> None:
    first, candidate = live(registry), publish(registry, 3)
    record.begin(registry, candidate, (0.1,), {})
    engine.refuse_load.add(candidate)
    for other in ("other", "third"):
        pods.tell(registry.store, PodReport(pod=other, serving=candidate, canary=True))
    async with hosting(engine, registry, canary=True) as (host, _):
        await eventually(lambda: f"load {candidate}" in engine.calls)
        await eventually(lambda: host.serving == first and engine.holds == first)
        assert (host.state, registry.status(candidate).state) == ("ready", "canary")


async def test_of_whole_weights_a_pod_of_its_own_serves_it_and_goes_back_when_it_ends(
    engine: FakeVllm, registry: Registry
) -> None:
    first = live(registry)
    async with hosting(engine, registry, canary=True) as (host, changes):
        await eventually(lambda: host.serving == first)
        candidate = publish(registry, 3)
        found = record.begin(registry, candidate, (0.1,), {})
        assert found is not None
        await eventually(lambda: host.serving == candidate)
        assert host.state == "ready" and held(host) == "" and registry.live("policy") == first
        record.end(registry, found, "people prefer the other")
        await eventually(lambda: host.serving == first)
        assert ("live", candidate) not in [(change.state, change.version) for change in changes]


async def test_of_whole_weights_another_pod_serves_the_live_version_on(engine: FakeVllm, registry: Registry) -> None:
    first = live(registry)
    async with hosting(engine, registry) as (host, changes):
        await eventually(lambda: host.serving == first)
        record.begin(registry, publish(registry, 3), (1.0,), {})
        await eventually(lambda: "canary" in [change.state for change in changes])
        assert (host.serving, held(host)) == (first, "")
