"""The host's decisions, against an engine that is a fake behind a socket (`mode = external`)."""

import asyncio
import errno
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from rlhf_online import tracing
from rlhf_online.config import EngineSettings, SwapSettings, Tuning
from rlhf_online.engine import host as module
from rlhf_online.engine import loader
from rlhf_online.engine.host import EngineHost
from rlhf_online.simulation.tiny_model import write_tiny_model
from rlhf_online.state import StateDir
from rlhf_online.versions.folder_store import FolderStore
from rlhf_online.versions.manifest import Change, Kind, Manifest, ProbeSequence
from rlhf_online.versions.registry import Registry
from tests.support.counting_registry import CountingRegistry
from tests.support.fake_vllm import FakeVllm
from tests.support.otlp import receiver
from tests.support.waiting import eventually

PROBE = (ProbeSequence(token_ids=(1, 2, 3), logprobs=(-0.5, -1.5)),)


@asynccontextmanager
async def hosting(
    engine: FakeVllm,
    registry: Registry,
    *,
    tuning: Tuning = "full",
    pause_timeout_s: float = 5.0,
    canary: bool = False,
    audiences: int = 0,
) -> AsyncIterator[tuple[EngineHost, list[Change]]]:
    assert isinstance(registry.store, FolderStore)
    state = StateDir(registry.store.root.parent)
    base = state.root / "base"
    write_tiny_model(base, weights_seed=1)
    places = {"audiences": audiences} if audiences else {}
    settings = EngineSettings.model_validate(
        {"mode": "external", "url": engine.url, "model": str(base), "tuning": tuning, **places}
    )
    swap = SwapSettings(poll_s=0.01, pause_timeout_s=pause_timeout_s, canary=canary)
    host = EngineHost(settings, swap, registry, state)
    changes: list[Change] = []

    async def note(change: Change) -> None:
        changes.append(change)

    host.on_change.append(note)
    running = asyncio.create_task(host.run())
    try:
        yield host, changes
    finally:
        await host.close()
        await running


def publish(
    registry: Registry,
    seed: int = 2,
    *,
    tuning: Tuning = "full",
    files: bool = True,
    traceparent: str = "",
    kind: Kind = "policy",
) -> str:
    version = registry.reserve(kind)
    staged = registry.stage(version)
    if tuning == "full":
        write_tiny_model(staged, weights_seed=seed)
    elif files:
        name = "base_model.model.model.layers.0.self_attn.q_proj"
        tensors = {f"{name}.lora_A.weight": np.ones((4, 64)), f"{name}.lora_B.weight": np.ones((64, 4))}
        save_file({k: v.astype(np.float32) for k, v in tensors.items()}, staged / "adapter_model.safetensors")
        (staged / "adapter_config.json").write_text('{"r": 4}')
    registry.publish(Manifest(version=version, tuning=tuning, probe=PROBE if files else (), traceparent=traceparent))
    return version


def live(registry: Registry, seed: int = 2, *, tuning: Tuning = "full", files: bool = True) -> str:
    version = publish(registry, seed, tuning=tuning, files=files)
    registry.promote(version)
    return version


async def test_it_waits_for_the_first_version_and_then_follows(engine: FakeVllm, registry: Registry) -> None:
    async with hosting(engine, registry) as (host, changes):
        await eventually(lambda: host.state == "waiting")
        assert host.serving == "" and engine.calls == []
        first = live(registry)
        await eventually(lambda: host.serving == first)
        assert host.state == "ready" and host.model_name == "base"
        second = live(registry, 3)
        await eventually(lambda: host.serving == second)
        await eventually(lambda: len(changes) == 2)
        assert [(c.version, c.state, c.previous) for c in changes] == [(first, "live", ""), (second, "live", first)]
        assert [(s.version, s.ok) for s in host.swaps] == [(first, True), (second, True)]
        assert engine.calls[-6:] == ["pause", f"load {second}", "reset", f"probe {second}", f"name {second}", "resume"]


async def test_a_version_that_is_published_twice_is_loaded_once(
    engine: FakeVllm, registry: Registry, tmp_path: Path
) -> None:
    """A trainer that was killed after the live pointer moved publishes and promotes again when it restarts."""
    registry = CountingRegistry(tmp_path / "versions")
    async with hosting(engine, registry) as (host, changes):
        first = publish(registry)
        registry.store.replace("live/policy", first, expected=None)  # the kill: a candidate still
        await eventually(lambda: host.serving == first)
        registry.stage(first)
        registry.publish(Manifest(version=first, tuning="full", probe=PROBE))
        registry.promote(first)
        reads = registry.reads
        await eventually(lambda: registry.reads > reads + 2)
        assert engine.calls.count(f"load {first}") == 1
        assert [(c.version, c.state) for c in changes] == [(first, "live")]


