"""The engine with a real vLLM: one is started for the whole module, and once more after it was killed."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import pytest_asyncio

from rlhf_online.engine.host import EngineHost
from rlhf_online.simulation.tiny_model import write_tiny_model
from rlhf_online.versions.manifest import Change
from tests.support.engine import PROBE_TOKENS, Answer, publish, recompute, running_host, stream
from tests.support.processes import alive, group
from tests.support.waiting import ENGINE_TEST_S, eventually

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(ENGINE_TEST_S)]

EXACT = 1e-3  # nats; two unrelated sets of weights differ by tenths
STREAMS = 6
# More sequences than the engine computes at once, and more tokens than one of its steps takes.
LARGE_PROBE = [[1, *((7 * row + 3 * column) % 70 + 5 for column in range(99))] for row in range(40)]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def host(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[EngineHost]:
    async with running_host(tmp_path_factory.mktemp("engine")) as host:
        await eventually(lambda: host.state != "starting")
        assert host.state == "waiting", host.failure
        assert (host.serving, host.registry.live("policy")) == ("", None)
        await serve(host, 0)
        yield host


async def serve(host: EngineHost, seed: int, probe_tokens: Sequence[Sequence[int]] = PROBE_TOKENS) -> str:
    version = publish(host.registry, seed, probe_tokens=probe_tokens)
    await eventually(lambda: host.serving == version)
    assert host.state == "ready" and host.swaps[-1].ok
    return version


def folder(host: EngineHost, version: str) -> Path:
    return host.registry.path(version)


async def test_first_version_replaces_dummy_weights(host: EngineHost) -> None:
    answer = await stream(host, Answer((1, 20, 3)), max_tokens=24)
    expected = recompute(folder(host, host.serving), (*answer.prompt_ids, *answer.token_ids))[2:]
    assert len(answer.token_ids) == 24
    assert np.abs(np.subtract(answer.logprobs, expected)).max() < EXACT
    assert await host.client.version() == host.serving


async def test_temperature_is_in_the_served_logprobs(host: EngineHost) -> None:
    answer = await stream(host, Answer((1, 20, 3)), max_tokens=24, temperature=0.7)
    expected = recompute(folder(host, host.serving), (*answer.prompt_ids, *answer.token_ids), temperature=0.7)[2:]
    assert np.abs(np.subtract(answer.logprobs, expected)).max() < EXACT


async def load(host: EngineHost, answers: list[Answer], stop: asyncio.Event) -> None:
    while not stop.is_set():
        answers.append(Answer((1, 20 + len(answers) % 40, 3)))
        await stream(host, answers[-1])


async def test_each_token_of_an_answer_in_flight_is_by_one_version(host: EngineHost) -> None:
    """Before the boundary exactly the old weights', after it exactly the new weights' over the whole prefix."""
    old = host.serving
    answers: list[Answer] = []
    received: list[tuple[Answer, int]] = []

    async def boundary(before: str, after: str) -> None:
        assert before == old == host.serving
        received.extend((answer, len(answer.token_ids)) for answer in answers if not answer.finished)

    # Made before the streams begin: computing the probe holds this process up for as long as an answer takes.
    new = publish(host.registry, 7, probe_tokens=LARGE_PROBE, promote=False)
    host.on_pause.append(boundary)
    stop = asyncio.Event()
    loads = [asyncio.create_task(load(host, answers, stop)) for _ in range(STREAMS)]
    try:
        await eventually(lambda: any(0 < len(answer.token_ids) < 20 for answer in answers))
        host.registry.promote(new, reason="a test")
        await eventually(lambda: host.serving == new)
    finally:
        stop.set()
        await asyncio.gather(*loads)
        host.on_pause.remove(boundary)
    assert host.state == "ready" and host.swaps[-1].ok

    assert all(len(answer.token_ids) == 110 for answer in answers), "an answer was cut short"
    across = [(answer, count) for answer, count in received if 0 < count < 110]
    assert across, "no answer was in flight"
    late = 0
    for answer, count in across:
        tokens = (*answer.prompt_ids, *answer.token_ids)
        by_old = np.abs(np.subtract(answer.logprobs, recompute(folder(host, old), tokens)[2:])) < EXACT
        by_new = np.abs(np.subtract(answer.logprobs, recompute(folder(host, new), tokens)[2:])) < EXACT
        assert count > 0 and by_old[:count].all(), "a token received before the boundary is not by the old weights"
        # One beside the boundary may be as likely under both: what had been received is before it all the same.
        cut = max(count, 110 - int(by_new[::-1].argmin()) if not by_new.all() else 0)
        assert by_old[:cut].all() and by_new[cut:].all()
        late = max(late, cut - count)
    result = host.swaps[-1]
    print(f"\npaused {result.pause_s:.3f} s, {result.wait_s:.3f} s after it was asked for, under {STREAMS} streams; ")
    print(f"{len(across)} answers in flight, at most {late} tokens of one arrived after the pause was confirmed")


async def test_nan_weights_never_reach_the_engine(host: EngineHost, tmp_path: Path) -> None:
    good = host.serving
    changes: list[Change] = []

    async def note(change: Change) -> None:
        changes.append(change)

    host.on_change.append(note)
    write_tiny_model(tmp_path, weights_seed=3)
    weights = tmp_path / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-4:] = np.float32("nan").tobytes()
    weights.write_bytes(content)
    bad = publish(host.registry, tmp_path)
    await eventually(lambda: bool(changes))
    host.on_change.remove(note)
    assert (changes[0].version, changes[0].state) == (bad, "failed") and "not finite" in changes[0].reason
    assert host.registry.status(bad).state == "failed"
    assert host.registry.live("policy") == host.serving == good and host.state == "ready"
    answer = await stream(host, Answer((1, 20, 3)), max_tokens=8)
    expected = recompute(folder(host, good), (*answer.prompt_ids, *answer.token_ids))[2:]
    assert np.abs(np.subtract(answer.logprobs, expected)).max() < EXACT


async def test_a_failed_probe_restores_the_old_weights_under_load(host: EngineHost) -> None:
    good = host.serving
    undone: list[tuple[str, str]] = []

    async def undo(before: str, after: str) -> None:
        undone.append((before, after))

    host.on_restore.append(undo)
    answers: list[Answer] = []
    stop = asyncio.Event()
    loads = [asyncio.create_task(load(host, answers, stop)) for _ in range(STREAMS)]
    await eventually(lambda: len(answers) > STREAMS)
    bad = publish(host.registry, 11, probe_error=0.1)
    await eventually(lambda: bool(host.swaps) and host.swaps[-1].version == bad)
    stop.set()
    await asyncio.gather(*loads)
    host.on_restore.remove(undo)
    assert not host.swaps[-1].ok and "0.1 nats" in host.swaps[-1].reason
    assert undone == [(good, bad)]
    await eventually(lambda: host.registry.live("policy") == good)
    assert host.serving == good
    assert host.registry.status(bad).state == "failed"
    for answer in answers:
        expected = recompute(folder(host, good), (*answer.prompt_ids, *answer.token_ids))[2:]
        assert np.abs(np.subtract(answer.logprobs, expected)).max() < EXACT


async def test_two_engines_follow_one_store_forth_and_back(host: EngineHost, tmp_path: Path) -> None:
    """Also past a version that neither can serve; each token is by the weights that its engine says it serves."""
    (tmp_path / "state").mkdir(mode=0o700)
    (tmp_path / "state" / "versions").symlink_to(host.registry.path(host.serving).parent)  # a volume that both mount
    async with running_host(tmp_path) as other:
        hosts = (host, other)

        async def both_serve(version: str | None) -> None:
            await eventually(lambda: [each.serving for each in hosts] == [version, version])
            for answer in await asyncio.gather(*(stream(each, Answer((1, 20, 3)), max_tokens=8) for each in hosts)):
                expected = recompute(folder(host, str(version)), (*answer.prompt_ids, *answer.token_ids))[2:]
                assert np.abs(np.subtract(answer.logprobs, expected)).max() < EXACT

        first = host.registry.live("policy")
        await both_serve(first)
        await both_serve(good := publish(host.registry, 21))
        bad = publish(host.registry, 22, probe_error=0.1)
        await eventually(lambda: host.registry.status(bad).state == "failed")
        await both_serve(good)
        host.registry.rollback("policy", reason="a test")
        await both_serve(first)


async def test_a_killed_engine_comes_back_on_the_last_good_version(host: EngineHost) -> None:
    good = host.serving
    assert host.process is not None and host.process.process is not None
    family = group(host.process.process.pid)
    core = next(pid for pid, name in family.items() if "EngineCore" in name)
    restarts = host.restarts
    os.kill(core, signal.SIGKILL)
    await eventually(lambda: host.state == "restarting")
    assert host.serving == ""
    await eventually(lambda: host.state == "ready")
    assert host.serving == good and host.restarts == restarts + 1
    assert not [pid for pid in family if alive(pid)], "the killed engine left a process behind"
    answer = await stream(host, Answer((1, 20, 3)), max_tokens=8)
    expected = recompute(folder(host, good), (*answer.prompt_ids, *answer.token_ids))[2:]
    assert np.abs(np.subtract(answer.logprobs, expected)).max() < EXACT
