"""A rank that runs out of memory on votes has all ranks begin the step anew, with smaller micro-batches."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from structlog.testing import capture_logs
from torch import Tensor

from rlhf_online.models.packing import Packed
from rlhf_online.models.reward import RewardModel
from rlhf_online.simulation.tiny_model import write_tiny_model
from rlhf_online.training import distributed
from rlhf_online.training.votes import passes
from tests.support import ranks, shared_step

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    write_tiny_model(folder, weights_seed=3)
    return folder


def in_one(base: Path, where: str) -> tuple[dict[str, Tensor], int, int]:
    """The gradient of a step of which rank 1 can compute no more than four answers at once, in `where`; how often it
    could not, and of how many tokens micro-batches were then."""
    forward, failures = RewardModel.forward, 0

    def fail(_: Any) -> None:
        nonlocal failures
        failures += 1
        raise torch.OutOfMemoryError("a fake")

    def little(self: RewardModel, batch: Packed) -> Tensor:
        found = forward(self, batch)
        if torch.is_grad_enabled() and os.environ["RANK"] == "1" and len(batch.mask_BA) > 4:
            if where == "forward":
                fail(found)
            found.register_hook(fail)
        return found

    RewardModel.forward = little
    try:
        with distributed.process_group(CPU, 60.0), capture_logs() as lines:
            gradient = shared_step.of_reward(base)[0]
        return gradient, failures, lines[-1]["tokens"]
    finally:
        RewardModel.forward = forward


@pytest.mark.parametrize("where", ["forward", "backward"])
def test_all_ranks_begin_anew_and_come_to_the_gradient_of_one_process(
    base: Path, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that makes such micro-batches from the beginning: raters' biases take their steps between them."""
    (first, none, tokens), (second, failures, same) = ranks.run(2, in_one, base, where)
    assert none == 0 and failures > 0 and tokens == same < passes.MICRO_BATCH_TOKENS
    monkeypatch.setattr(passes, "MICRO_BATCH_TOKENS", tokens)
    alone, _ = shared_step.of_reward(base)
    for name, tensor in alone.items():
        assert torch.equal(first[name], second[name]) and torch.allclose(first[name], tensor, rtol=0, atol=1e-6), name