@pytest.mark.parametrize("record", ["live/policy", "states/policy-000001.json", "states/policy-000000.json"])
async def test_damaged_weights_and_a_damaged_record_beside_them_leave_the_version_before(
    engine: FakeVllm, registry: Registry, record: str
) -> None:
    first, second = live(registry, 2), live(registry, 3)
    first = first if record != "states/policy-000000.json" else live(registry, 4)
    registry.promote(second)
    (registry.path(second) / "model.safetensors").write_bytes(b"")
    assert isinstance(registry.store, FolderStore)
    (registry.store.root / record).write_bytes(b"")
    async with hosting(engine, registry) as (host, _):
        await eventually(lambda: host.state == "ready")
        assert host.serving == first
    assert registry.live("policy") == first
    assert registry.status(second).state == "failed"


async def test_an_operators_roll_back_is_followed(engine: FakeVllm, registry: Registry) -> None:
    first = live(registry)
    async with hosting(engine, registry) as (host, _):
        await eventually(lambda: host.serving == first)
        second = live(registry, 3)
        await eventually(lambda: host.serving == second)
        registry.rollback("policy", reason="worse")
        await eventually(lambda: host.serving == first)
        assert engine.holds == first


async def test_a_corrupt_version_never_reaches_the_engine(engine: FakeVllm, registry: Registry) -> None:
    first = live(registry)
    async with hosting(engine, registry) as (host, changes):
        await eventually(lambda: host.serving == first)
        bad = publish(registry, 3)
        weights = registry.path(bad) / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-1] + b"!")
        calls = len(engine.calls)
        registry.promote(bad)
        await eventually(lambda: len(changes) == 2)
        assert (changes[-1].version, changes[-1].state) == (bad, "failed") and "SHA-256" in changes[-1].reason
        assert engine.calls[calls:] == []
        assert registry.live("policy") == host.serving == first
        assert registry.status(bad).state == "failed"
        third = live(registry, 4)
        await eventually(lambda: host.serving == third)


async def test_a_version_whose_probe_fails_is_rolled_back_once(engine: FakeVllm, registry: Registry) -> None:
    first = live(registry)
    async with hosting(engine, registry) as (host, changes):
        await eventually(lambda: host.serving == first)
        bad = publish(registry, 3)
        engine.probe_error[bad] = 0.5
        registry.promote(bad)
        await eventually(lambda: len(changes) == 2)
        assert (host.state, host.serving, registry.live("policy")) == ("ready", first, first)
        assert engine.calls.count(f"load {bad}") == 1 and engine.holds == first
        assert [(s.version, s.ok) for s in host.swaps] == [(first, True), (bad, False)]


@pytest.mark.parametrize("tuning", ["full", "lora"])
async def test_a_first_version_that_fails_is_said_and_waited_out(
    engine: FakeVllm, registry: Registry, tuning: Tuning
) -> None:
    bad = publish(registry, tuning=tuning)
    engine.probe_error[bad] = 0.5
    registry.promote(bad)
    async with hosting(engine, registry, tuning=tuning) as (host, changes):
        await eventually(lambda: bool(changes))
        await eventually(lambda: host.state == "waiting")
        assert "0.5 nats" in host.failure and "no version before it" in host.failure and "engine.dtype" in host.failure
        assert (host.serving, registry.live("policy"), registry.status(bad).state) == ("", bad, "live")
        good = live(registry, 3, tuning=tuning)
        await eventually(lambda: host.serving == good)
        assert engine.calls.count(f"probe {bad}") == 1


async def test_a_first_version_that_fails_stays_unserved_over_an_engines_restart_and_is_tried_again_by_the_next_start(
    engine: FakeVllm, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "HEALTH_S", 0.01)
    first = live(registry)
    engine.probe_error[first] = 0.5
    async with hosting(engine, registry) as (host, _):
        await eventually(lambda: "0.5 nats" in host.failure)
        engine.healthy = False
        await eventually(lambda: "health check" in host.failure)
        engine.healthy = True
        await eventually(lambda: host.state == "waiting")
        assert "0.5 nats" in host.failure and engine.calls.count(f"probe {first}") == 1
    del engine.probe_error[first]
    async with hosting(engine, registry) as (host, _):
        await eventually(lambda: host.serving == first)
        assert host.state == "ready" and registry.status(first).state == "live"


