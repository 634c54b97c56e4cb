"""Adapters in a real vLLM: loaded, probed and served beside the answers that are still being written without them.

The base model's output layer is its embedding, as that of most small models is.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import numpy as np
import pytest
import pytest_asyncio

from rlhf_online.engine.host import EngineHost
from rlhf_online.models.first_probe import first_probe
from rlhf_online.models.policy import Policy
from rlhf_online.rewards import audiences
from rlhf_online.simulation.tiny_model import write_tiny_model
from rlhf_online.versions.genesis import genesis
from tests.support.adapters import adapter, publish
from tests.support.engine import Answer, running_host, stream
from tests.support.waiting import ENGINE_TEST_S, eventually

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(ENGINE_TEST_S)]

EXACT = 1e-3


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lora") / "base"
    write_tiny_model(folder, weights_seed=3, tied=True)
    return folder


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def host(base: Path) -> AsyncIterator[EngineHost]:
    async with running_host(base.parent, base, tuning="lora", max_lora_rank=8, audiences=1) as host:
        genesis(host.registry, base, tuning="lora", probe_of=first_probe)
        await eventually(lambda: host.state != "starting")
        assert (host.state, host.serving) == ("ready", "policy-000000"), host.failure
        yield host


def assert_written_by(policy: Policy, answer: Answer, *, reference: bool = False) -> None:
    expected = policy.logprobs([(answer.prompt_ids, tuple(answer.token_ids))], reference=reference)[0]
    assert np.abs(np.subtract(answer.logprobs, expected)).max() < EXACT


async def test_an_adapter_takes_over_while_answers_without_it_go_on(host: EngineHost, base: Path) -> None:
    policy = adapter(base, 1)
    old = [Answer((1, 20 + row, 3)) for row in range(4)]
    running = [asyncio.create_task(stream(host, answer)) for answer in old]
    await eventually(lambda: all(answer.token_ids for answer in old))
    version = publish(host.registry, policy)
    await eventually(lambda: host.serving == version or host.registry.status(version).state == "failed")
    assert host.registry.status(version).reason == "a test"
    assert host.swaps[-1].ok and host.model_name == version
    new = await stream(host, Answer((1, 20, 3)))
    await asyncio.gather(*running)
    assert_written_by(policy, new)
    for answer in old:
        assert_written_by(policy, answer, reference=True)


async def test_an_adapter_of_the_topmost_layer_alone_serves_as_it_was_trained(host: EngineHost, base: Path) -> None:
    policy = adapter(base, 11, layers=1)
    version = publish(host.registry, policy)
    await eventually(lambda: host.serving == version or host.registry.status(version).state == "failed")
    assert host.serving == version, host.registry.status(version).reason
    assert_written_by(policy, await stream(host, Answer((1, 20, 3))))


async def test_an_adapter_that_is_not_what_its_manifest_says_is_rolled_back(host: EngineHost, base: Path) -> None:
    good = host.serving
    version = publish(host.registry, adapter(base, 2), probe_error=0.5)
    await eventually(lambda: host.registry.live("policy") == good)
    assert host.registry.status(version).state == "failed" and host.serving == good
    assert "differ from those of its manifest" in host.registry.status(version).reason
    assert len((await stream(host, Answer((1, 25, 3)), max_tokens=8)).token_ids) == 8


async def test_what_a_failed_adapter_was_writing_goes_on_with_the_one_before_it(host: EngineHost, base: Path) -> None:
    """Rolled back while it writes: each token is exactly of one of the two, over the whole prefix, and none is lost."""
    good_policy, bad_policy = adapter(base, 3), adapter(base, 4)
    good = publish(host.registry, good_policy)
    await eventually(lambda: host.serving == good)
    beside = Answer((1, 45, 3))
    others = asyncio.create_task(stream(host, beside))
    await eventually(lambda: bool(beside.token_ids))
    bad = publish(host.registry, bad_policy)
    await eventually(lambda: host.serving == bad)
    await assert_rolled_back(host, bad_policy, good_policy, lambda: host.registry.rollback("policy", reason="a test"))
    await others
    assert_written_by(good_policy, beside)


async def test_what_the_first_adapter_was_writing_goes_on_as_the_base_models(host: EngineHost, base: Path) -> None:
    first, policy = "policy-000000", adapter(base, 5)
    bad = publish(host.registry, policy)
    await eventually(lambda: host.serving == bad)
    for version in [name for name in host.registry.fallbacks("policy") if name != first]:
        host.registry.mark(version, "failed", reason="a test")
    await assert_rolled_back(host, policy, policy, lambda: host.registry.rollback("policy", reason="a test"))
    assert host.serving == first


async def test_an_audiences_adapter_answers_beside_the_common_one(host: EngineHost, base: Path) -> None:
    """In one batch, each exactly by its own weights; the one after it takes over, and nothing pauses."""
    common, one, two = adapter(base, 6), adapter(base, 7), adapter(base, 8)
    version = publish(host.registry, common)
    await eventually(lambda: host.serving == version)
    audiences.define(host.registry.store, "brief", {"helpful": 2.0}, {}, ["helpful"])
    await eventually(lambda: host.audiences == {"brief": ""})
    swaps, first = len(host.swaps), publish(host.registry, one, kind="policy.brief")
    await eventually(lambda: host.audiences == {"brief": first})
    asked = [Answer((1, 20, 3)), Answer((1, 20, 3))]
    running = [asyncio.create_task(stream(host, asked[0])), asyncio.create_task(stream(host, asked[1], model=first))]
    await eventually(lambda: all(answer.token_ids for answer in asked))
    second = publish(host.registry, two, kind="policy.brief")
    await eventually(lambda: host.audiences == {"brief": second})
    new = await stream(host, Answer((1, 20, 3)), model=host.models[second])
    await asyncio.gather(*running)
    for policy, answer in ((common, asked[0]), (one, asked[1]), (two, new)):
        assert_written_by(policy, answer)
    assert (host.serving, len(host.swaps)) == (version, swaps)


async def assert_rolled_back(host: EngineHost, bad: Policy, good: Policy, roll_back: Callable[[], object]) -> None:
    """`good` is the base model where it is the same policy."""
    answers, version = [Answer((1, 20 + row, 3)) for row in range(6)], host.serving
    received: list[int] = []

    async def boundary(before: str, after: str) -> None:
        if before == version:
            received.extend(len(answer.token_ids) for answer in answers)

    host.on_pause.append(boundary)
    running = [asyncio.create_task(stream(host, answer)) for answer in answers]
    await eventually(lambda: all(answer.token_ids for answer in answers))
    roll_back()
    await asyncio.gather(*running)
    host.on_pause.remove(boundary)
    assert len(received) == len(answers) and all(0 < count < 110 for count in received), "none was in flight"
    for answer, count in zip(answers, received, strict=True):
        assert len(answer.token_ids) == 110, "an answer was cut short"
        pair = (answer.prompt_ids, tuple(answer.token_ids))
        by_bad = np.abs(np.subtract(answer.logprobs, bad.logprobs([pair])[0])) < EXACT
        by_good = np.abs(np.subtract(answer.logprobs, good.logprobs([pair], reference=good is bad)[0])) < EXACT
        cut = 110 - int(by_good[::-1].argmin()) if not by_good.all() else 0
        assert by_bad[:cut].all() and by_good[cut:].all() and cut >= count
