"""Several pods on one store: hosts of their own, each with an engine that is a fake behind a socket."""

import asyncio
import errno
import threading
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from rlhf_online.canary import record
from rlhf_online.config import EngineSettings, SwapSettings
from rlhf_online.engine import follower, pod
from rlhf_online.engine.host import EngineHost
from rlhf_online.errors import FileDamaged
from rlhf_online.simulation.tiny_model import write_tiny_model
from rlhf_online.state import StateDir
from rlhf_online.versions import open_registry, pods
from rlhf_online.versions.manifest import Change, Status
from rlhf_online.versions.registry import Registry
from tests.engine.test_host import live, publish
from tests.support.fake_vllm import FakeVllm, fake_vllm
from tests.support.waiting import eventually


@dataclass
class ServingPod:
    host: EngineHost
    engine: FakeVllm
    registry: Registry
    changes: list[Change]
    base: Path


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pod, "TICK_S", 0.01)
    monkeypatch.setattr(pods, "REPORT_S", 0.1)
    monkeypatch.setattr(pods, "RETRY_S", 0.001)
    monkeypatch.setattr(follower, "FIRST_RETRY_S", 0.05)
    monkeypatch.setattr(follower, "LONGEST_RETRY_S", 0.1)


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    """The trainer's view of the store."""
    return open_registry(tmp_path / "versions")


@asynccontextmanager
async def serving(folder: Path, count: int, *, canaries: int = 0, **swap: Any) -> AsyncIterator[list[ServingPod]]:
    """So many pods, each in a folder of its own, on the versions of `folder`, the first ones for canaries; all
    have told that they are there."""
    found: list[ServingPod] = []
    async with AsyncExitStack() as stack:
        for number in range(count):
            state = StateDir(folder / f"pod-{number}")
            base = state.root / "base"
            write_tiny_model(base, weights_seed=1)
            engine = await stack.enter_async_context(fake_vllm(state.root))
            registry = open_registry(folder / "versions")
            settings = EngineSettings(mode="external", url=engine.url, model=str(base))
            given = {"poll_s": 0.01, "canary": number < canaries} | swap
            host = EngineHost(settings, SwapSettings.model_validate(given), registry, state)
            one = ServingPod(host, engine, registry, [], base)

            async def note(change: Change, changes: list[Change] = one.changes) -> None:
                changes.append(change)

            host.on_change.append(note)
            running = asyncio.create_task(host.run())
            stack.push_async_callback(asyncio.wait, [running])
            stack.push_async_callback(host.close)
            found.append(one)
        await eventually(lambda: len(pods.reports(found[0].registry.store)) == count)
        yield found


async def all_serve(found: list[ServingPod], version: str) -> None:
    await eventually(lambda: all(one.host.serving == version for one in found), what=f"all to serve {version}")


async def test_a_version_that_one_pod_of_three_cannot_load_serves_on_the_others_and_is_tried_again_there(
    tmp_path: Path, registry: Registry
) -> None:
    first = live(registry)
    async with serving(tmp_path, 3, max_lag_s=0.2) as found:
        await all_serve(found, first)
        sick, *well = found
        new = publish(registry, 3)
        sick.engine.refuse_load.add(new)
        registry.promote(new)
        await all_serve(well, new)
        await eventually(lambda: sick.engine.calls.count(f"load {new}") >= 3, what="more tries")
        await eventually(lambda: sick.host.pod.behind != "", what="the pod to say that it lags")
        assert f"this pod still serves {first}" in sick.host.pod.behind and "cannot load" in sick.host.pod.behind
        assert (sick.host.state, sick.host.serving, sick.engine.holds) == ("ready", first, first)
        assert (registry.live("policy"), registry.status(new).state) == (new, "live")
        assert [change.version for change in sick.changes] == [first], "nothing failed for all"
        assert not any(one.host.pod.behind for one in well)
        said = {each.pod: each for each in pods.reports(registry.store)}[sick.host.pod.name]
        assert said.serving == first and "cannot load" in said.could_not[new]
        sick.engine.refuse_load.clear()
        await all_serve(found, new)
        await eventually(lambda: not sick.host.pod.behind)
        await eventually(lambda: all(not each.could_not for each in pods.reports(registry.store)))


