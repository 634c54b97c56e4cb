"""Requests that arrive close together share one forward pass, in the one thread that computes.

    Score handlers ──submit──▶ queue (bounded) ──collect──▶ batch ──▶ compute thread ──▶ each handler's future

What it waits for: the first request; then others, for `max_wait_ms` or until `max_batch_tokens`; while a batch is
computed, the next one gathers. A request is never split: all its scores come from the model that was loaded when its
batch began. A request that its caller has cancelled is dropped before it is computed.
"""

import asyncio
import traceback
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

import structlog
import torch
from torch import Tensor

from rlhf_online.errors import InvalidInput, RewardUnavailable, RlhfError
from rlhf_online.metrics import RewardMetrics
from rlhf_online.rewards import compose
from rlhf_online.rewards.rules.ruleset import NONE, Rules, parse
from rlhf_online.rewards.weights import Weights, applicable, complete

Tokens = tuple[int, ...]
Pair = tuple[Tokens, Tokens]
ByRules = Callable[[Rules, Sequence[Pair]], Sequence[Sequence[float]]]


class Scorer(Protocol):
    """A loaded reward model. `correlation_OO` is that of its objectives over the reference answers."""

    @property
    def objectives(self) -> Sequence[str]: ...

    @property
    def correlation_OO(self) -> Tensor: ...

    def scores(self, pairs: Sequence[Pair]) -> Tensor:
        """Normalised scores of each pair by each objective and each member of the ensemble, (N, O, K)."""
        ...


@dataclass(frozen=True, slots=True)
class Loaded:
    """The reward version that scores now, and its model."""

    version: str
    scorer: Scorer


@dataclass(frozen=True, slots=True)
class Terms:
    """By what scores are made one."""

    weights: Weights
    rules: Rules


@dataclass(frozen=True, slots=True)
class Scores:
    """Scores, spreads, scores by each objective and by each head, in the order of the items, all by `version`,
    `weights` and the rules of `rules_version`."""

    scores: tuple[float, ...]
    spreads: tuple[float, ...]
    by_objective: tuple[tuple[float, ...], ...]
    by_head: tuple[tuple[float, ...], ...]
    version: str
    weights: Weights
    rules_version: str = ""


class Overloaded(RlhfError):
    """The queue is full; nothing was queued."""


class WrongVersion(RewardUnavailable):
    """Another reward version is loaded than the one asked for."""


@dataclass(slots=True, eq=False)
class _Request:
    """`prepare` turns what the caller sent into pairs, in the compute thread: tokenising is computing too."""

    prepare: Callable[[], list[Pair]]
    items: int
    tokens: int
    version: str
    weights: Mapping[str, float] | None
    rules: str
    future: "asyncio.Future[Scores]"


