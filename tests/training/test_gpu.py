"""On a GPU every algorithm learns what it learns on a CPU. Runs where there is one."""

from pathlib import Path

import pytest
import torch

from rlhf_online.simulation.tiny_model import write_tiny_model
from rlhf_online.training.policy.algorithms import ALGORITHMS
from tests.support import shared_step

TOLERANCE = 1e-4
"""Of the largest gradient: the two add up in another order."""


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_gpu_gives_the_gradient_of_a_cpu(algorithm: str, tmp_path: Path) -> None:
    write_tiny_model(tmp_path, weights_seed=3)
    expected, expected_stats = shared_step.of_policy(tmp_path, algorithm)
    found, stats = shared_step.of_policy(tmp_path, algorithm, "cuda")
    largest = max(tensor.abs().max().item() for tensor in expected.values())
    assert expected.keys() == found.keys() and largest > 1e-3
    for name, tensor in expected.items():
        assert (found[name].cpu() - tensor).abs().max().item() <= TOLERANCE * largest, name
    assert stats == pytest.approx(expected_stats, rel=1e-4, abs=1e-5)