async def test_a_version_that_most_pods_cannot_load_fails_for_all(tmp_path: Path, registry: Registry) -> None:
    first = live(registry)
    async with serving(tmp_path, 3) as found:
        await all_serve(found, first)
        new = publish(registry, 3)
        for one in found[:2]:
            one.engine.probe_error[new] = 0.5
        registry.promote(new)
        await eventually(lambda: registry.live("policy") == first)
        await all_serve(found, first)
        reason = registry.status(new).reason
        assert "2 of 3 pods could not serve it" in reason and "0.5 nats" in reason
        await eventually(lambda: "failed" in [change.state for one in found[:2] for change in one.changes])


@pytest.mark.parametrize(("quorum", "failed"), [(0.0, 1), (0.5, 2), (0.7, 3)])
async def test_the_quorum_is_a_setting(tmp_path: Path, registry: Registry, quorum: float, failed: int) -> None:
    first = live(registry)
    async with serving(tmp_path, 3, quorum=quorum) as found:
        await all_serve(found, first)
        new = publish(registry, 3)
        for one in found[: failed - 1]:
            one.engine.refuse_load.add(new)
        registry.promote(new)
        await all_serve(found[failed - 1 :], new)
        await eventually(lambda: all(one.engine.calls.count(f"load {new}") >= 2 for one in found[: failed - 1]))
        assert registry.status(new).state == "live"
        other = publish(registry, 4)
        for one in found[:failed]:
            one.engine.refuse_load.add(other)
        registry.promote(other)
        await eventually(lambda: registry.status(other).state == "failed")


async def test_wrong_bytes_fail_for_all_at_once(tmp_path: Path, registry: Registry) -> None:
    """Whichever pod looks first: no other has to try them."""
    first = live(registry)
    async with serving(tmp_path, 3) as found:
        await all_serve(found, first)
        bad = publish(registry, 3)
        weights = registry.path(bad) / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-1] + b"!")
        registry.promote(bad)
        await eventually(lambda: registry.live("policy") == first)
        assert registry.status(bad).state == "failed" and "SHA-256" in registry.status(bad).reason
        assert not any(f"load {bad}" in one.engine.calls for one in found)


async def test_what_does_not_fit_one_pod_is_that_pods_matter(tmp_path: Path, registry: Registry) -> None:
    """Started on another model than the others, say."""
    first = live(registry)
    async with serving(tmp_path, 3) as found:
        await all_serve(found, first)
        sick, *well = found
        write_tiny_model(sick.base, weights_seed=1, tied=True)
        new = live(registry, 3)
        await all_serve(well, new)
        await eventually(lambda: "is no tensor of this model" in sick.host.pod.could_not.get(new, ""))
        (sick.base / "model.safetensors").write_bytes(b"cut")
        newer = live(registry, 4)
        await all_serve(well, newer)
        await eventually(lambda: "nothing to compare it with" in sick.host.pod.could_not.get(newer, ""))
        assert registry.status(newer).state == "live" and f"load {new}" not in sick.engine.calls