async def test_versions_that_all_fail_are_tried_once_each_down_to_the_first(
    engine: FakeVllm, registry: Registry
) -> None:
    versions = [live(registry, seed) for seed in (2, 3, 4)]
    engine.probe_error |= dict.fromkeys(versions, 0.5)
    async with hosting(engine, registry) as (host, changes):
        await eventually(lambda: len(changes) == 3)
        await eventually(lambda: "no version before it" in host.failure)
        assert [change.version for change in changes] == versions[::-1]
        assert [registry.status(version).state for version in versions] == ["live", "failed", "failed"]
        assert host.state == "waiting" and "resume" not in engine.calls


async def test_a_pause_that_times_out_blames_no_version(engine: FakeVllm, registry: Registry) -> None:
    first = live(registry)
    engine.pause_delay_s = 30
    async with hosting(engine, registry, pause_timeout_s=0.05) as (host, changes):
        await eventually(lambda: len(host.swaps) == 1)
        assert host.swaps[0].postponed and changes == []
        engine.pause_delay_s = 0
        await eventually(lambda: host.serving == first)
        assert registry.status(first).state == "live"


async def test_an_engine_that_comes_back_gets_its_version_again(
    engine: FakeVllm, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "HEALTH_S", 0.01)
    first = live(registry)
    async with hosting(engine, registry) as (host, _):
        await eventually(lambda: host.serving == first)
        engine.healthy = False
        await eventually(lambda: host.state == "restarting")
        assert host.serving == "" and host.restarts >= 1 and "health check" in host.failure
        engine.healthy = True
        await eventually(lambda: host.state == "ready")
        assert host.serving == first and engine.calls.count(f"load {first}") == 2


async def test_adapters_change_the_model_name_and_old_ones_go(engine: FakeVllm, registry: Registry) -> None:
    genesis = live(registry, tuning="lora", files=False)
    async with hosting(engine, registry, tuning="lora") as (host, changes):
        await eventually(lambda: host.serving == genesis)
        assert host.model_name == "base"
        versions = []
        for _ in range(3):
            versions.append(live(registry, tuning="lora"))
            await eventually(lambda: host.serving == versions[-1])
            assert host.model_name == versions[-1]
            await eventually(lambda: list(engine.adapters) == versions[-2:])
            assert list(host.models) == [genesis, *versions[-2:]]
            assert host.models[genesis] == "base"
        assert "pause" not in engine.calls
        registry.rollback("policy", reason="worse")
        await eventually(lambda: len(changes) == 5)
        assert host.serving == host.model_name == versions[1]
        assert list(host.models) == [genesis, versions[1]], "a version that failed is not to be asked for"
        assert engine.adapters[versions[2]] == registry.path(versions[1]), "what it was writing goes on with the other"
        assert engine.calls[-4:] == ["pause", "reset", f"replace_lora {versions[2]} by {versions[1]}", "resume"]
        assert [c.state for c in changes] == ["live"] * 5


@pytest.mark.parametrize("our_worker", [True, False])
async def test_an_engine_that_others_started_keeps_the_base_model_apart_from_adapters_if_it_can(
    engine: FakeVllm, registry: Registry, our_worker: bool
) -> None:
    engine.our_worker = our_worker
    first = live(registry, tuning="lora", files=False)
    for starts in (1, 2):
        async with hosting(engine, registry, tuning="lora") as (host, _):
            await eventually(lambda: host.serving == first)
        assert engine.grouped == starts, "the engine may be another one at each start"


async def test_answers_of_a_failed_adapter_go_on_as_the_base_models(engine: FakeVllm, registry: Registry) -> None:
    """The version before it has no adapter, so that one takes its place that changes nothing."""
    genesis = live(registry, tuning="lora", files=False)
    async with hosting(engine, registry, tuning="lora") as (host, changes):
        await eventually(lambda: host.serving == genesis)
        bad = live(registry, tuning="lora")
        await eventually(lambda: host.serving == bad)
        registry.rollback("policy", reason="worse")
        await eventually(lambda: len(changes) == 3)
        assert (host.serving, host.model_name, list(host.models)) == (genesis, "base", [genesis])
        stand_in = engine.adapters[bad]
        assert engine.calls[-2] == f"replace_lora {bad} by {bad}" and stand_in != registry.path(bad)
        like, zero = (load_file(folder / "adapter_model.safetensors") for folder in (registry.path(bad), stand_in))
        assert {name: tensor.shape for name, tensor in like.items()} == {k: v.shape for k, v in zero.items()}
        assert all(tensor.any() for tensor in like.values()) and not any(tensor.any() for tensor in zero.values())
        assert (stand_in / "adapter_config.json").read_text() == '{"r": 4}'
        again = live(registry, tuning="lora")
        await eventually(lambda: host.serving == again)


