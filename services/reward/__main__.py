"""The reward service's process: `python -m services.reward --config FILE`."""

import argparse
import asyncio
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import structlog
import torch
from prometheus_client import CollectorRegistry

from rlhf_online import config, logs, process, tracing
from rlhf_online.errors import ConfigError, RlhfError
from rlhf_online.metrics import MachineMetrics, RewardMetrics
from rlhf_online.metrics import serve as serve_metrics
from rlhf_online.models import frozen, precision, reward, trunk
from rlhf_online.models.check import raise_refusals
from rlhf_online.models.check.contents import inspect
from rlhf_online.models.reward import RewardModel
from rlhf_online.models.tokens import ChatTokenizer
from rlhf_online.rewards import weights
from rlhf_online.rewards.rules import reading, record
from rlhf_online.state import StateDir
from rlhf_online.versions import open_registry
from rlhf_online.versions.manifest import Manifest
from rlhf_online.versions.registry import Registry
from services.reward.batching import Batcher, Pair, Scorer
from services.reward.follower import Follower
from services.reward.server import RewardServer, RewardServicer

STOP_GRACE_S = 5.0


def main() -> int:
    """Run until SIGTERM or SIGINT; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m services.reward", description="Scores answers over gRPC.")
    parser.add_argument("--config", type=Path, required=True, help="TOML file of settings (config.RewardSettings)")
    try:
        file = parser.parse_args().config
        settings = config.load(config.RewardSettings, file)
        if settings.die_with_parent:
            process.die_with_parent()
        process.lower_priority()
        process.raise_open_files()
        StateDir(settings.state_dir).close_to_others()
        logs.configure("reward", settings.log_level, settings.log_format, settings.log_levels)
        logs.follow(file, lambda: config.load(config.RewardSettings, file))
        tracing.configure("reward", settings.tracing.endpoint, sample=0)
        torch.set_num_threads(settings.threads)
        asyncio.run(serve(settings))
        tracing.close()
    except RlhfError as error:
        return process.report_error(error)
    return 0


async def serve(settings: config.RewardSettings) -> None:
    """Wire the service and run it until a signal. Raises InvalidInput for invalid ports or an unusable model,
    ConfigError where too few files may be opened."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    base = Path(settings.model)
    raise_refusals(base, inspect(base, tuning="lora", served=False))
    tokenizer = ChatTokenizer(base)
    collectors = CollectorRegistry()
    metrics = RewardMetrics(collectors)
    MachineMetrics(settings.state_dir, collectors)
    batcher = Batcher(
        metrics,
        lambda rules, pairs: reading.rewards(rules, tokenizer, pairs),
        max_batch_tokens=settings.max_batch_tokens,
        max_wait_ms=settings.max_wait_ms,
        max_queue=settings.max_queue,
    )
    servicer = RewardServicer(batcher, tokenizer, metrics, trunk.limits(trunk.read_config(base)))
    server = RewardServer(servicer, metrics, settings.grpc, process.connection_budget(process.open_files(), kinds=1))
    state = StateDir(settings.state_dir)
    registry = open_registry(state.versions, settings=settings.versions, actor="reward service")
    follower = Follower(
        registry,
        batcher,
        loader(settings, registry, tokenizer),
        server.set_version,
        poll_s=settings.poll_s,
        weights=lambda: weights.read(registry.store, state),
        rules=lambda: record.read(registry.store),
        on_none=server.set_none_yet,
    )
    try:
        port = await server.start(settings.host, settings.grpc_port)
        metrics_port = serve_metrics(collectors, settings.host, settings.metrics_port)
        process.write_ready_file(settings.ready_file, grpc=port, metrics=metrics_port)
        structlog.get_logger().info("listening", grpc=port, metrics=metrics_port)
        await _until(stop, follower)
    finally:
        await server.stop(STOP_GRACE_S)
        await batcher.close()


async def _until(stop: asyncio.Event, follower: Follower) -> None:
    """Follow the registry until `stop`; a follower that ends by an error ends the service with it."""
    following = asyncio.create_task(follower.run())
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait((following, stopping), return_when=asyncio.FIRST_COMPLETED)
    for task in (following, stopping):
        task.cancel()
    try:
        await following
    except asyncio.CancelledError:
        pass


class ModelScorer:
    """A reward model and the size of its forward passes."""

    def __init__(self, model: RewardModel, max_batch_tokens: int) -> None:
        self.model = model
        self._max_batch_tokens = max_batch_tokens

    @property
    def objectives(self) -> Sequence[str]:
        return self.model.objectives

    @property
    def correlation_OO(self) -> torch.Tensor:
        return self.model.correlation_OO

    def scores(self, pairs: Sequence[Pair]) -> torch.Tensor:
        return self.model.scores(pairs, max_batch_tokens=self._max_batch_tokens)


def loader(
    settings: config.RewardSettings, registry: Registry, tokenizer: ChatTokenizer
) -> Callable[[Manifest], Scorer]:
    """Loads the model of a version. What it gives raises VersionCorrupt; ConfigError for another tokenizer's."""
    base, device = Path(settings.model), trunk.pick_device(settings.device)
    shape = trunk.read_config(base)
    precision.choose(settings.dtype, device, shape, "float32")  # a type that the device lacks is told now

    def load(manifest: Manifest) -> Scorer:
        folder = registry.path(manifest.version)
        dtype = precision.choose(settings.dtype, device, shape, reward.computed_in(folder))
        model = RewardModel.load(base, folder=folder, tuning=manifest.tuning, device=device, dtype=dtype)
        if model.tokenizer != tokenizer.digest:
            raise ConfigError(
                f"model: {manifest.version} was trained with another tokenizer than that in {settings.model}: name the "
                "folder that the trainer's `reward.trunk`, or else its `model`, names"
            )
        frozen.narrow(model.decoder.requires_grad_(False), dtype)
        return ModelScorer(model, settings.max_batch_tokens)

    return load


if __name__ == "__main__":
    sys.exit(main())
