"""Adapters in a real vLLM: loaded, probed and served beside the answers that are still being written without them.

The base model's output layer is its embedding, as that of most small models is.
"""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
import pytest_asyncio
import torch

from rlhf_online.engine.host import EngineHost
from rlhf_online.models.first_probe import first_probe
from rlhf_online.models.policy import Policy
from rlhf_online.simulation.tiny_model import write_tiny_model
from rlhf_online.versions.genesis import genesis
from rlhf_online.versions.manifest import Manifest
from tests.support.engine import Answer, running_host, stream
from tests.support.waiting import ENGINE_TEST_S, eventually

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(ENGINE_TEST_S)]

EXACT = 1e-3
# Several sequences at once, as a trainer's probe has: vLLM computes their next tokens in one batch.
PROMPTS = tuple((1, 20 + row, 3) for row in range(16))


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lora") / "base"
    write_tiny_model(folder, weights_seed=3, tied=True)
    return folder


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def host(base: Path) -> AsyncIterator[EngineHost]:
    async with running_host(base.parent, base, tuning="lora", max_lora_rank=8) as host:
        genesis(host.registry, base, tuning="lora", probe_of=first_probe)
        await eventually(lambda: host.state != "starting")
        assert (host.state, host.serving) == ("ready", "policy-000000"), host.failure
        yield host


def adapter(base: Path, seed: int) -> Policy:
    """A policy whose adapter says something else than the base model."""
    policy = Policy.load(base, tuning="lora", lora_rank=4, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in policy.parameters().values():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.15)
    return policy


def publish(host: EngineHost, policy: Policy, *, probe_error: float = 0.0) -> str:
    version = host.registry.reserve("policy")
    policy.write_version(host.registry.stage(version))
    answers = policy.sample(PROMPTS, max_tokens=20, temperature=1.0, seed=0, eos_ids=[2])
    sequences = [prompt + answer for prompt, answer in zip(PROMPTS, answers, strict=True)]
    probe = tuple(
        type(item)(token_ids=item.token_ids, logprobs=tuple(x + probe_error for x in item.logprobs))
        for item in policy.probe(sequences)
    )
    host.registry.publish(Manifest(version=version, tuning="lora", probe=probe))
    host.registry.promote(version, reason="a test")
    return version


def assert_written_by(policy: Policy, answer: Answer, *, reference: bool = False) -> None:
    expected = policy.logprobs([(answer.prompt_ids, tuple(answer.token_ids))], reference=reference)[0]
    assert np.abs(np.subtract(answer.logprobs, expected)).max() < EXACT


async def test_an_adapter_takes_over_while_answers_without_it_go_on(host: EngineHost, base: Path) -> None:
    policy = adapter(base, 1)
    old = [Answer((1, 20 + row, 3)) for row in range(4)]
    running = [asyncio.create_task(stream(host, answer)) for answer in old]
    await eventually(lambda: all(answer.token_ids for answer in old))
    version = publish(host, policy)
    await eventually(lambda: host.serving == version or host.registry.status(version).state == "failed")
    assert host.registry.status(version).reason == "a test"
    assert host.swaps[-1].ok and host.model_name == version
    new = await stream(host, Answer((1, 20, 3)))
    await asyncio.gather(*running)
    assert_written_by(policy, new)
    for answer in old:
        assert_written_by(policy, answer, reference=True)


async def test_an_adapter_that_is_not_what_its_manifest_says_is_rolled_back(host: EngineHost, base: Path) -> None:
    good = host.serving
    version = publish(host, adapter(base, 2), probe_error=0.5)
    await eventually(lambda: host.registry.status(version).state == "failed")
    assert host.registry.live("policy") == good == host.serving
    assert "differ from those of its manifest" in host.registry.status(version).reason
    assert len((await stream(host, Answer((1, 25, 3)), max_tokens=8)).token_ids) == 8