async def test_a_disk_too_full_for_that_leaves_the_new_version_serving(
    engine: FakeVllm, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    genesis = live(registry, tuning="lora", files=False)
    async with hosting(engine, registry, tuning="lora") as (host, changes):
        bad = live(registry, tuning="lora")
        await eventually(lambda: host.serving == bad)

        def full(like: Path, folder: Path) -> Path:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(loader, "write_no_adapter", full)
        registry.rollback("policy", reason="worse")
        await eventually(lambda: len(changes) > 1 and changes[-1].version == genesis)
        assert (host.serving, host.model_name, host.state) == (genesis, "base", "ready")
        assert "pause" not in engine.calls


async def test_an_adapter_that_vllm_cannot_serve_is_no_sign_of_a_sick_engine(
    engine: FakeVllm, registry: Registry
) -> None:
    """vLLM answers 500, and lives on: the version is refused, once, and the one before it goes on."""
    first = live(registry, tuning="lora", files=False)
    async with hosting(engine, registry, tuning="lora") as (host, changes):
        await eventually(lambda: host.serving == first)
        bad = publish(registry, tuning="lora")
        engine.refuse_load.add(bad)
        registry.promote(bad)
        await eventually(lambda: len(changes) == 2)
        assert (changes[-1].version, changes[-1].state) == (bad, "failed") and "cannot load" in changes[-1].reason
        assert (host.state, host.serving, host.restarts) == ("ready", first, 0)
        assert engine.calls.count(f"load_lora {bad}") == 1 and registry.live("policy") == first


async def test_an_adapter_for_an_engine_of_full_weights_is_refused(engine: FakeVllm, registry: Registry) -> None:
    first = live(registry)
    async with hosting(engine, registry) as (host, changes):
        await eventually(lambda: host.serving == first)
        live(registry, tuning="lora")
        await eventually(lambda: len(changes) == 2)
        assert changes[-1].state == "failed" and "engine.tuning is full" in changes[-1].reason
        assert host.serving == first


async def test_no_engine_at_the_address(tmp_path: Path, registry: Registry) -> None:
    absent = FakeVllm()
    absent.url = f"unix:{tmp_path}/absent.sock"
    async with hosting(absent, registry) as (host, _):
        await eventually(lambda: "no engine answers" in host.failure)
        assert host.state == "starting" and host.restarts == 0


async def test_a_registry_that_cannot_be_read_for_now_ends_nothing(
    engine: FakeVllm, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Out of descriptors, say: the engine is not started again, and the next version comes in when it can be read."""
    first = live(registry)
    async with hosting(engine, registry) as (host, changes):
        await eventually(lambda: host.serving == first)
        failed = 0

        def unreadable(kind: str) -> str:
            nonlocal failed
            failed += 1
            raise OSError(errno.EMFILE, "too many open files")

        with monkeypatch.context() as patched:
            patched.setattr(registry, "live", unreadable)
            await eventually(lambda: failed > 3)
            assert (host.state, host.serving, host.restarts) == ("ready", first, 0)
        second = live(registry, 3)
        await eventually(lambda: [change.version for change in changes] == [first, second])
        assert host.serving == second


async def test_a_swap_is_told_in_the_trace_of_the_cycle_that_made_the_version(
    engine: FakeVllm, registry: Registry
) -> None:
    """The one before, which nobody traced, is told of nowhere: of what begins here none is kept."""
    first, second = live(registry), publish(registry, 3, traceparent=f"00-{'c' * 32}-{'a' * 16}-01")
    third = publish(registry, 4, traceparent=f"00-{'d' * 32}-{'a' * 16}-01")
    engine.probe_error[third] = 1.0
    with receiver() as collector:
        tracing.configure("chat", collector.url, sample=0.0)
        try:
            async with hosting(engine, registry) as (host, changes):
                await eventually(lambda: host.serving == first)
                registry.promote(second)
                await eventually(lambda: host.serving == second and len(changes) == 2)
                registry.promote(third)
                await eventually(lambda: len(changes) == 3)
        finally:
            tracing.close()
    good, bad = collector.spans
    assert (good.name, good.trace, good.parent, good.failed) == ("swap", "c" * 32, "a" * 16, False)
    told = good.attributes
    assert (told["rlhf.policy_version"], told["rlhf.previous_version"]) == (second, first)
    assert (bad.trace, bad.failed, bad.attributes["error.type"]) == ("d" * 32, True, "failed")
