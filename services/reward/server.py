"""The reward service: gRPC Score, health and reflection, on one port.

Health says SERVING for "", for the service's name and for the version that scores, once there is one; a trainer that
waits for a version asks health by the version's name. Kubernetes' probes ask for LIVENESS, which is SERVING as long as
the event loop turns, and READINESS: a version scores, or there is none yet that could, which a new installation waits
for in vain until people have voted.
"""

import math
import time
from collections.abc import Sequence
from statistics import NormalDist
from typing import Any, Protocol

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from rlhf_online.config import GrpcSettings
from rlhf_online.errors import InvalidInput, RewardUnavailable, RlhfError
from rlhf_online.events import Message
from rlhf_online.metrics import RewardMetrics, show_version
from rlhf_online.metrics.exemplars import exemplar
from rlhf_online.models.limits import ModelLimits
from rlhf_online.proto.rlhf.v1 import reward_pb2, reward_pb2_grpc
from rlhf_online.rewards.rules.reading import Decoder
from services.grpc_port import GrpcPort
from services.grpc_tracing import TraceGrpc
from services.reward.batching import Batcher, Overloaded, Pair, Scores, Tokens, WrongVersion

SERVICE = reward_pb2.DESCRIPTOR.services_by_name["RewardService"].full_name
LIVENESS, READINESS = "liveness", "readiness"
MAX_MESSAGE_BYTES = 64 << 20
NORMAL = NormalDist()
CHARS_A_TOKEN = 4
"""Rough, to size batches of texts before they are tokenised."""


class Tokenizer(Decoder, Protocol):
    """What texts and conversations are turned into tokens with, and back."""

    def prompt_ids(self, messages: Sequence[Message]) -> Tokens: ...

    def answer_ids(self, text: str) -> Tokens: ...


class RewardServicer(reward_pb2_grpc.RewardServiceServicer):
    """Handlers: validate, queue, answer."""

    def __init__(self, batcher: Batcher, tokenizer: Tokenizer, metrics: RewardMetrics, limits: ModelLimits) -> None:
        self._batcher = batcher
        self._tokenizer = tokenizer
        self._metrics = metrics
        self._limits = limits

    async def Score(
        self, request: reward_pb2.ScoreRequest, context: grpc.aio.ServicerContext
    ) -> reward_pb2.ScoreResponse:
        """Scores of the items, all by one version. The caller's deadline cancels what still waits in the queue."""
        began = time.perf_counter()
        try:
            result = await self._score(request)
        except RlhfError as error:
            code = _status(error)
            self._metrics.requests.labels(code.name.lower()).inc()
            await context.abort(code, str(error))
        self._metrics.requests.labels("ok").inc()
        self._metrics.items.inc(len(result.scores))
        self._metrics.rejected.inc(sum(not math.isfinite(score) for score in result.scores))
        for score, spread in zip(result.scores, result.spreads, strict=True):
            if math.isfinite(score):
                self._metrics.scores.observe(NORMAL.cdf(score))
                self._metrics.spreads.observe(spread)
        self._metrics.latency.observe(time.perf_counter() - began, exemplar())
        return reward_pb2.ScoreResponse(
            scores=[
                reward_pb2.Score(score=score, spread=spread, objectives=each, heads=heads)
                for score, spread, each, heads in zip(
                    result.scores, result.spreads, result.by_objective, result.by_head, strict=True
                )
            ],
            reward_version=result.version,
            objectives=list(result.weights),
            weights=result.weights,
            rules_version=result.rules_version,
        )

    async def _score(self, request: reward_pb2.ScoreRequest) -> Scores:
        items = list(request.items)
        if not items:
            raise InvalidInput("no items: send at least one")
        for index, item in enumerate(items):
            self._check(index, item)
        return await self._batcher.score(
            lambda: [self._pair(item) for item in items],
            items=len(items),
            tokens=sum(_size(item) for item in items),
            version=request.reward_version,
            weights=dict(request.weights),
            rules=request.rules,
        )

    def _check(self, index: int, item: reward_pb2.ScoreItem) -> None:
        if item.WhichOneof("prompt") is None or item.WhichOneof("answer") is None:
            raise InvalidInput(f"items[{index}] needs a prompt and an answer")
        for name in ("prompt_tokens", "answer_tokens"):
            ids = getattr(item, name).ids
            if item.HasField(name) and (not ids or max(ids) >= self._limits.vocabulary):
                raise InvalidInput(f"items[{index}].{name} must be 1 or more ids below {self._limits.vocabulary}")

    def _pair(self, item: reward_pb2.ScoreItem) -> Pair:
        """Raises InvalidInput for what the model cannot read."""
        if item.HasField("conversation"):
            messages = [Message(role=m.role, content=m.content) for m in item.conversation.messages]
            prompt = tuple(self._tokenizer.prompt_ids(messages))
        else:
            prompt = tuple(item.prompt_tokens.ids)
        if item.HasField("answer_tokens"):
            answer = tuple(item.answer_tokens.ids)
        else:
            answer = tuple(self._tokenizer.answer_ids(item.answer_text))
        if not prompt or len(answer) >= self._limits.context:
            raise InvalidInput(
                f"a prompt of {len(prompt)} and an answer of {len(answer)} tokens: a prompt needs at least one, and an "
                f"answer must leave room for it in a context of {self._limits.context}"
            )
        self._metrics.cut.inc(len(prompt) + len(answer) > self._limits.context)
        return prompt, answer


