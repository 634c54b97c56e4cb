"""The trainer's process: `python -m services.trainer --config FILE`.

`python -m rlhf_online.training.distributed.launch --nproc-per-node N -m services.trainer --config FILE` starts N that
train together (`training.distributed`).
"""

import argparse
import os
import signal
import sys
import threading
from contextlib import suppress
from pathlib import Path

import structlog
import torch
from prometheus_client import CollectorRegistry

from rlhf_online import config, logs, process, tracing
from rlhf_online.errors import RanksFailed, RlhfError
from rlhf_online.eventlog import open_source
from rlhf_online.gate.golden_prompts import read_golden
from rlhf_online.metrics import MachineMetrics, TrainerMetrics
from rlhf_online.metrics import serve as serve_metrics
from rlhf_online.models.check import raise_refusals
from rlhf_online.models.check.contents import inspect
from rlhf_online.models.tensor_headers import has_weights
from rlhf_online.models.tokens import ChatTokenizer
from rlhf_online.models.trunk import pick_device
from rlhf_online.rewards.client import RewardClient
from rlhf_online.rollout.sampler import Sampler
from rlhf_online.state import StateDir
from rlhf_online.training import distributed, orders
from rlhf_online.training.lease import Lease
from rlhf_online.training.reporter import Reporter
from rlhf_online.training.retrier import Retrier, Stopped
from rlhf_online.training.settings import TrainerSettings
from rlhf_online.versions import open_registry
from rlhf_online.versions.genesis import genesis
from rlhf_online.versions.registry import Registry
from services.trainer.models import follow
from services.trainer.ranks import check_alike
from services.trainer.wiring import build, take_lease

FIRST_VERSION_POLL_S = 0.25


def main() -> int:
    """Run until SIGTERM or SIGINT; returns the exit code."""
    stop = threading.Event()
    parser = argparse.ArgumentParser(
        prog="python -m services.trainer",
        description="Learns from the event log. `python -m rlhf_online.training.distributed.launch --nproc-per-node N "
        "-m services.trainer` starts N processes that train together, one a GPU.",
    )
    parser.add_argument("--config", type=Path, required=True, help="TOML file of settings (TrainerSettings)")
    try:
        file = parser.parse_args().config
        settings = config.load(TrainerSettings, file)
        read_golden(settings.gate.golden.file)  # what is wrong with it is said now, not with the first candidate
        if settings.die_with_parent:
            process.die_with_parent()
        process.lower_priority()
        StateDir(settings.state_dir).close_to_others()
        rank = int(os.environ.get("RANK", "0"))
        logs.configure(
            f"trainer-{rank}" if rank else "trainer", settings.log_level, settings.log_format, settings.log_levels
        )
        logs.follow(file, lambda: config.load(TrainerSettings, file))
        torch.set_num_threads(settings.threads)
        with distributed.process_group(pick_device(settings.device), settings.rank_timeout_s):
            check_alike(settings)
            if distributed.is_main_process():
                lead(settings, stop)
            else:
                follow(settings, ChatTokenizer(Path(settings.model)))
    except RlhfError as error:
        if stop.is_set() and isinstance(error, RanksFailed):
            structlog.get_logger().info("stopped", why=str(error))  # whoever stops all ends the others at once
            return 0
        return process.report_error(error)
    finally:
        tracing.close()
    return 0


def lead(settings: TrainerSettings, stop: threading.Event) -> None:
    """Train as the only process, or as rank 0, until SIGTERM or SIGINT. Raises RlhfError of many kinds.

    Other ranks end at once by such a signal, as they keep nothing.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    tracing.configure("trainer", settings.tracing.endpoint)
    with suppress(Stopped), take_lease(settings, stop) as lease:
        serve(settings, lease, stop)
    orders.stop()


def serve(settings: TrainerSettings, lease: Lease, stop: threading.Event) -> None:
    """Wire the trainer and run it until `stop`. Raises RlhfError of many kinds; Stopped before the first version."""
    state = StateDir(settings.state_dir)
    raise_refusals(Path(settings.model), inspect(Path(settings.model), tuning=settings.tuning))
    if settings.reward.trunk:
        trunk = Path(settings.reward.trunk)
        raise_refusals(trunk, inspect(trunk, tuning=settings.reward.tuning, served=False))
    tokenizer = ChatTokenizer(Path(settings.model))
    collectors = CollectorRegistry()
    metrics = TrainerMetrics(collectors)
    MachineMetrics(state.root, collectors)
    metrics_port = serve_metrics(collectors, settings.host, settings.metrics_port)
    process.write_ready_file(settings.ready_file, metrics=metrics_port)
    structlog.get_logger().info("started", metrics=metrics_port)
    registry = open_registry(state.versions, lease.guard, settings.versions, actor="trainer")
    _await_policy(settings, registry, Reporter(state, metrics), stop)
    source = open_source(settings.log, state.log)
    rewards = RewardClient(settings.reward_address)
    sampler = Sampler(
        settings.chat_url, state.operator_token(), tokenizer.eos_ids, pause=stop.wait, ca_file=settings.chat_ca_file
    )
    try:
        build(settings, lease, source, sampler, rewards, tokenizer, metrics, stop).run()
    finally:
        sampler.close()
        rewards.close()
        source.close()


def _await_policy(settings: TrainerSettings, registry: Registry, reporter: Reporter, stop: threading.Event) -> None:
    """Until there is a live policy: the base model as the first version, made here unless somebody else has.

    A model's folder without weights waits for somebody to publish some. Raises Stopped; InvalidInput for a model that
    transformers cannot load.
    """
    reporter.set(phase="waiting", waiting_for="the first policy version")
    retrier = Retrier(stop, reporter.waiting)
    while retrier.call("reading the live version", lambda: registry.live("policy")) is None:
        if has_weights(model := Path(settings.model)):
            retrier.call("making the first version", lambda: genesis(registry, model, tuning=settings.tuning))
        else:
            retrier.sleep(FIRST_VERSION_POLL_S)
    reporter.set(waiting_for="")


if __name__ == "__main__":
    sys.exit(main())
