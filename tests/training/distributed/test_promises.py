"""What is promised bit for bit, by type and number of processes (docs/decisions/0035-precision.md)."""

import os
from pathlib import Path

import pytest
import torch

from rlhf_online.simulation.tiny_model import write_tiny_model
from rlhf_online.training import distributed
from tests.support import ranks, shared_step

CPU = torch.device("cpu")


def learned(base: Path, name: str) -> dict[str, str]:
    """Fingerprints of the gradients of a step of the policy and of one of the reward model, computed in that type, and
    of the reward model's normalisation."""
    torch.set_num_threads(1)
    dtype = getattr(torch, name)
    policy, _ = shared_step.of_policy(base, "ppo", dtype=dtype)
    reward, _ = shared_step.of_reward(base, dtype=dtype)
    return {"policy": distributed.fingerprint(policy), "reward": distributed.fingerprint(reward)}


def in_a_group(base: Path, name: str) -> dict[str, str]:
    assert os.environ["WORLD_SIZE"] != "1"
    with distributed.process_group(CPU, 60.0):
        return learned(base, name)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_as_many_processes_come_to_the_same_bits_in_every_run(tmp_path: Path, dtype: str) -> None:
    """All of them, and one on its own; other numbers of processes add up in another order."""
    write_tiny_model(tmp_path, weights_seed=3)
    found = {size: [told for _ in range(2) for told in ranks.run(size, in_a_group, tmp_path, dtype)] for size in (2, 3)}
    (one,) = ranks.run(1, learned, tmp_path, dtype)
    found[1] = [one, *ranks.run(1, learned, tmp_path, dtype)]
    for size, told in found.items():
        assert len(told) == 2 * size and all(each == told[0] for each in told), size
    assert found[2][0]["policy"] != found[1][0]["policy"], "which is why a checkpoint's digest is of a number of ranks"
