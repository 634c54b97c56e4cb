"""The reward service as a source of scores: by one named reward version, or RewardUnavailable.

Invariant: every score returned was given by the version and the weights asked for; others are refused, never mixed in.
"""

import time
from collections.abc import Mapping, Sequence
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from rlhf_online import tracing
from rlhf_online.errors import InvalidInput, RewardUnavailable
from rlhf_online.proto.rlhf.v1 import reward_pb2, reward_pb2_grpc
from rlhf_online.rewards.rules.ruleset import parse
from rlhf_online.rewards.sources import Pair, Scored

CHUNK = 256
POLL_S = 0.05


class RewardClient:
    """Calls the reward service at `address` ("host:port"); where the host has several addresses, each call goes to the
    next one, and one that holds another version than asked for is unavailable until it has followed.

    Use from one thread.
    """

    def __init__(self, address: str, *, chunk: int = CHUNK) -> None:
        self._address = address
        self._chunk = chunk
        # Reconnecting quickly matters more here than sparing a service that is one hop away.
        options = [
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 2000),
            ("grpc.lb_policy_name", "round_robin"),
        ]
        self._channel = grpc.insecure_channel(address, options=options)
        self._scores = reward_pb2_grpc.RewardServiceStub(self._channel)
        self._health: Any = health_pb2_grpc.HealthStub(self._channel)  # the stub's methods have no types

    def score(
        self,
        pairs: Sequence[Pair],
        reward_version: str,
        timeout: float,
        weights: Mapping[str, float] | None = None,
        rules: str = "",
    ) -> list[Scored]:
        """Scores of `pairs`, in their order, all by `reward_version`; `timeout` seconds a chunk of requests.

        "" takes the version that is loaded. `weights` are those of its objectives and of `rules`; without any, the
        operator's of the moment, rules too, which may change from chunk to chunk.

        Raises RewardUnavailable if the service does not answer in time or holds another version, InvalidInput for
        pairs that it will never score, and for invalid weights.
        """
        scores: list[Scored] = []
        for start in range(0, len(pairs), self._chunk):
            chunk = pairs[start : start + self._chunk]
            scores += self._score_chunk(chunk, reward_version, timeout, weights or {}, rules)
        return scores

    def _score_chunk(
        self, pairs: Sequence[Pair], reward_version: str, timeout: float, weights: Mapping[str, float], rules: str
    ) -> list[Scored]:
        items = [
            reward_pb2.ScoreItem(
                prompt_tokens=reward_pb2.Tokens(ids=prompt), answer_tokens=reward_pb2.Tokens(ids=answer)
            )
            for prompt, answer in pairs
        ]
        request = reward_pb2.ScoreRequest(items=items, reward_version=reward_version, weights=weights, rules=rules)
        try:
            traced = ((tracing.HEADER, current),) if (current := tracing.current()) else ()
            response = self._scores.Score(request, timeout=timeout, metadata=traced)
        except grpc.RpcError as error:
            if _code(error) is grpc.StatusCode.INVALID_ARGUMENT:
                raise InvalidInput(str(self._unavailable(error))) from error
            raise self._unavailable(error) from error
        if reward_version not in ("", response.reward_version) or len(response.scores) != len(pairs):
            raise RewardUnavailable(
                f"the reward service at {self._address} answered {len(response.scores)} scores by "
                f"{response.reward_version!r} where {len(pairs)} by {reward_version!r} were asked for"
            )
        if weights and {name: response.weights.get(name) for name in weights} != dict(weights):
            raise RewardUnavailable(
                f"the reward service at {self._address} scored by other weights than those asked for"
            )
        if rules and response.rules_version != (version := parse(rules).version):
            raise RewardUnavailable(
                f"the reward service at {self._address} scored by {response.rules_version or 'no rules'} where "
                f"{version} was asked for: it is of an earlier release, or no longer reads these rules"
            )
        names = list(response.objectives)
        return [
            Scored(item.score, item.spread, dict(zip(names, item.objectives, strict=True)), tuple(item.heads))
            for item in response.scores
        ]

    def wait_for_version(self, version: str, timeout: float) -> None:
        """Return once the service scores with `version`; asks its health service, which names the version loaded.

        Raises RewardUnavailable after `timeout` seconds.
        """
        deadline = time.monotonic() + timeout
        request = health_pb2.HealthCheckRequest(service=version)
        while True:
            last = f"it holds another version than {version}"
            try:
                response = self._health.Check(request, timeout=max(POLL_S, deadline - time.monotonic()))
                if response.status == health_pb2.HealthCheckResponse.SERVING:
                    return
            except grpc.RpcError as error:
                if _code(error) is not grpc.StatusCode.NOT_FOUND:
                    last = str(self._unavailable(error))
            if time.monotonic() >= deadline:
                raise RewardUnavailable(f"the reward service does not serve {version} after {timeout:g} s: {last}")
            time.sleep(POLL_S)

    def close(self) -> None:
        """End the connection."""
        self._channel.close()

    def _unavailable(self, error: grpc.RpcError) -> RewardUnavailable:
        code = _code(error)
        details = error.details() if isinstance(error, grpc.Call) else str(error)
        return RewardUnavailable(f"the reward service at {self._address} says {code.name}: {details}")


def _code(error: grpc.RpcError) -> grpc.StatusCode:
    return error.code() if isinstance(error, grpc.Call) else grpc.StatusCode.UNKNOWN
