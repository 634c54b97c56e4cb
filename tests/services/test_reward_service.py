"""The reward service over real gRPC: scores, pinned versions, batches, limits, health, following the registry."""

import asyncio
import errno
import json
import math
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
import torch
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from rlhf_online.config import GrpcSettings, RewardSettings, VersionsSettings, dump
from rlhf_online.durable import write_json
from rlhf_online.errors import ConfigError, InvalidInput, RewardUnavailable, StoreUnavailable
from rlhf_online.events import Message
from rlhf_online.models.limits import ModelLimits
from rlhf_online.models.reward import Heads, RewardModel
from rlhf_online.models.tokens import ChatTokenizer
from rlhf_online.proto.rlhf.v1 import events_pb2, reward_pb2, reward_pb2_grpc
from rlhf_online.rewards import weights
from rlhf_online.rewards.client import RewardClient
from rlhf_online.rewards.rules import record
from rlhf_online.rewards.rules.ruleset import NONE, parse
from rlhf_online.simulation.tiny_model import write_tiny_model
from rlhf_online.state import StateDir
from rlhf_online.versions import open_registry
from rlhf_online.versions.manifest import Manifest
from rlhf_online.versions.registry import Registry
from services.reward.__main__ import loader
from services.reward.server import SERVICE
from tests.support.counting_registry import CountingRegistry
from tests.support.http2 import most_at_once, ping
from tests.support.reward_service import RewardService, reward_service
from tests.support.samples import value
from tests.support.waiting import until

ROOT = Path(__file__).resolve().parents[2]
PAIRS = [((1, 5, 6, 3), (20, 21, 2)), ((1, 7, 3), (22, 2)), ((1, 5, 9, 10, 3), (23, 24, 25, 2))]
LIMITS = ModelLimits(vocabulary=78, context=128)


class Words:
    """A tokenizer of fixed answers."""

    def prompt_ids(self, messages: Sequence[Message]) -> tuple[int, ...]:
        return (1, len(messages), 3)

    def answer_ids(self, text: str) -> tuple[int, ...]:
        return (len(text), 2)

    @property
    def eos_ids(self) -> tuple[int, ...]:
        return (2,)

    def decode(self, ids: Sequence[int]) -> str:
        return " ".join(f"w{number}" for number in ids if number != 2)


class Adder:
    """Scores a pair with the sum of its tokens plus `offset`; waits for `gate`, and notes the sizes of its batches.

    With objectives, each has the sum times its own number, 1 for the first; two heads differ from it by ½.
    """

    def __init__(self, offset: float = 0.0, objectives: Sequence[str] = ("helpful",)) -> None:
        self.offset = offset
        self.objectives = objectives
        self.correlation_OO = torch.eye(len(objectives))
        self.sizes: list[int] = []
        self.gate = threading.Event()
        self.gate.set()
        self.began = threading.Event()

    def scores(self, pairs: Sequence[tuple[tuple[int, ...], tuple[int, ...]]]) -> torch.Tensor:
        self.began.set()
        assert self.gate.wait(30)
        self.sizes.append(len(pairs))
        sums_N1 = torch.tensor([[sum(p) + sum(a) + self.offset] for p, a in pairs])
        each_NO = sums_N1 * torch.arange(1, len(self.objectives) + 1)
        return each_NO.unsqueeze(2) + torch.tensor([0.5, -0.5])


def publish(registry: Registry, text: str = "weights") -> str:
    """A live reward version of one file."""
    version = registry.reserve("reward")
    (registry.stage(version) / "weights").write_text(text)
    registry.publish(Manifest(version=version, tuning="full"))
    registry.promote(version)
    return version


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return open_registry(tmp_path / "versions")


@pytest.fixture
def adder() -> Adder:
    return Adder()


@pytest.fixture
def service(registry: Registry, adder: Adder) -> Iterator[RewardService]:
    with reward_service(registry, lambda manifest: adder, Words(), LIMITS, max_queue=8) as running:
        yield running


