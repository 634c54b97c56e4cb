"""A trainer of several ranks, with the engine of `trainer_world`: what `ranks.run` has each of them do."""

import os
import signal
import threading
from pathlib import Path
from typing import Any

import torch
from prometheus_client import CollectorRegistry

from rlhf_online.config import load
from rlhf_online.eventlog.tail import LocalReader
from rlhf_online.metrics import TrainerMetrics
from rlhf_online.models.tokens import ChatTokenizer
from rlhf_online.rewards.client import RewardClient
from rlhf_online.state import StateDir
from rlhf_online.training import distributed, orders
from rlhf_online.training.distributed import group
from rlhf_online.training.lease import FileLease
from rlhf_online.training.settings import TrainerSettings
from rlhf_online.versions import open_registry
from services.trainer.models import follow
from services.trainer.ranks import check_alike
from services.trainer.wiring import build
from tests.support.trainer_world import TorchEngine


def train(config: Path, faults: dict[int, tuple[int, signal.Signals]] | None = None) -> list[str]:
    """Train until there is no vote to learn from. `faults`: the signal that a rank sends itself as it comes to an
    exchange, by its number. Returns which exchanges there were."""
    settings = load(TrainerSettings, config)
    rank, tokenizer = int(os.environ["RANK"]), ChatTokenizer(Path(settings.model))
    exchanges = _counted(*(faults or {}).get(rank, (0, signal.SIGKILL)))
    with distributed.process_group(torch.device("cpu"), settings.rank_timeout_s):
        check_alike(settings)
        if distributed.is_main_process():
            _lead(settings, tokenizer)
        else:
            follow(settings, tokenizer)
    return exchanges


def _lead(settings: TrainerSettings, tokenizer: ChatTokenizer) -> None:
    state = StateDir(settings.state_dir)
    engine = TorchEngine(open_registry(state.versions), Path(settings.model), tokenizer)
    metrics, rewards = TrainerMetrics(CollectorRegistry()), RewardClient(settings.reward_address)
    with FileLease.take(state.checkpoints) as lease:
        log = LocalReader(state.log)
        trainer = build(settings, lease, log, engine, rewards, tokenizer, metrics, threading.Event())
        while trainer.run_once():
            pass
    orders.stop()


def _counted(number: int, by: signal.Signals) -> list[str]:
    """The exchanges that this process comes to, those in the midst of a pass of a sharded model among them; at the
    `number`th it sends itself the signal."""
    exchanges = list[str]()

    def count(holder: Any, name: str) -> None:
        exchange = getattr(holder, name)

        def counted(*args: Any, **options: Any) -> Any:
            exchanges.append(name)
            if len(exchanges) == number:
                os.kill(os.getpid(), by)
            return exchange(*args, **options)

        setattr(holder, name, counted)

    count(group, "come")
    count(torch.distributed, "all_gather_single")
    count(torch.distributed, "reduce_scatter_single")
    return exchanges
