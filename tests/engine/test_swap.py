"""The order of the swap's calls, and what is left after each way in which it can fail."""

import json
import math
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web

from rlhf_online.engine.swap import (
    SwapResult,
    Weights,
    check_probe,
    replace_lora,
    swap_full,
    swap_lora,
    unload_quietly,
)
from rlhf_online.engine.vllm import EngineClient
from rlhf_online.errors import EngineError, EngineUnavailable, SwapFailed
from rlhf_online.versions.manifest import ProbeSequence
from tests.support.fake_vllm import FakeVllm

PROBE = (
    ProbeSequence(token_ids=(1, 2, 3), logprobs=(-0.5, -1.5)),
    ProbeSequence(token_ids=(4, 5), logprobs=(-2.0,)),
)


@pytest.fixture
async def client(engine: FakeVllm) -> AsyncIterator[EngineClient]:
    client = EngineClient(engine.url)
    yield client
    await client.close()


def weights(tmp_path: Path, version: str) -> Weights:
    folder = tmp_path / version
    folder.mkdir(exist_ok=True)
    probe = [{"token_ids": item.token_ids, "logprobs": item.logprobs} for item in PROBE]
    (folder / "manifest.json").write_text(json.dumps({"probe": probe}))
    return Weights(version, folder, PROBE)


async def swap(
    engine: FakeVllm, client: EngineClient, new: Weights, old: Weights | None, *, pause_timeout_s: float = 10
) -> SwapResult:
    async def on_pause(before: str, after: str) -> None:
        engine.calls.append(f"paused {before}→{after}")

    async def on_restore(before: str, after: str) -> None:
        engine.calls.append(f"restored {before}→{after}")

    return await swap_full(
        client, new, old, pause_timeout_s=pause_timeout_s, tolerance=0.02, on_pause=[on_pause], on_restore=[on_restore]
    )


INSTALL_NEW = ["pause", "paused old→new", "load new", "reset", "probe new"]
RESTORE_OLD = ["load old", "reset", "probe old", "name old", "restored old→new", "resume"]


async def test_order_of_a_swap(engine: FakeVllm, client: EngineClient, tmp_path: Path) -> None:
    result = await swap(engine, client, weights(tmp_path, "new"), weights(tmp_path, "old"))
    assert engine.calls == [*INSTALL_NEW, "name new", "resume"]
    assert (result.ok, result.version, result.previous, result.reason) == (True, "new", "old", "")
    assert result.pause_s > 0


async def test_probe_within_tolerance_passes(engine: FakeVllm, client: EngineClient, tmp_path: Path) -> None:
    engine.probe_error["new"] = 0.019
    assert (await swap(engine, client, weights(tmp_path, "new"), weights(tmp_path, "old"))).ok


async def test_probe_that_differs_restores_the_old_version(
    engine: FakeVllm, client: EngineClient, tmp_path: Path
) -> None:
    engine.probe_error["new"] = 0.021
    result = await swap(engine, client, weights(tmp_path, "new"), weights(tmp_path, "old"))
    assert engine.calls == [*INSTALL_NEW, *RESTORE_OLD]
    assert not result.ok and not result.postponed and "0.021 nats" in result.reason
    assert engine.holds == "old"


async def test_log_probs_that_are_not_finite_restore(engine: FakeVllm, client: EngineClient, tmp_path: Path) -> None:
    engine.not_finite.add("new")
    result = await swap(engine, client, weights(tmp_path, "new"), weights(tmp_path, "old"))
    assert engine.calls == [*INSTALL_NEW, *RESTORE_OLD]
    assert "not finite" in result.reason


async def test_weights_that_do_not_load_restore(engine: FakeVllm, client: EngineClient, tmp_path: Path) -> None:
    engine.refuse_load.add("new")
    result = await swap(engine, client, weights(tmp_path, "new"), weights(tmp_path, "old"))
    assert engine.calls == [*INSTALL_NEW[:3], *RESTORE_OLD]
    assert "cannot load" in result.reason


async def test_a_restore_that_fails_never_resumes(engine: FakeVllm, client: EngineClient, tmp_path: Path) -> None:
    engine.refuse_load |= {"new", "old"}
    with pytest.raises(EngineUnavailable, match="old could not be restored"):
        await swap(engine, client, weights(tmp_path, "new"), weights(tmp_path, "old"))
    assert "resume" not in engine.calls


