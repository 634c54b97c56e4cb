"""A real vLLM serves a model whose output layer is its embedding, from the first version on and after each swap.

Most small models are such. vLLM computes their output layer on a CPU from a copy that a reload alone leaves as it was;
and where the base's files hold that layer too, vLLM has memory for both.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from rlhf_online.engine.host import EngineHost
from rlhf_online.models.first_probe import first_probe
from rlhf_online.models.policy import Policy
from rlhf_online.simulation.tiny_model import write_tiny_model
from rlhf_online.versions.genesis import genesis
from rlhf_online.versions.manifest import Manifest
from tests.support.engine import PROBE_TOKENS, Answer, recompute, running_host, stream
from tests.support.waiting import ENGINE_TEST_S, eventually

pytestmark = pytest.mark.timeout(ENGINE_TEST_S)

EXACT = 1e-3  # nats; two unrelated sets of weights differ by tenths
SMOLLM = Path(__file__).resolve().parents[2] / "build" / "models" / "smollm2"


def tiny(folder: Path) -> Path:
    write_tiny_model(folder, weights_seed=3, tied=True)
    return folder


def tiny_with_a_copy(folder: Path) -> Path:
    tensors = load_file(tiny(folder) / "model.safetensors")
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def smollm(folder: Path) -> Path:
    if not SMOLLM.is_dir():
        pytest.skip("`make build/models/smollm2/config.json` fetches the model")
    return SMOLLM


@pytest.mark.parametrize(
    "make",
    [tiny, pytest.param(tiny_with_a_copy, marks=pytest.mark.slow), pytest.param(smollm, marks=pytest.mark.slow)],
)
async def test_a_tied_model_is_served_as_transformers_computes_it(tmp_path: Path, make) -> None:
    """Each version moves every weight a little, as training does: that must not pass for the version before."""
    base = make(tmp_path / "base")
    policy = Policy.load(base, tuning="full")
    async with running_host(tmp_path, base) as host:
        await assert_served(host, genesis(host.registry, base, tuning="full", probe_of=first_probe))
        for seed in range(5):
            move(policy, seed)
            version = host.registry.reserve("policy")
            policy.write_version(host.registry.stage(version))
            host.registry.publish(Manifest(version=version, tuning="full", probe=policy.probe(PROBE_TOKENS)))
            host.registry.promote(version, reason="a test")
            await assert_served(host, version)


def move(policy: Policy, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in policy.parameters().values():
            parameter += 1e-3 * torch.randn(parameter.shape, generator=generator)


async def assert_served(host: EngineHost, version: str) -> None:
    await eventually(lambda: host.serving == version or host.failure or not all(swap.ok for swap in host.swaps))
    assert host.state == "ready" and host.swaps[-1].ok, host.swaps[-1:] or host.failure
    answer = await stream(host, Answer((1, 20, 3)), max_tokens=24)
    expected = recompute(host.registry.path(version), (*answer.prompt_ids, *answer.token_ids))[2:]
    assert np.abs(np.subtract(answer.logprobs, expected)).max() < EXACT