class Batcher:
    """Owns the compute thread. All methods are for the event loop that made it. `by_rules` gives the rewards of pairs
    by each of the rules, (N, R)."""

    loaded: Loaded | None
    weights: Weights
    """The operator's, for requests that name none."""
    rules: Rules
    """The same."""

    def __init__(
        self,
        metrics: RewardMetrics,
        by_rules: ByRules,
        *,
        max_batch_tokens: int,
        max_wait_ms: float,
        max_queue: int,
    ) -> None:
        self.loaded = None
        self.weights = {}
        self.rules = NONE
        self._by_rules = by_rules
        self._max_batch_tokens = max_batch_tokens
        self._max_wait_s = max_wait_ms / 1000
        self._max_queue = max_queue
        self._metrics = metrics
        self._queue: deque[_Request] = deque()
        self._arrived = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="reward-compute")
        self._task = asyncio.create_task(self._run())

    @property
    def waiting(self) -> int:
        """Items in the queue."""
        return sum(request.items for request in self._queue)

    async def score(
        self,
        prepare: Callable[[], list[Pair]],
        *,
        items: int,
        tokens: int,
        version: str = "",
        weights: Mapping[str, float] | None = None,
        rules: str = "",
    ) -> Scores:
        """Scores of the pairs that `prepare` gives; `tokens` is about how many they have.

        Without `weights`, those of the operator now, and without `rules` besides, the operator's. Raises Overloaded,
        RewardUnavailable (nothing loaded), WrongVersion, and InvalidInput from `prepare` or for invalid weights or
        rules.
        """
        _check_version(self.loaded, version)
        if self.waiting + items > self._max_queue:
            raise Overloaded(f"{self.waiting} items wait already, {self._max_queue} may: try again later")
        future: asyncio.Future[Scores] = asyncio.get_running_loop().create_future()
        self._queue.append(_Request(prepare, items, tokens, version, weights, rules, future))
        self._arrived.set()
        return await future

    async def close(self) -> None:
        """Stop computing; requests still waiting get RewardUnavailable."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        while self._queue:
            future = self._queue.popleft().future
            if not future.done():
                future.set_exception(RewardUnavailable("the reward service is stopping"))
        self._thread.shutdown()

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._gather()
            batch = self._collect()
            if not batch:
                continue
            self._metrics.queue.set(self.waiting)
            self._metrics.batch_size.observe(sum(request.items for request in batch))
            try:
                operators = Terms(self.weights, self.rules)
                work = partial(_compute, self.loaded, operators, self._by_rules, batch)
                results = await loop.run_in_executor(self._thread, work)
            except asyncio.CancelledError:
                self._queue.extendleft(reversed(batch))
                raise
            except Exception as error:  # a fault of ours, whose message may hold what was asked: others' scores go on
                frame, name = traceback.extract_tb(error.__traceback__)[-1], type(error).__name__
                at = f"{Path(frame.filename).name}:{frame.lineno}"
                structlog.get_logger().error("a batch could not be scored", items=len(batch), error=name, at=at)
                results = [RewardUnavailable(f"scoring failed: {name} at {at}") for _ in batch]
            for request, result in zip(batch, results, strict=True):
                if not request.future.done():
                    _resolve(request.future, result)

    async def _gather(self) -> None:
        """Wait for the first request, then for others to share its batch."""
        while not self._queue:
            self._arrived.clear()
            await self._arrived.wait()
        deadline = asyncio.get_running_loop().time() + self._max_wait_s
        while sum(request.tokens for request in self._queue) < self._max_batch_tokens:
            self._arrived.clear()
            try:
                async with asyncio.timeout_at(deadline):
                    await self._arrived.wait()
            except TimeoutError:
                return

    def _collect(self) -> list[_Request]:
        """The oldest requests that fit one batch, at least one; cancelled ones are dropped."""
        batch: list[_Request] = []
        tokens = 0
        while self._queue:
            request = self._queue[0]
            if not request.future.done():
                if batch and tokens + request.tokens > self._max_batch_tokens:
                    break
                batch.append(request)
                tokens += request.tokens
            self._queue.popleft()
        return batch


def _resolve(future: "asyncio.Future[Scores]", result: Scores | RlhfError) -> None:
    if isinstance(result, RlhfError):
        future.set_exception(result)
    else:
        future.set_result(result)


def _check_version(loaded: Loaded | None, version: str) -> Loaded:
    if loaded is None:
        raise RewardUnavailable("no reward version is loaded yet: the trainer publishes the first one")
    if version and version != loaded.version:
        raise WrongVersion(f"{loaded.version} is loaded, not {version}")
    return loaded


def _compute(
    loaded: Loaded | None, operators: Terms, by_rules: ByRules, batch: Sequence[_Request]
) -> list[Scores | RlhfError]:
    """In the compute thread: one result a request, in order."""
    prepared: list[tuple[list[Pair], Terms] | RlhfError] = []
    for request in batch:
        try:
            now = _check_version(loaded, request.version)
            prepared.append((request.prepare(), _terms(request, operators, now.scorer.objectives)))
        except (RewardUnavailable, InvalidInput) as error:
            prepared.append(error)
    pairs = [pair for item in prepared if not isinstance(item, RlhfError) for pair in item[0]]
    scores_NOK = torch.empty(0)
    if loaded is not None and pairs:
        try:
            scores_NOK = loaded.scorer.scores(pairs)
        except (RuntimeError, InvalidInput) as error:  # torch's own errors, out of memory among them
            structlog.get_logger().error("a batch could not be scored", items=len(pairs), why=str(error))
            failed = error if isinstance(error, InvalidInput) else RewardUnavailable(f"scoring failed: {error}")
            return [failed for _ in batch]
    results: list[Scores | RlhfError] = []
    start = 0
    for item in prepared:
        if isinstance(item, RlhfError):
            results.append(item)
            continue
        assert loaded is not None
        own, terms = item
        by_rules_NR = torch.tensor(by_rules(terms.rules, own), dtype=scores_NOK.dtype)
        results.append(_combined(loaded, scores_NOK[start : start + len(own)], by_rules_NR, terms))
        start += len(own)
    return results


def _terms(request: _Request, operators: Terms, objectives: Sequence[str]) -> Terms:
    """What the request asks for, or else the operator's. Raises InvalidInput."""
    if request.weights:
        rules = parse(request.rules)
        return Terms(complete(request.weights, objectives, rules.set.objectives), rules)
    rules = parse(request.rules) if request.rules else operators.rules
    return Terms(applicable(operators.weights, objectives, rules.set.objectives), rules)


def _combined(loaded: Loaded, scores_NOK: Tensor, by_rules_NR: Tensor, terms: Terms) -> Scores:
    weights = torch.tensor(list(terms.weights.values()), dtype=scores_NOK.dtype)
    weights_O, weights_R = weights.split([scores_NOK.shape[1], by_rules_NR.shape[1]])
    score_N, spread_N = compose.combine(scores_NOK, weights_O, loaded.scorer.correlation_OO)
    heads_NK = compose.by_head(scores_NOK, weights_O, loaded.scorer.correlation_OO)
    score_N = compose.with_rules(score_N, by_rules_NR, weights_R)
    by_objective = tuple(map(tuple, torch.cat((scores_NOK.mean(2), by_rules_NR), 1).tolist()))
    return Scores(
        tuple(score_N.tolist()),
        tuple(spread_N.tolist()),
        by_objective,
        tuple(map(tuple, heads_NK.tolist())),
        loaded.version,
        terms.weights,
        terms.rules.version,
    )
