"""A trainer as a process, with the engine of `trainer_world`: `python -m tests.support.trainer_process FILE [N]`.

With a number it kills itself before the Nth backward pass, in the middle of an update.
"""

import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

import torch
from prometheus_client import CollectorRegistry

from rlhf_online import process
from rlhf_online.config import load
from rlhf_online.errors import RlhfError
from rlhf_online.eventlog.tail import LocalReader
from rlhf_online.metrics import MachineMetrics, TrainerMetrics, serve
from rlhf_online.models.tokens import ChatTokenizer
from rlhf_online.rewards.client import RewardClient
from rlhf_online.state import StateDir
from rlhf_online.training.lease import FileLease
from rlhf_online.training.settings import TrainerSettings
from rlhf_online.versions import open_registry
from services.trainer.wiring import build
from tests.support.trainer_world import TorchEngine


def kill_before_backward(number: int) -> None:
    """SIGKILL to this process when the `number`th gradient is asked for."""
    real, asked = torch.Tensor.backward, 0

    def backward(*args: Any, **kwargs: Any) -> None:
        nonlocal asked
        asked += 1
        if asked == number:
            os.kill(os.getpid(), signal.SIGKILL)
        real(*args, **kwargs)

    torch.Tensor.backward = backward


def main() -> None:
    torch.set_num_threads(1)
    if len(sys.argv) > 2:
        kill_before_backward(int(sys.argv[2]))
    settings = load(TrainerSettings, Path(sys.argv[1]))
    state, base = StateDir(settings.state_dir), Path(settings.model)
    tokenizer = ChatTokenizer(base)
    engine = TorchEngine(open_registry(state.versions), base, tokenizer)
    metrics = TrainerMetrics(collectors := CollectorRegistry())
    MachineMetrics(state.root, collectors)
    with FileLease.take(state.checkpoints) as lease:
        process.write_ready_file(settings.ready_file, metrics=serve(collectors, settings.host, settings.metrics_port))
        build(
            settings,
            lease,
            LocalReader(state.log),
            engine,
            RewardClient(settings.reward_address),
            tokenizer,
            metrics,
            threading.Event(),
        ).run()


if __name__ == "__main__":
    try:
        main()
    except RlhfError as error:
        sys.exit(process.report_error(error))