async def test_a_full_disk_is_no_verdict_and_is_said(
    tmp_path: Path, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = live(registry)
    async with serving(tmp_path, 2, max_lag_s=0.2) as found:
        await all_serve(found, first)
        sick, well = found

        def full(version: str) -> Path:
            raise OSError(errno.ENOSPC, "No space left on device", str(tmp_path))

        with monkeypatch.context() as patched:
            patched.setattr(sick.registry, "path", full)
            new = live(registry, 3)
            await all_serve([well], new)
            await eventually(lambda: "No space left" in sick.host.pod.store.failure)
            await eventually(lambda: sick.host.pod.behind)
            assert registry.status(new).state == "live" and sick.host.serving == first
            assert sick.host.pod.could_not == {}
        await all_serve(found, new)
        assert sick.host.pod.store.failure == sick.host.pod.behind == ""


async def test_a_store_that_is_away_or_slow_stalls_nobody(
    tmp_path: Path, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pod serves on, ready, and says so; the event loop turns, and the engine is still watched."""
    monkeypatch.setattr(pod, "SILENT_S", 0.2)
    monkeypatch.setattr(follower, "LONGEST_POLL_S", 0.05)
    first = live(registry)
    async with serving(tmp_path, 1, max_lag_s=0.2) as [one]:
        await all_serve([one], first)
        back = threading.Event()

        def slow(key: str) -> str | None:
            back.wait()
            raise OSError(errno.ESTALE, "Stale file handle")

        with monkeypatch.context() as patched:
            patched.setattr(one.registry.store, "read", slow)
            try:
                await eventually(lambda: "has not answered for" in one.host.pod.store.failure)
                assert (one.host.state, one.host.serving, one.host.pod.behind) == ("ready", first, "")
            finally:
                back.set()
            await eventually(lambda: "Stale file handle" in one.host.pod.store.failure)
        await eventually(lambda: one.host.pod.store.failure == "")
        second = live(registry, 3)
        await all_serve([one], second)


async def test_a_store_that_goes_silent_as_a_version_begins_to_serve_is_told(
    tmp_path: Path, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pod, "SILENT_S", 0.2)
    begun, back = threading.Event(), threading.Event()
    async with serving(tmp_path, 1) as [one]:
        status = one.registry.status

        def silent(version: str) -> Status:
            if one.host.serving:  # since then the store says what became of it
                begun.set()
                back.wait()
            return status(version)

        with monkeypatch.context() as patched:
            patched.setattr(one.registry, "status", silent)
            live(registry)
            try:
                await eventually(lambda: begun.is_set() and "has not answered for" in one.host.pod.store.failure)
            finally:
                back.set()
        await eventually(lambda: one.host.pod.store.failure == "" and len(one.changes) == 1)


async def test_a_store_that_has_answered_is_not_said_to_be_away_while_files_are_brought(
    tmp_path: Path, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pod, "SILENT_S", 1e-9)
    first = live(registry)
    async with serving(tmp_path, 1) as [one]:
        await all_serve([one], first)
        path, begun, brought = one.registry.path, threading.Event(), threading.Event()

        def slow(version: str) -> Path:
            begun.set()
            brought.wait(10)
            return path(version)

        monkeypatch.setattr(one.registry, "path", slow)
        second = live(registry, 3)
        await eventually(begun.is_set)
        assert (one.host.pod.store.failure, one.host.pod.store.silent_s) == ("", 0.0)
        brought.set()
        await all_serve([one], second)


async def test_of_pods_for_canaries_most_have_to_fail_and_no_others_count(tmp_path: Path, registry: Registry) -> None:
    first = live(registry)
    async with serving(tmp_path, 4, canaries=2) as found:
        await all_serve(found, first)
        sick, well = found[:2]
        candidate, other = publish(registry, 3), publish(registry, 4)
        sick.engine.refuse_load |= {candidate, other}
        well.engine.refuse_load.add(other)
        record.begin(registry, candidate, (0.5,), {})
        await all_serve([well], candidate)
        await eventually(lambda: sick.engine.calls.count(f"load {candidate}") >= 2, what="another try")
        assert (registry.status(candidate).state, sick.host.serving) == ("canary", first)
        registry.mark(candidate, "rejected", reason="worse")
        record.begin(registry, other, (0.5,), {})
        await eventually(lambda: registry.status(other).state == "failed")
        assert "2 of 2 pods could not serve it" in registry.status(other).reason
        await all_serve(found, first)


async def test_a_damaged_record_of_the_pods_ends_nothing(
    tmp_path: Path, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = live(registry)
    async with serving(tmp_path, 1) as [one]:
        await all_serve([one], first)
        own = pods.shard(one.host.pod.name)
        read = one.registry.store.read

        def damaged(key: str) -> str | None:
            if key == own:
                raise FileDamaged(f"{own} cannot be read")
            return read(key)

        monkeypatch.setattr(one.registry.store, "read", damaged)
        one.host.pod.changed.set()
        second = live(registry, 3)
        await all_serve([one], second)


async def test_a_lag_takes_a_pod_out_only_where_another_serves(tmp_path: Path, registry: Registry) -> None:
    first = live(registry)
    async with serving(tmp_path, 2, max_lag_s=0.1, pause_timeout_s=0.05) as found:
        await all_serve(found, first)
        for one in found:
            one.engine.pause_delay_s = 30
        second = live(registry, 3)
        await eventually(lambda: all(one.host.pod.lag_s > 0.3 for one in found))
        await eventually(lambda: all(one.host.swaps[-1].postponed for one in found))
        assert [one.host.pod.behind for one in found] == ["", ""], "taking all out would help nobody"
        found[0].engine.pause_delay_s = 0
        await all_serve(found[:1], second)
        await eventually(lambda: "it is still being loaded" in found[1].host.pod.behind)
        found[1].engine.pause_delay_s = 0
        await all_serve(found, second)
        assert found[1].host.pod.behind == "" and found[1].host.pod.lag_s == 0
