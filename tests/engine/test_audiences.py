"""Audiences' adapters in the engine, behind a socket: held beside the live one, followed, refused, let go of."""

from pathlib import Path

import pytest

from rlhf_online.canary import record
from rlhf_online.config import EngineSettings
from rlhf_online.engine import follower
from rlhf_online.engine.child import LORA_SLOTS, command
from rlhf_online.rewards import audiences
from rlhf_online.versions import pods
from rlhf_online.versions.manifest import audience_kind
from rlhf_online.versions.pods import PodReport
from rlhf_online.versions.registry import Registry
from tests.engine.test_host import hosting, live, publish
from tests.support.fake_vllm import FakeVllm
from tests.support.waiting import eventually


def define(registry: Registry, *names: str) -> None:
    for name in names:
        audiences.define(registry.store, name, {"helpful": 2.0}, {}, ["helpful"])


def promoted(registry: Registry, audience: str) -> str:
    version = publish(registry, tuning="lora", kind=audience_kind(audience))
    registry.promote(version, reason="passed the gate")
    return version


async def test_each_audiences_live_version_is_held_beside_the_common_one_and_followed(
    engine: FakeVllm, registry: Registry
) -> None:
    first = live(registry, tuning="lora", files=False)
    define(registry, "brief", "long")
    async with hosting(engine, registry, tuning="lora", audiences=2) as (host, changes):
        await eventually(lambda: host.audiences == {"brief": "", "long": ""})
        one = promoted(registry, "brief")
        await eventually(lambda: host.audiences == {"brief": one, "long": ""})
        assert (host.serving, dict(host.models)) == (first, {one: one, first: "base"})
        assert f"probe {one}" in engine.calls and f"name {one}" not in engine.calls
        common, two, three = live(registry, tuning="lora"), promoted(registry, "brief"), promoted(registry, "long")
        await eventually(lambda: (host.serving, host.audiences) == (common, {"brief": two, "long": three}))
        assert one in engine.adapters, "a request on its way may still name it"
        four = promoted(registry, "brief")
        await eventually(lambda: host.audiences["brief"] == four)
        await eventually(lambda: set(engine.adapters) == {common, two, three, four})
        registry.rollback(audience_kind("brief"), reason="a test")
        await eventually(lambda: host.audiences["brief"] == two)
        assert engine.calls.count(f"load_lora {two}") == 1, "it was held still"
        audiences.remove(registry.store, "brief")
        await eventually(lambda: host.audiences == {"long": three} and two not in host.models)
        await eventually(lambda: [(c.version, c.previous) for c in changes if c.version == four] == [(four, two)])


async def test_one_that_the_engine_cannot_serve_fails_and_the_one_before_or_the_common_one_answers(
    engine: FakeVllm, registry: Registry
) -> None:
    first = live(registry, tuning="lora", files=False)
    define(registry, "brief")
    bad = publish(registry, tuning="lora", kind=audience_kind("brief"))
    engine.probe_error[bad] = 0.5
    async with hosting(engine, registry, tuning="lora", audiences=1) as (host, changes):
        await eventually(lambda: host.serving == first)
        registry.promote(bad)
        await eventually(lambda: registry.status(bad).state == "failed")
        assert "differ from those of its manifest" in registry.status(bad).reason
        await eventually(lambda: "failed" in [change.state for change in changes])
        assert (host.audiences, host.serving, registry.live("policy")) == ({"brief": ""}, first, first)
        assert bad not in engine.adapters
        good = promoted(registry, "brief")
        await eventually(lambda: host.audiences == {"brief": good})
        damaged = publish(registry, tuning="lora", kind=audience_kind("brief"))
        (registry.path(damaged) / "adapter_model.safetensors").write_bytes(b"")
        registry.promote(damaged)
        await eventually(lambda: registry.status(damaged).state == "failed")
        await eventually(lambda: audiences.live(registry, "brief") == good and host.audiences == {"brief": good})


async def test_one_pod_of_many_that_cannot_hold_it_fails_it_for_nobody_and_tries_again(
    engine: FakeVllm, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follower, "FIRST_RETRY_S", 0.01)
    first = live(registry, tuning="lora", files=False)
    for other in ("other", "third"):
        pods.tell(registry.store, PodReport(pod=other, serving=first))
    define(registry, "brief")
    version = publish(registry, tuning="lora", kind=audience_kind("brief"))
    engine.refuse_load.add(version)
    async with hosting(engine, registry, tuning="lora", audiences=1) as (host, _):
        await eventually(lambda: host.serving == first)
        registry.promote(version)
        await eventually(lambda: version in host.pod.could_not and engine.calls.count(f"load_lora {version}") > 1)
        assert (registry.status(version).state, host.audiences) == ("live", {"brief": ""})
        engine.refuse_load.clear()
        await eventually(lambda: host.audiences == {"brief": version})
        assert version not in host.pod.could_not