async def test_a_cache_that_is_kept_is_a_failure(engine: FakeVllm, client: EngineClient, tmp_path: Path) -> None:
    engine.reset_succeeds = False
    with pytest.raises(EngineUnavailable, match="prefix cache"):
        await swap(engine, client, weights(tmp_path, "new"), weights(tmp_path, "old"))
    assert "resume" not in engine.calls


async def test_the_first_version_failing_leaves_the_engine_paused(
    engine: FakeVllm, client: EngineClient, tmp_path: Path
) -> None:
    engine.probe_error["new"] = 1.0
    result = await swap(engine, client, weights(tmp_path, "new"), None)
    assert not result.ok and "resume" not in engine.calls


@pytest.mark.parametrize("call", ["reload_weights", "reset_prefix_cache", "probe", "set_version"])
async def test_an_engine_that_is_lost_in_a_swap_is_no_success_and_is_not_resumed(
    engine: FakeVllm, client: EngineClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    async def lost(*_: object) -> None:
        raise EngineUnavailable("it has ended")

    monkeypatch.setattr(client, call, lost)
    with pytest.raises(EngineUnavailable, match="it has ended"):
        await swap(engine, client, weights(tmp_path, "new"), weights(tmp_path, "old"))
    assert "resume" not in engine.calls and "load old" not in engine.calls


async def test_unloading_an_adapter_that_is_not_there_is_fine_and_a_lost_engine_is_not(
    client: EngineClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fails(error: EngineError) -> None:
        async def unload(name: str) -> None:
            raise error

        monkeypatch.setattr(client, "unload_lora", unload)
        await unload_quietly(client, "new")

    await fails(EngineError("no such adapter"))
    with pytest.raises(EngineUnavailable, match="it has ended"):
        await fails(EngineUnavailable("it has ended"))


async def test_a_pause_that_takes_too_long_changes_nothing(
    engine: FakeVllm, client: EngineClient, tmp_path: Path
) -> None:
    engine.pause_delay_s = 30.0
    result = await swap(engine, client, weights(tmp_path, "new"), weights(tmp_path, "old"), pause_timeout_s=1)
    assert engine.calls == ["pause", "resume"]
    assert not result.ok and result.postponed and "within 1 s" in result.reason


async def test_a_swap_says_between_what_it_was_and_how_long_answers_stood_still(
    engine: FakeVllm, client: EngineClient, tmp_path: Path
) -> None:
    engine.pause_delay_s = 0.2
    result = await swap(engine, client, weights(tmp_path, "new"), weights(tmp_path, "old"))
    assert (result.version, result.previous, result.reason, result.postponed) == ("new", "old", "", False)
    assert 0.2 <= result.wait_s < 600 and 0 < result.pause_s < 600, "standing still begins with the confirmed pause"
    assert (await swap(engine, client, weights(tmp_path, "first"), None)).previous == ""


async def test_a_listener_that_fails_lets_the_old_version_go_on(
    engine: FakeVllm, client: EngineClient, tmp_path: Path
) -> None:
    async def on_pause(before: str, after: str) -> None:
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        await swap_full(
            client,
            weights(tmp_path, "new"),
            weights(tmp_path, "old"),
            pause_timeout_s=10,
            tolerance=0.02,
            on_pause=[on_pause],
        )
    assert engine.calls == ["pause", "resume"]


async def test_an_engine_that_is_gone_is_said_so(tmp_path: Path) -> None:
    client = EngineClient(f"unix:{tmp_path}/nothing")
    try:
        with pytest.raises(EngineUnavailable, match="/resume"):
            await swap_full(client, weights(tmp_path, "new"), None, pause_timeout_s=1, tolerance=0.02)
        assert not await client.health()
    finally:
        await client.close()


async def lora(client: EngineClient, new: Weights, *, adapter: bool = True) -> SwapResult:
    return await swap_lora(client, new, base_name="base", adapter=adapter, previous="old", tolerance=0.02)


async def test_an_adapter_is_loaded_and_probed_without_a_pause(
    engine: FakeVllm, client: EngineClient, tmp_path: Path
) -> None:
    result = await lora(client, weights(tmp_path, "new"))
    assert engine.calls == ["load_lora new", "probe new", "name new"]
    assert result.ok and result.pause_s == 0


async def test_the_adapterless_version_is_the_base_model(
    engine: FakeVllm, client: EngineClient, tmp_path: Path
) -> None:
    result = await lora(client, Weights("new", tmp_path), adapter=False)
    assert engine.calls == ["probe base", "name new"]
    assert result.ok


async def test_an_adapter_that_fails_its_probe_is_unloaded(
    engine: FakeVllm, client: EngineClient, tmp_path: Path
) -> None:
    engine.probe_error["new"] = 0.5
    result = await lora(client, weights(tmp_path, "new"))
    assert engine.calls == ["load_lora new", "probe new", "unload_lora new"]
    assert not result.ok and engine.adapters == {}


@pytest.mark.parametrize("call", ["load_lora", "probe_model", "set_version", "unload_lora"])
async def test_an_engine_that_is_lost_with_an_adapter_is_no_refusal_of_the_adapter(
    engine: FakeVllm, client: EngineClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """Else a version that nobody has tried counts as refused, and is never tried again."""

    async def lost(*_: object) -> None:
        raise EngineUnavailable("it has ended")

    if call == "unload_lora":
        engine.probe_error["new"] = 0.5
    monkeypatch.setattr(client, call, lost)
    with pytest.raises(EngineUnavailable, match="it has ended"):
        await lora(client, weights(tmp_path, "new"))


async def test_an_adapter_that_does_not_load_is_reported(
    engine: FakeVllm, client: EngineClient, tmp_path: Path
) -> None:
    engine.refuse_load.add("new")
    result = await lora(client, weights(tmp_path, "new"))
    assert not result.ok and "cannot load" in result.reason


async def test_the_client_reads_the_reason_of_a_refusal(engine: FakeVllm, client: EngineClient, tmp_path: Path) -> None:
    engine.refuse_load.add("bad")
    with pytest.raises(EngineError, match=r"refused /collective_rpc with 500: cannot load"):
        await client.reload_weights(tmp_path / "bad")


@pytest.mark.parametrize("answer", [{}, "OK", {"data": [], "results": [], "choices": []}, {"data": [1], "results": 1}])
async def test_a_server_that_is_no_vllm_is_said_to_be_none(tmp_path: Path, answer: object) -> None:
    async def answers(request: web.Request) -> web.Response:
        return web.json_response(answer)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answers)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.UnixSite(runner, str(tmp_path / "socket")).start()
    client = EngineClient(f"unix:{tmp_path}/socket")
    try:
        asked = (client.version(), client.model_name(), client.probe([[1, 2]]), client.probe_model("m", [[1, 2]]))
        for each in asked:
            with pytest.raises(EngineError, match=r"the engine's answer to /\w+.* is not as vLLM's"):
                await each
    finally:
        await client.close()
        await runner.cleanup()


def test_the_probe_is_a_mean_over_all_tokens(tmp_path: Path) -> None:
    new = Weights("new", tmp_path, PROBE)
    check_probe(new, [[-0.5, -1.5], [-2.05]], 0.02)  # .05 on one of three tokens
    with pytest.raises(SwapFailed, match=r"0\.03 nats"):
        check_probe(new, [[-0.5, -1.5], [-2.09]], 0.02)
    with pytest.raises(SwapFailed, match="2 of 3"):
        check_probe(new, [[-0.5, -1.5]], 0.02)
    with pytest.raises(SwapFailed, match="not finite"):
        check_probe(Weights("new", tmp_path), [[math.nan]], 0.02)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_one_log_prob_that_is_not_finite_is_enough_and_one_that_is_not_told_is_none(
    tmp_path: Path, value: float
) -> None:
    check_probe(Weights("new", tmp_path), [[-1.0, None]], 0.02)
    for logprobs in ([[-1.0, value]], [[value], [-1.0]], [[None, -1.0], [value]]):
        with pytest.raises(SwapFailed, match="not finite"):
            check_probe(Weights("new", tmp_path), logprobs, 0.02)


def test_a_mean_that_is_the_tolerance_itself_passes(tmp_path: Path) -> None:
    new = Weights("new", tmp_path, (ProbeSequence(token_ids=tuple(range(5)), logprobs=(-1.0,) * 4),))
    check_probe(new, [[-1.5, -0.5, -1.5, -0.5]], 0.5)
    with pytest.raises(SwapFailed, match=r"0\.5 nats"):
        check_probe(new, [[-1.5, -0.5, -1.5, -0.5]], 0.4999)


def test_as_few_tokens_as_a_probe_has_are_enough_and_of_a_longer_one_four(tmp_path: Path) -> None:
    short = Weights("new", tmp_path, (ProbeSequence(token_ids=(1, 2), logprobs=(-1.0,)),))
    check_probe(short, [[-1.0]], 0.02)
    with pytest.raises(SwapFailed, match=r"0\.03125 nats"):
        check_probe(short, [[-1.03125]], 0.02)
    with pytest.raises(SwapFailed, match="0 of 1 probe tokens"):
        check_probe(short, [[None]], 0.02)
    long = Weights("new", tmp_path, (ProbeSequence(token_ids=tuple(range(10)), logprobs=(-1.0,) * 9),))
    check_probe(long, [[-1.0] * 4 + [None] * 5], 0.02)
    with pytest.raises(SwapFailed, match="3 of 9 probe tokens"):
        check_probe(long, [[-1.0] * 3 + [None] * 6], 0.02)


def test_tokens_that_the_engine_does_not_tell_are_left_out_of_the_mean(tmp_path: Path) -> None:
    new = Weights("new", tmp_path, (ProbeSequence(token_ids=tuple(range(7)), logprobs=(-1.0,) * 6),))
    check_probe(new, [[None, -1.0, None, -1.0, -1.0, -1.0]], 0.02)
    with pytest.raises(SwapFailed, match=r"0\.05 nats"):
        check_probe(new, [[None, -1.0, None, -1.0, -1.0, -1.2]], 0.02)
    with pytest.raises(SwapFailed, match="3 of 6 probe tokens"):
        check_probe(new, [[None, None, None, -1.0, -1.0, -1.0]], 0.02)


async def replace(engine: FakeVllm, client: EngineClient, good: Weights, *, pause_timeout_s: float = 10) -> SwapResult:
    async def on_pause(before: str, after: str) -> None:
        engine.calls.append(f"paused {before}→{after}")

    async def on_restore(before: str, after: str) -> None:
        engine.calls.append(f"restored {before}→{after}")

    return await replace_lora(
        client,
        "bad",
        good,
        folder=good.folder,
        pause_timeout_s=pause_timeout_s,
        on_pause=[on_pause],
        on_restore=[on_restore],
    )


async def test_answers_of_an_adapter_that_failed_go_on_with_another_from_a_token_on(
    engine: FakeVllm, client: EngineClient, tmp_path: Path
) -> None:
    result = await replace(engine, client, weights(tmp_path, "good"))
    assert engine.calls == ["pause", "paused bad→good", "reset", "replace_lora bad by good", "resume"]
    assert (result.ok, result.version, result.previous) == (True, "good", "bad") and result.pause_s > 0


async def test_an_adapter_that_cannot_be_replaced_goes_on_as_it_was(
    engine: FakeVllm, client: EngineClient, tmp_path: Path
) -> None:
    engine.refuse_load.add("bad")
    result = await replace(engine, client, weights(tmp_path, "good"))
    assert engine.calls[-2:] == ["restored bad→good", "resume"]
    assert not result.ok and "cannot load" in result.reason
    engine.calls.clear()
    engine.reset_succeeds = False
    result = await replace(engine, client, weights(tmp_path, "good"))
    assert engine.calls == ["pause", "paused bad→good", "reset", "restored bad→good", "resume"]
    assert not result.ok and "prefix cache" in result.reason


async def test_a_pause_that_is_not_confirmed_replaces_nothing(
    engine: FakeVllm, client: EngineClient, tmp_path: Path
) -> None:
    engine.pause_delay_s = 30
    result = await replace(engine, client, weights(tmp_path, "good"), pause_timeout_s=1)
    assert engine.calls == ["pause", "resume"]
    assert result.postponed and not result.ok
