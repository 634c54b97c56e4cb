"""A real vLLM serves what the zoo says that it does, as transformers computes it: the model, and what it learned.

Minutes a folder: `make zoo`, ARGS="-k Mixtral" for some of them.
"""

from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch

from rlhf_online.engine.host import EngineHost
from rlhf_online.models.policy import Policy
from rlhf_online.versions.genesis import genesis
from rlhf_online.versions.manifest import Manifest
from tests.support.engine import Answer, running_host, stream
from tests.support.waiting import ENGINE_TEST_S, eventually
from tests.zoo.models import ZOO, Animal, copied

pytestmark = [pytest.mark.slow, pytest.mark.timeout(ENGINE_TEST_S)]

Tuning = Literal["lora", "full"]
PROMPT = (2, 5, 12, 3, 2, 6)
EXACT, BFLOAT = 1e-3, 3e-2
"""Nats that a token's log-probability may differ by."""
TAUGHT = 0.05
"""What is added to every weight."""
SERVED = [
    pytest.param(animal, tuning, id=f"{animal.name.replace(' ', '-')}-{tuning}")
    for animal in ZOO
    for tuning in ("lora", "full")
    if not getattr(animal, tuning)
]


@pytest.mark.parametrize(("animal", "tuning"), SERVED)
async def test_the_model_and_what_it_learned_are_served(animal: Animal, tuning: Tuning, tmp_path: Path) -> None:
    folder = copied(animal, tmp_path / "model")
    async with running_host(tmp_path, folder, tuning=tuning) as host:
        first = genesis(host.registry, folder, tuning=tuning)
        policy = Policy.load(folder, tuning=tuning, version=host.registry.path(first), lora_rank=4)
        tolerance = EXACT if animal.name != "bfloat16" else BFLOAT
        await assert_served(host, first, policy, tolerance)
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for parameter in policy.parameters().values():
                parameter += TAUGHT * torch.randn(parameter.shape, generator=generator)
        learned = host.registry.reserve("policy")
        policy.write_version(host.registry.stage(learned))
        probe = policy.probe([PROMPT, (*PROMPT, 9, 10, 11)])
        host.registry.publish(Manifest(version=learned, tuning=tuning, probe=probe))
        host.registry.promote(learned, reason="a test")
        await assert_served(host, learned, policy, tolerance)


async def assert_served(host: EngineHost, version: str, policy: Policy, tolerance: float) -> None:
    await eventually(lambda: host.serving == version or host.registry.status(version).state == "failed" or host.failure)
    assert host.serving == version, host.registry.status(version).reason or host.failure
    answer = await stream(host, Answer(PROMPT), max_tokens=40)
    expected = policy.logprobs([(answer.prompt_ids, tuple(answer.token_ids))])[0]
    assert np.abs(np.subtract(answer.logprobs, expected)).max() < tolerance