async def test_an_engine_that_ended_holds_them_again_and_a_damaged_record_changes_nothing(
    engine: FakeVllm, registry: Registry
) -> None:
    live(registry, tuning="lora", files=False)
    define(registry, "brief")
    async with hosting(engine, registry, tuning="lora", audiences=1) as (host, _):
        version = promoted(registry, "brief")
        await eventually(lambda: host.audiences == {"brief": version})
        registry.store.replace(audiences.KEY, "{", expected=registry.store.read(audiences.KEY))
        engine.healthy = False
        await eventually(lambda: host.restarts == 1)
        assert host.audiences == {"brief": ""}
        engine.healthy = True
        engine.adapters.clear()
        define(registry, "brief")
        await eventually(lambda: host.audiences == {"brief": version} and version in engine.adapters)


async def test_its_canary_is_held_beside_it_and_takes_its_place_without_being_loaded_again(
    engine: FakeVllm, registry: Registry
) -> None:
    first = live(registry, tuning="lora", files=False)
    define(registry, "brief")
    one, kind = promoted(registry, "brief"), audience_kind("brief")
    async with hosting(engine, registry, tuning="lora", audiences=1) as (host, changes):
        await eventually(lambda: host.audiences == {"brief": one})
        two = publish(registry, tuning="lora", kind=kind)
        found = record.begin(registry, two, (0.1, 0.5), {})
        assert found is not None
        await eventually(lambda: host.audience_canaries == {"brief": found})
        assert (host.serving, host.audiences, host.canary) == (first, {"brief": one}, None)
        assert [*host.models] == [one, two, first]
        record.advance(registry, found, "nothing wrong")
        await eventually(lambda: host.audience_canaries["brief"].share == 0.5)
        registry.promote(two, reason="people prefer it", by="trainer")
        await eventually(lambda: (host.audiences, host.audience_canaries) == ({"brief": two}, {}))
        assert engine.calls.count(f"load_lora {two}") == 1
        three = publish(registry, tuning="lora", kind=kind)
        found = record.begin(registry, three, (0.1,), {})
        assert found is not None
        await eventually(lambda: host.audience_canaries == {"brief": found})
        assert {two, three} <= set(engine.adapters), "what was promoted stays"
        record.end(registry, found, "people prefer the other")
        await eventually(lambda: not host.audience_canaries and three not in host.models)
        assert host.audiences == {"brief": two}
        await eventually(lambda: changes[-1].state == "rejected")
        assert [(change.version, change.state, change.previous, change.reason) for change in changes[2:]] == [
            (two, "canary", one, "10% of the conversations: began"),
            (two, "canary", one, "50% of the conversations: nothing wrong"),
            (two, "live", one, "people prefer it"),
            (three, "canary", two, "10% of the conversations: began"),
            (three, "rejected", two, "people prefer the other"),
        ]


async def test_a_canary_that_the_engine_cannot_serve_is_nobodys_and_its_audience_is_answered_as_before(
    engine: FakeVllm, registry: Registry
) -> None:
    live(registry, tuning="lora", files=False)
    define(registry, "brief", "long")
    one = promoted(registry, "brief")
    bad = publish(registry, tuning="lora", kind=audience_kind("brief"))
    engine.probe_error[bad] = 0.5
    async with hosting(engine, registry, tuning="lora", audiences=1) as (host, changes):
        await eventually(lambda: host.audiences == {"brief": one})
        record.begin(registry, bad, (1.0,), {})
        await eventually(lambda: (bad, "failed") in [(change.version, change.state) for change in changes])
        assert "differ from those of its manifest" in registry.status(bad).reason
        assert (host.audiences, host.audience_canaries, registry.live("policy.brief")) == ({"brief": one}, {}, one)
        assert bad not in engine.adapters
        promoted(registry, "long")
        record.begin(registry, publish(registry, tuning="lora", kind=audience_kind("long")), (1.0,), {})
        audiences.remove(registry.store, "brief")
        await eventually(lambda: [*host.audience_canaries] == ["long"], what="one whose audience has a place")


async def test_there_is_an_answer_for_as_many_as_have_a_place(engine: FakeVllm, registry: Registry) -> None:
    live(registry, tuning="lora", files=False)
    define(registry, "brief", "long", "plain")
    async with hosting(engine, registry, tuning="lora", audiences=2) as (host, _):
        await eventually(lambda: [*host.audiences] == ["brief", "long"])
        audiences.remove(registry.store, "brief")
        await eventually(lambda: [*host.audiences] == ["long", "plain"])


def test_the_engine_starts_with_a_place_for_each(tmp_path: Path) -> None:
    words = command(
        EngineSettings(model="m", tuning="lora", audiences=3), "cpu", tmp_path / "socket", dummy_weights=False
    )
    assert words[words.index("--max-loras") + 1] == str(LORA_SLOTS * 4)
