"""The reward service's real gRPC server, batcher and follower in a thread of the test."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass

from prometheus_client import CollectorRegistry

from rlhf_online.config import GrpcSettings
from rlhf_online.metrics import RewardMetrics
from rlhf_online.models.limits import ModelLimits
from rlhf_online.rewards.rules import reading, record
from rlhf_online.rewards.weights import Weights
from rlhf_online.versions.manifest import Manifest
from rlhf_online.versions.registry import Registry
from services.reward.batching import Batcher, Scorer
from services.reward.follower import Follower
from services.reward.server import RewardServer, RewardServicer, Tokenizer


@dataclass
class RewardService:
    """A running service; `loop` is the thread's event loop, where `batcher` lives."""

    address: str
    batcher: Batcher
    metrics: RewardMetrics
    loop: asyncio.AbstractEventLoop


@contextmanager
def reward_service(
    registry: Registry,
    load: Callable[[Manifest], Scorer],
    tokenizer: Tokenizer,
    limits: ModelLimits,
    *,
    max_batch_tokens: int = 4096,
    max_wait_ms: float = 1.0,
    max_queue: int = 4096,
    weights: Callable[[], Weights] = dict,
    grpc: GrpcSettings | None = None,
    connections: int = 100,
) -> Iterator[RewardService]:
    """The service on a port of the system's choice, until the block ends."""
    ready: Future[RewardService] = Future()
    stop = asyncio.Event()

    async def serve() -> None:
        metrics = RewardMetrics(CollectorRegistry())
        batcher = Batcher(
            metrics,
            lambda rules, pairs: reading.rewards(rules, tokenizer, pairs),
            max_batch_tokens=max_batch_tokens,
            max_wait_ms=max_wait_ms,
            max_queue=max_queue,
        )
        servicer = RewardServicer(batcher, tokenizer, metrics, limits)
        server = RewardServer(servicer, metrics, grpc or GrpcSettings(), connections)
        following = Follower(
            registry,
            batcher,
            load,
            server.set_version,
            poll_s=0.01,
            weights=weights,
            rules=lambda: record.read(registry.store),
            on_none=server.set_none_yet,
        )
        follower = asyncio.create_task(following.run())
        try:
            port = await server.start("127.0.0.1", 0)
            ready.set_result(RewardService(f"127.0.0.1:{port}", batcher, metrics, asyncio.get_running_loop()))
            await stop.wait()
        finally:
            follower.cancel()
            await asyncio.gather(follower, return_exceptions=True)
            await server.stop(0)
            await batcher.close()

    thread = threading.Thread(target=asyncio.run, args=(serve(),), daemon=True)
    thread.start()
    try:
        yield ready.result(30)
    finally:
        if ready.done():
            ready.result().loop.call_soon_threadsafe(stop.set)
        thread.join(30)