@pytest.fixture
def client(service: RewardService) -> Iterator[RewardClient]:
    client = RewardClient(service.address, chunk=2)
    yield client
    client.close()


def expected(pairs: Sequence[tuple[tuple[int, ...], tuple[int, ...]]]) -> list[float]:
    return [float(sum(prompt) + sum(answer)) for prompt, answer in pairs]


def test_scores_come_in_order_from_the_version_asked_for(registry: Registry, client: RewardClient) -> None:
    version = publish(registry)
    client.wait_for_version(version, 10)
    scores = client.score(PAIRS, version, 10)  # three items in chunks of two
    assert [item.score for item in scores] == expected(PAIRS)
    assert {item.spread for item in scores} == {0.5}
    assert [item.by_head for item in scores] == [(item.score + 0.5, item.score - 0.5) for item in scores]


def test_the_distribution_of_scores_is_told_and_what_is_no_score_is_not_in_it(
    registry: Registry, service: RewardService, client: RewardClient
) -> None:
    version = publish(registry)
    client.wait_for_version(version, 10)
    client.score(PAIRS, version, 10)
    scores, spreads = service.metrics.scores, service.metrics.spreads
    assert value(scores, "_count") == value(spreads, "_count") == len(PAIRS)
    assert value(scores, "_sum") == pytest.approx(sum(0.5 * (1 + math.erf(x / 2**0.5)) for x in expected(PAIRS)))
    assert value(spreads, "_sum") == 0.5 * len(PAIRS)