class RewardServer:
    """The gRPC server around a servicer, for at most so many connections.

    Health is NOT_SERVING until `set_version` is called, but for LIVENESS; READINESS until that or `set_none_yet` is.
    """

    def __init__(
        self, servicer: RewardServicer, metrics: RewardMetrics, settings: GrpcSettings, connections: int
    ) -> None:
        self._servicer = servicer
        self._metrics = metrics
        options = settings.server_options(MAX_MESSAGE_BYTES, connections)
        self._port = GrpcPort(self._register, metrics.grpc, options, (TraceGrpc({f"/{SERVICE}/Score": True}),))
        self._health: Any = health.aio.HealthServicer()  # pyright: ignore[reportAttributeAccessIssue]  # missing in its stubs

    async def start(self, host: str, port: int) -> int:
        """Open the port (0: any) and serve; returns the port. Raises InvalidInput if it is taken."""
        for name in ("", SERVICE, READINESS):
            await self._health.set(name, health_pb2.HealthCheckResponse.NOT_SERVING)
        await self._health.set(LIVENESS, health_pb2.HealthCheckResponse.SERVING)
        try:
            return await self._port.open(host, port)
        except RuntimeError as error:
            raise InvalidInput(
                f"port {port} on {host} cannot be opened: stop what uses it, or set grpc_port to another"
            ) from error

    async def set_version(self, version: str, previous: str) -> None:
        """`version` scores from now on, and `previous` no longer."""
        show_version(self._metrics.serving, version)
        if previous:
            await self._health.set(previous, health_pb2.HealthCheckResponse.NOT_SERVING)
        for name in ("", SERVICE, READINESS, version):
            await self._health.set(name, health_pb2.HealthCheckResponse.SERVING)

    async def set_none_yet(self) -> None:
        """There is no version that could score."""
        await self._health.set(READINESS, health_pb2.HealthCheckResponse.SERVING)

    async def stop(self, grace_s: float) -> None:
        """Refuse new calls, let those in progress end within `grace_s` seconds."""
        await self._health.enter_graceful_shutdown()
        await self._port.close(grace_s)

    def _register(self, server: grpc.aio.Server) -> None:
        reward_pb2_grpc.add_RewardServiceServicer_to_server(self._servicer, server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        names = (SERVICE, health_pb2.DESCRIPTOR.services_by_name["Health"].full_name, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, server)


def _size(item: reward_pb2.ScoreItem) -> int:
    """About how many tokens the item has."""
    chars = len(item.answer_text) + sum(len(message.content) for message in item.conversation.messages)
    return len(item.prompt_tokens.ids) + len(item.answer_tokens.ids) + chars // CHARS_A_TOKEN


def _status(error: RlhfError) -> grpc.StatusCode:
    match error:
        case WrongVersion():
            return grpc.StatusCode.FAILED_PRECONDITION
        case RewardUnavailable():
            return grpc.StatusCode.UNAVAILABLE
        case Overloaded():
            return grpc.StatusCode.RESOURCE_EXHAUSTED
        case InvalidInput():
            return grpc.StatusCode.INVALID_ARGUMENT
        case _:
            return grpc.StatusCode.INTERNAL
