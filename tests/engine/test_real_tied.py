"""A real vLLM serves a model whose output layer is its embedding, from the first version on and after each swap.

Most small models are such. vLLM computes their output layer on a CPU from a copy that a plain reload leaves as it was.
"""

from pathlib import Path

import numpy as np
import pytest

from rlhf_online.engine.host import EngineHost
from rlhf_online.models.first_probe import first_probe
from rlhf_online.simulation.tiny_model import write_tiny_model
from rlhf_online.versions.genesis import genesis
from tests.support.engine import Answer, publish, recompute, running_host, stream
from tests.support.waiting import ENGINE_TEST_S, eventually

pytestmark = pytest.mark.timeout(ENGINE_TEST_S)

EXACT = 1e-3  # nats; two unrelated sets of weights differ by tenths


async def test_a_tied_model_is_served_as_transformers_computes_it(tmp_path: Path) -> None:
    base = tmp_path / "base"
    write_tiny_model(base, weights_seed=3, tied=True)
    async with running_host(tmp_path, base) as host:
        await assert_served(host, genesis(host.registry, base, tuning="full", probe_of=first_probe))
        for seed in range(10, 15):
            write_tiny_model(tmp_path / str(seed), weights_seed=seed, tied=True)
            await assert_served(host, publish(host.registry, tmp_path / str(seed)))


async def assert_served(host: EngineHost, version: str) -> None:
    await eventually(lambda: host.serving == version or host.registry.status(version).state == "failed")
    assert host.state == "ready" and host.swaps[-1].ok, host.registry.status(version).reason
    answer = await stream(host, Answer((1, 20, 3)), max_tokens=24)
    expected = recompute(host.registry.path(version), (*answer.prompt_ids, *answer.token_ids))[2:]
    assert np.abs(np.subtract(answer.logprobs, expected)).max() < EXACT