def test_a_version_that_storage_does_not_bring_now_is_tried_again_and_not_refused(
    registry: Registry, client: RewardClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    verify, away = registry.verify, [StoreUnavailable("s3://bucket/blobs cannot be read now")] * 2

    def verified(version: str) -> Manifest:
        if away:
            raise away.pop()
        return verify(version)

    monkeypatch.setattr(registry, "verify", verified)
    version = publish(registry)
    client.wait_for_version(version, 10)
    assert registry.status(version).state == "live"


@pytest.mark.parametrize(("interval_s", "ended"), [(0, ""), (60, "too_many_pings")])
def test_a_client_may_ping_as_often_as_the_settings_say(registry: Registry, interval_s: float, ended: str) -> None:
    settings = GrpcSettings(min_ping_interval_s=interval_s)
    with reward_service(registry, lambda manifest: Adder(), Words(), LIMITS, grpc=settings) as service:
        assert asyncio.run(ping(service.address, 20)) == ended


def test_connections_are_bounded_and_leave_room_for_others_when_they_end(registry: Registry) -> None:
    version = publish(registry)
    with reward_service(registry, lambda manifest: Adder(), Words(), LIMITS, connections=4) as service:
        assert asyncio.run(most_at_once(service.address, 8)) == 4
        client = RewardClient(service.address, chunk=2)
        client.wait_for_version(version, 10)
        assert [item.score for item in client.score(PAIRS, version, 10)] == expected(PAIRS)
        client.close()


TWO = ("helpful", "harmless")  # an Adder scores the second one twice as high


@pytest.fixture
def state(tmp_path: Path) -> StateDir:
    return StateDir(tmp_path / "state")


@pytest.fixture
def weighted(registry: Registry, state: StateDir) -> Iterator[RewardClient]:
    """A client of a service with two objectives, which follows the operator's weights."""
    load, read = (lambda manifest: Adder(objectives=TWO)), (lambda: weights.read(registry.store, state))
    with reward_service(registry, load, Words(), LIMITS, weights=read) as service:
        client = RewardClient(service.address, chunk=2)
        client.wait_for_version(publish(registry), 10)
        yield client
        client.close()


def combined(helpful: float, harmless: float) -> list[float]:
    """Of objectives that do not correlate."""
    return [score * (helpful + 2 * harmless) / math.hypot(helpful, harmless) for score in expected(PAIRS)]


def test_the_weights_of_a_request_hold_for_it_alone(weighted: RewardClient) -> None:
    scores = weighted.score(PAIRS, "", 10, {"helpful": 1.0, "harmless": 3.0})
    assert [item.score for item in scores] == pytest.approx(combined(1, 3), rel=1e-5)
    assert [item.spread for item in scores] == pytest.approx([0.5 * 4 / math.sqrt(10)] * 3, rel=1e-4)
    assert [item.by_objective for item in scores] == [{"helpful": s, "harmless": 2 * s} for s in expected(PAIRS)]
    assert [item.score for item in weighted.score(PAIRS, "", 10)] == pytest.approx(combined(1, 1), rel=1e-5)


def test_requests_of_one_batch_keep_their_own_weights(registry: Registry) -> None:
    adder = Adder(objectives=TWO)
    with reward_service(registry, lambda manifest: adder, Words(), LIMITS) as service, ThreadPoolExecutor(4) as pool:
        client = RewardClient(service.address)
        client.wait_for_version(publish(registry), 10)
        adder.gate.clear()
        first = pool.submit(client.score, PAIRS[:1], "", 30)
        assert adder.began.wait(10)
        chosen = [{"helpful": 1.0, "harmless": 0.0}, {"helpful": 0.0, "harmless": 1.0}, None]
        others = [pool.submit(client.score, PAIRS, "", 30, item) for item in chosen]
        until(lambda: service.batcher.waiting == 9, 10, "the requests to wait")
        adder.gate.set()
        first.result()
        assert [item.score for item in others[0].result()] == pytest.approx(combined(1, 0), rel=1e-5)
        assert [item.score for item in others[1].result()] == pytest.approx(combined(0, 1), rel=1e-5)
        assert [item.score for item in others[2].result()] == pytest.approx(combined(1, 1), rel=1e-5)
        assert adder.sizes == [1, 9]
        client.close()


def test_without_weights_the_operators_of_the_moment_count(
    weighted: RewardClient, registry: Registry, state: StateDir
) -> None:
    def scores() -> list[float]:
        return [item.score for item in weighted.score(PAIRS, "", 10)]

    def record(value: str) -> None:
        assert registry.store.replace(weights.KEY, value, expected=registry.store.read(weights.KEY))

    write_json(state.reward_weights, {"helpful": 0.0})
    until(lambda: scores() == pytest.approx(combined(0, 1), rel=1e-5), 10, "an earlier release's file to be followed")
    record('{"harmless": 0.0, "an objective of another model": 5.0}')
    until(lambda: scores() == pytest.approx(expected(PAIRS)), 10, "the weights to be followed")
    record("{")
    assert scores() == pytest.approx(expected(PAIRS)), "a record of no use leaves those before it"
    record('{"helpful": 0.0}')
    until(lambda: scores() == pytest.approx(combined(0, 1), rel=1e-5), 10, "the weights to be followed")


def test_weights_of_no_use_are_refused(weighted: RewardClient) -> None:
    for given, words in (
        ({"helpfull": 1.0}, "'helpfull' is no objective: there are helpful, harmless"),
        ({"helpful": 0.0, "harmless": 0.0}, "all weights are 0"),
        ({"helpful": -1.0}, "weight of helpful"),
        ({"helpful": math.nan}, "weight of helpful"),
    ):
        with pytest.raises(InvalidInput, match=words):
            weighted.score(PAIRS, "", 10, given)
    assert len(weighted.score(PAIRS, "", 10)) == 3, "others are served"


RULES = """
[propositions.long]
length = { min = 3 }
[propositions.cut]
regex = 'w24'
[rules.brief]
weights = { long = -2.0 }
[rules.plain]
weights = { cut = 10.0 }
"""
"""By what `Words` makes of PAIRS: an answer of two words, of one, of three."""


def test_rules_add_what_they_pay_for_as_often_as_their_weights_say(weighted: RewardClient) -> None:
    chosen = {"helpful": 1.0, "harmless": 0.0, "rule:brief": 0.5, "rule:plain": 1.0}
    found = weighted.score(PAIRS, "", 10, chosen, RULES)
    by_model, by_rules = combined(1, 0), [0.0, 0.0, 0.5 * -2.0 + 1.0 * 10.0]
    assert [item.score for item in found] == pytest.approx(
        [model + added for model, added in zip(by_model, by_rules, strict=True)], rel=1e-5
    )
    assert found[2].by_objective == {**found[2].by_objective, "rule:brief": -2.0, "rule:plain": 10.0}
    assert list(found[2].by_objective) == ["helpful", "harmless", "rule:brief", "rule:plain"]
    assert [item.spread for item in found] == [item.spread for item in weighted.score(PAIRS, "", 10, {"harmless": 0.0})]
    bare = weighted.score(PAIRS, "", 10, {"helpful": 1.0, "harmless": 0.0})
    assert [item.score for item in bare] == pytest.approx(by_model, rel=1e-5), "weights without rules ask for none"


def test_without_weights_the_operators_rules_of_the_moment_count(weighted: RewardClient, registry: Registry) -> None:
    def added() -> float:
        return weighted.score(PAIRS, "", 10)[2].by_objective.get("rule:plain", 0.0)

    record.apply(registry.store, parse(RULES))
    until(lambda: added() == 10.0, 10, "the rules to be followed")
    assert registry.store.replace(record.KEY, "{", expected=registry.store.read(record.KEY))
    assert added() == 10.0, "a record of no use leaves those before it"
    record.apply(registry.store, NONE)
    until(lambda: added() == 0.0, 10, "the rules to be gone")


@pytest.mark.parametrize(
    ("chosen", "rules", "words"),
    [
        ({"helpful": 1.0}, "[rules", "it is no TOML"),
        ({"helpful": 1.0}, RULES.replace("w24", "(a{1,500}b?){1,20}"), "its repetitions make it"),
        ({"rule:brief": 1.0}, "", "'rule:brief' is no objective: there are helpful, harmless"),
        ({"helpful": 0.0, "harmless": 0.0}, RULES, "all weights of the reward model's objectives are 0"),
    ],
)
def test_rules_of_no_use_are_refused(weighted: RewardClient, chosen: dict[str, float], rules: str, words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        weighted.score(PAIRS, "", 10, chosen, rules)
    assert len(weighted.score(PAIRS, "", 10)) == 3, "others are served"


def test_a_fault_of_its_own_is_told_and_the_next_request_is_answered(
    registry: Registry, client: RewardClient, adder: Adder, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = publish(registry)
    client.wait_for_version(version, 10)
    with monkeypatch.context() as faulty:
        faulty.setattr(adder, "scores", lambda pairs: 1 // 0)
        with pytest.raises(
            RewardUnavailable, match=r"scoring failed: ZeroDivisionError at test_reward_service\.py:\d+"
        ):
            client.score(PAIRS, version, 10)
    assert [item.score for item in client.score(PAIRS, version, 10)] == expected(PAIRS)


def test_nothing_loaded_is_unavailable_and_health_says_so(service: RewardService, client: RewardClient) -> None:
    with pytest.raises(RewardUnavailable, match=r"UNAVAILABLE.*no reward version is loaded"):
        client.score(PAIRS, "", 10)
    with grpc.insecure_channel(service.address) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        answer = stub.Check(health_pb2.HealthCheckRequest(), timeout=10)
    assert answer.status == health_pb2.HealthCheckResponse.NOT_SERVING
    with pytest.raises(RewardUnavailable, match="does not serve reward-000000"):
        client.wait_for_version("reward-000000", 0.1)


def asked_health(address: str, name: str) -> int:
    with grpc.insecure_channel(address) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        return stub.Check(health_pb2.HealthCheckRequest(service=name), timeout=10).status


def test_a_new_installation_is_ready_without_a_version_and_one_that_cannot_look_is_not(
    registry: Registry, service: RewardService, monkeypatch: pytest.MonkeyPatch
) -> None:
    serving, not_serving = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
    until(lambda: asked_health(service.address, "readiness") == serving, 30, "a service that is ready")
    assert asked_health(service.address, "liveness") == serving

    def away(kind: str) -> str:
        raise StoreUnavailable("away")

    monkeypatch.setattr(registry, "live", away)
    with reward_service(registry, lambda manifest: Adder(), Words(), LIMITS) as other:
        assert [asked_health(other.address, name) for name in ("liveness", "readiness")] == [serving, not_serving]


def test_another_version_is_refused(registry: Registry, client: RewardClient) -> None:
    client.wait_for_version(publish(registry), 10)
    with pytest.raises(RewardUnavailable, match=r"FAILED_PRECONDITION.*not reward-000007"):
        client.score(PAIRS, "reward-000007", 10)


def test_health_names_the_version_that_scores(registry: Registry, service: RewardService, client: RewardClient) -> None:
    first = publish(registry)
    client.wait_for_version(first, 10)
    second = publish(registry)
    client.wait_for_version(second, 10)
    with grpc.insecure_channel(service.address) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        states = [
            stub.Check(health_pb2.HealthCheckRequest(service=name), timeout=10).status for name in ("", SERVICE, first)
        ]
    serving, not_serving = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
    assert states == [serving, serving, not_serving]


def test_reflection_lists_the_service(service: RewardService) -> None:
    with grpc.insecure_channel(service.address) as channel:
        request = reflection_pb2.ServerReflectionRequest(list_services="")
        stub: Any = reflection_pb2_grpc.ServerReflectionStub(channel)
        reply = next(iter(stub.ServerReflectionInfo(iter([request]), timeout=10)))
    assert SERVICE in [item.name for item in reply.list_services_response.service]


def test_a_method_that_is_not_served_is_refused_and_counted(service: RewardService) -> None:
    with grpc.insecure_channel(service.address) as channel, pytest.raises(grpc.RpcError, match="UNIMPLEMENTED"):
        channel.unary_unary("/rlhf.v1.RewardService/Nothing")(b"")
    assert value(service.metrics.grpc.unknown_methods) == 1


def test_prompts_that_are_too_long_are_counted(
    registry: Registry, service: RewardService, client: RewardClient
) -> None:
    client.wait_for_version(publish(registry), 10)
    fits, longer = ((5,) * 126, (20, 2)), ((5,) * 127, (20, 2))
    assert len(client.score([fits, longer], "", 10)) == 2
    assert value(service.metrics.cut) == 1


def test_conversations_and_texts_are_tokenised(
    registry: Registry, service: RewardService, client: RewardClient
) -> None:
    client.wait_for_version(publish(registry), 10)
    conversation = reward_pb2.Conversation(messages=[events_pb2.Message(role="user", content="name one fruit")] * 2)
    item = reward_pb2.ScoreItem(conversation=conversation, answer_text="plum")
    with grpc.insecure_channel(service.address) as channel:
        stub = reward_pb2_grpc.RewardServiceStub(channel)
        reply = stub.Score(reward_pb2.ScoreRequest(items=[item]), timeout=10)
    assert reply.scores[0].score == 1 + 2 + 3 + 4 + 2  # prompt_ids of two messages, answer_ids of four letters


@pytest.mark.parametrize(
    ("pairs", "why"),
    [
        ([], "no items"),
        ([((1, 3), (78, 2))], "answer_tokens must be 1 or more ids below 78"),
        ([((), (2,))], "prompt_tokens must be 1 or more"),
        ([((1, 3), (5,) * 128)], "must leave room"),
    ],
)
def test_what_the_model_cannot_read_is_the_callers_mistake(
    registry: Registry, service: RewardService, client: RewardClient, pairs: list, why: str
) -> None:
    client.wait_for_version(publish(registry), 10)
    items = [
        reward_pb2.ScoreItem(prompt_tokens=reward_pb2.Tokens(ids=prompt), answer_tokens=reward_pb2.Tokens(ids=answer))
        for prompt, answer in pairs
    ]
    with grpc.insecure_channel(service.address) as channel, pytest.raises(grpc.RpcError, match=why) as caught:
        reward_pb2_grpc.RewardServiceStub(channel).Score(reward_pb2.ScoreRequest(items=items), timeout=10)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    if pairs:
        with pytest.raises(InvalidInput, match=why):
            client.score(pairs, "", 10)


def test_requests_that_wait_share_a_batch_and_a_full_queue_refuses(
    registry: Registry, service: RewardService, adder: Adder
) -> None:
    client = RewardClient(service.address)
    client.wait_for_version(publish(registry), 10)
    adder.gate.clear()
    adder.began.clear()
    with ThreadPoolExecutor(8) as pool:
        first = pool.submit(client.score, PAIRS[:1], "", 30)
        assert adder.began.wait(10)  # it is being computed: what comes now waits
        others = [pool.submit(client.score, PAIRS[1:3], "", 30) for _ in range(4)]
        until(lambda: service.batcher.waiting == 8, 10, "eight items in the queue")
        with pytest.raises(RewardUnavailable, match="RESOURCE_EXHAUSTED"):
            client.score(PAIRS[:1], "", 30)
        adder.gate.set()
        assert [item.score for item in first.result()] == expected(PAIRS[:1])
        assert all([item.score for item in other.result()] == expected(PAIRS[1:3]) for other in others)
    assert adder.sizes == [1, 8]
    client.close()


def test_a_caller_past_its_deadline_costs_no_forward_pass(
    registry: Registry, service: RewardService, adder: Adder, client: RewardClient
) -> None:
    client.wait_for_version(publish(registry), 10)
    adder.gate.clear()
    adder.began.clear()
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(client.score, PAIRS[:1], "", 30)
        assert adder.began.wait(10)
        late = RewardClient(service.address)
        with pytest.raises(RewardUnavailable, match="DEADLINE_EXCEEDED"):
            late.score(PAIRS[1:2], "", 0.05)
        # The server learns of the cancellation by itself; a full round trip says that it has.
        with pytest.raises(RewardUnavailable, match="FAILED_PRECONDITION"):
            late.score(PAIRS[1:2], "reward-000099", 10)
        adder.gate.set()
        first.result()
    assert [item.score for item in late.score(PAIRS[2:], "", 10)] == expected(PAIRS[2:])
    assert adder.sizes == [1, 1]
    late.close()


def test_a_swap_falls_between_two_batches(registry: Registry) -> None:
    models = {"reward-000000": Adder(), "reward-000001": Adder(1000.0)}
    with reward_service(registry, lambda manifest: models[manifest.version], Words(), LIMITS) as service:
        client = RewardClient(service.address)
        client.wait_for_version(publish(registry), 10)
        models["reward-000000"].gate.clear()
        models["reward-000000"].began.clear()
        with ThreadPoolExecutor(2) as pool:
            running = pool.submit(client.score, PAIRS, "", 30)
            assert models["reward-000000"].began.wait(10)
            waiting = pool.submit(client.score, PAIRS, "reward-000000", 30)
            until(lambda: service.batcher.waiting, 10, "a request in the queue")
            client.wait_for_version(publish(registry), 10)
            models["reward-000000"].gate.set()
            assert [item.score for item in running.result()] == expected(PAIRS)
            with pytest.raises(RewardUnavailable, match="FAILED_PRECONDITION"):
                waiting.result()
        assert [item.score for item in client.score(PAIRS, "reward-000001", 10)] == [s + 1000 for s in expected(PAIRS)]
        client.close()


def test_a_corrupt_version_is_refused_and_the_old_one_goes_on(registry: Registry, client: RewardClient) -> None:
    good = publish(registry)
    client.wait_for_version(good, 10)
    bad = registry.reserve("reward")
    (registry.stage(bad) / "weights").write_text("weights")
    registry.publish(Manifest(version=bad, tuning="full"))
    (registry.path(bad) / "weights").write_text("Weights")
    registry.promote(bad)
    until(lambda: registry.live("reward") == good, 10, "the roll-back")
    assert registry.status(bad).state == "failed"
    assert [item.score for item in client.score(PAIRS, good, 10)] == expected(PAIRS)
    next_one = publish(registry)
    client.wait_for_version(next_one, 10)


def test_a_version_that_cannot_be_read_for_now_is_no_bad_version(registry: Registry) -> None:
    """Out of descriptors, a disk that is away: the version is tried again, and not marked."""
    tries: list[str] = []

    def load(manifest: Manifest) -> Adder:
        tries.append(manifest.version)
        if len(tries) <= 2:
            raise OSError(errno.EMFILE, "too many open files")
        return Adder()

    with reward_service(registry, load, Words(), LIMITS) as service:
        client = RewardClient(service.address)
        version = publish(registry)
        client.wait_for_version(version, 10)
        assert tries == [version] * 3
        assert registry.status(version).state == "live"
        client.close()


def test_a_version_that_is_published_twice_is_loaded_once(registry: Registry, tmp_path: Path) -> None:
    """A trainer that was killed after the live pointer moved publishes and promotes again when it restarts."""
    loads: list[str] = []

    def load(manifest: Manifest) -> Adder:
        loads.append(manifest.version)
        return Adder()

    registry = CountingRegistry(tmp_path / "versions")
    with reward_service(registry, load, Words(), LIMITS) as service:
        client = RewardClient(service.address)
        version = registry.reserve("reward")
        (registry.stage(version) / "weights").write_text("weights")
        registry.publish(Manifest(version=version, tuning="full"))
        registry.store.replace("live/reward", version, expected=None)  # the kill: a candidate still
        client.wait_for_version(version, 10)
        registry.stage(version)
        registry.publish(Manifest(version=version, tuning="full"))
        registry.promote(version)
        reads = registry.reads
        until(lambda: registry.reads > reads + 2, 10, "the follower to look again")
        assert loads == [version]
        client.close()


def start(settings: RewardSettings, path: Path) -> subprocess.Popen[bytes]:
    dump(settings, path)
    return subprocess.Popen(
        [sys.executable, "-m", "services.reward", "--config", str(path)], cwd=ROOT, stderr=subprocess.PIPE
    )


def test_the_process_scores_like_the_model_and_refuses_a_port_in_use(tmp_path: Path) -> None:
    base, state = tmp_path / "model", StateDir(tmp_path / "state")
    write_tiny_model(base, weights_seed=1)
    registry = open_registry(state.versions)
    model = RewardModel.load(base, tuning="full", heads=Heads(members=3), seed=5)
    version = registry.reserve("reward")
    model.save(registry.stage(version))
    registry.publish(Manifest(version=version, tuning="full"))
    registry.promote(version)
    weights.change(registry.store, state, {"helpful": 2.0}, ["helpful"])
    ready = tmp_path / "ready.json"
    settings = RewardSettings(
        state_dir=tmp_path / "its own",
        versions=VersionsSettings(url=f"file:{state.versions}"),
        model=str(base),
        grpc_port=0,
        metrics_port=0,
        ready_file=ready,
        device="cpu",
    )
    process = start(settings, tmp_path / "reward.toml")
    client = None
    try:
        until(lambda: ready.exists() or process.poll() is not None, 60, "the ready file")
        ports = json.loads(ready.read_text())
        client = RewardClient(f"127.0.0.1:{ports['grpc']}")
        client.wait_for_version(version, 60)
        scores = client.score(PAIRS, version, 30)
        with torch.no_grad():
            own_NK = model.scores(PAIRS)[:, 0]
        assert [item.score for item in scores] == pytest.approx(own_NK.mean(1).tolist(), abs=1e-5)
        assert [item.spread for item in scores] == pytest.approx(own_NK.std(1, unbiased=False).tolist(), abs=1e-5)
        assert [item.by_objective for item in scores] == [
            {"helpful": pytest.approx(mean, abs=1e-5)} for mean in own_NK.mean(1).tolist()
        ]
        metrics = httpx.get(f"http://127.0.0.1:{ports['metrics']}/metrics").text
        assert 'rlhf_reward_requests_total{outcome="ok"} 1.0' in metrics
        with grpc.insecure_channel(f"127.0.0.1:{ports['grpc']}") as channel:
            item = reward_pb2.ScoreItem(prompt_tokens=reward_pb2.Tokens(ids=[1, 5, 3]), answer_text="zinc")
            reply = reward_pb2_grpc.RewardServiceStub(channel).Score(reward_pb2.ScoreRequest(items=[item]), timeout=10)
        assert reply.weights == {"helpful": 2.0}, "what an operator set elsewhere"

        second = start(settings.model_copy(update={"grpc_port": ports["grpc"]}), tmp_path / "second.toml")
        assert f"port {ports['grpc']} on 127.0.0.1 cannot be opened" in second.communicate(timeout=120)[1].decode()
        assert second.returncode == 2
    finally:
        if client is not None:
            client.close()
        process.terminate()
        process.communicate(timeout=60)
    assert process.returncode == 0


def test_texts_score_as_the_tokens_they_are(tmp_path: Path) -> None:
    write_tiny_model(tmp_path, weights_seed=1)
    tokenizer, registry = ChatTokenizer(tmp_path), open_registry(tmp_path / "versions")
    model = RewardModel.load(tmp_path, tuning="full", heads=Heads(members=2), seed=5)

    with reward_service(registry, lambda manifest: model, tokenizer, LIMITS) as service:
        client = RewardClient(service.address)
        version = publish(registry)
        client.wait_for_version(version, 10)
        messages = [Message(role="user", content="name two metal")]
        pair = (tokenizer.prompt_ids(messages), tokenizer.answer_ids("zinc iron"))
        text = reward_pb2.ScoreItem(
            conversation=reward_pb2.Conversation(messages=[events_pb2.Message(role="user", content="name two metal")]),
            answer_text="zinc iron",
        )
        with grpc.insecure_channel(service.address) as channel:
            reply = reward_pb2_grpc.RewardServiceStub(channel).Score(reward_pb2.ScoreRequest(items=[text]), timeout=10)
        assert reply.scores[0].score == pytest.approx(client.score([pair], version, 10)[0].score, abs=1e-6)
        assert reply.reward_version == version
        client.close()


def test_a_version_of_another_tokenizer_is_left_alone(tmp_path: Path, registry: Registry) -> None:
    """The settings are wrong, not the version: it is not marked failed, and the one before goes on."""
    base, other = tmp_path / "model", tmp_path / "other"
    for folder in (base, other):
        write_tiny_model(folder, weights_seed=1)
    text = (other / "tokenizer.json").read_text()
    (other / "tokenizer.json").write_text(text.replace('"copper"', '"bronze"'))
    model = RewardModel.load(other, tuning="full", heads=Heads(members=2))
    settings = RewardSettings(state_dir=tmp_path / "state", model=str(base), device="cpu")
    load = loader(settings, registry, ChatTokenizer(base))
    with reward_service(registry, load, Words(), LIMITS) as service:
        client = RewardClient(service.address)
        stranger = registry.reserve("reward")
        model.save(registry.stage(stranger))
        registry.publish(Manifest(version=stranger, tuning="full"))
        registry.promote(stranger)
        with pytest.raises(ConfigError, match="another tokenizer than that in"):
            load(registry.manifest(stranger))
        good = registry.reserve("reward")
        RewardModel.load(base, tuning="full", heads=Heads(members=2)).save(registry.stage(good))
        registry.publish(Manifest(version=good, tuning="full"))
        registry.promote(good)
        client.wait_for_version(good, 20)
        assert registry.status(stranger).state == "retired"
        client.close()
