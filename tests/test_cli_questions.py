"""`rlhf-online ask`: from the log of a state folder, by a reward service, to the annotators' queue."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from rlhf_online.cli import main
from rlhf_online.cli.versions import registry_of
from rlhf_online.eventlog.local import LocalLog
from rlhf_online.events import Answer, Completion, Envelope, Message, Sampling, VersionSpan
from rlhf_online.feedback import questions
from rlhf_online.models.limits import ModelLimits
from rlhf_online.rewards import audiences, weights
from rlhf_online.rewards.asking import ASKED, propensity
from rlhf_online.rewards.client import RewardClient
from rlhf_online.state import StateDir
from rlhf_online.versions.manifest import Manifest
from rlhf_online.versions.registry import Registry
from rlhf_online.wire import encode
from tests.support.reward_service import reward_service
from tests.support.scripted_judge import scripted_judge


class TwoMinds:
    """Two heads that differ by an answer's first token: by what is helpful, and more by what is terse."""

    objectives = ("helpful", "terse")
    correlation_OO = torch.eye(2)

    def scores(self, pairs: Sequence[tuple[tuple[int, ...], tuple[int, ...]]]) -> torch.Tensor:
        by_head = torch.tensor([[answer[0], -answer[0]] for _, answer in pairs]).float()
        return torch.stack((by_head, 3 * by_head), 1)


class Words:
    """A tokenizer that nobody asks."""

    eos_ids = (2,)

    def prompt_ids(self, messages: Sequence[Message]) -> tuple[int, ...]:
        return (1,)

    def answer_ids(self, text: str) -> tuple[int, ...]:
        return (1,)

    def decode(self, ids: Sequence[int]) -> str:
        return ""


@pytest.fixture
def state(tmp_path: Path) -> StateDir:
    state = StateDir(tmp_path / "state")
    state.operator_token()
    return state


@pytest.fixture
def registry(state: StateDir) -> Registry:
    """With a reward version."""
    registry = registry_of(state)
    version = registry.reserve("reward")
    (registry.stage(version) / "reward.json").write_text(json.dumps({"objectives": TwoMinds.objectives}))
    registry.publish(Manifest(version=version, tuning="full"))
    registry.promote(version)
    return registry


def asked(state: StateDir, name: str, number: int, version: str) -> None:
    """So many answers of that version to one request, in the log."""
    spans = (VersionSpan(policy_version=version, first_token=0),)
    answers = tuple(
        Answer(index=i, text="x" * (i + 1), token_ids=(i + 1,), logprobs=(-1.0,), spans=spans, finish_reason="stop")
        for i in range(number)
    )
    completion = Completion(
        completion_id=name, conversation_id="talk", person="ann", messages=(Message(role="user", content="?"),),
        prompt_token_ids=(1,), answers=answers, sampling=Sampling(), started_ms=1, finished_ms=2,
    )  # fmt: skip
    with LocalLog(state.log) as log:
        log.append(encode(Envelope(event_id=name, event=completion))).result(10)


@contextmanager
def services(state: StateDir, registry: Registry) -> Iterator[tuple[list[str], list[dict[str, Any]]]]:
    """The options that name a reward service and an annotators' queue, and what that was sent."""
    limits, counted = ModelLimits(vocabulary=78, context=128), lambda: weights.read(registry.store, state)
    with (
        reward_service(registry, lambda _: TwoMinds(), Words(), limits, weights=counted) as reward,
        scripted_judge(lambda body: {"results": [{"item_ids": [body["item_id"]]}]}) as (url, taken),
    ):
        client = RewardClient(reward.address)
        client.wait_for_version("reward-000000", 10)
        client.close()
        yield ["--reward", reward.address, "--url", url.removesuffix("/v1")], taken


def test_pairs_are_asked_about_once(state: StateDir, registry: Registry, capsys: pytest.CaptureFixture[str]) -> None:
    asked(state, "c", 3, "policy-000000")
    with services(state, registry) as (options, taken):
        command = ["ask", "5", *options, "--state", str(state.root)]
        assert main(command) == 0
        said = [line for line in capsys.readouterr().out.splitlines() if "[info" not in line]
        assert said[0] == "1 requests in the log with several answers that nobody has judged"
        assert said[1].startswith("1 questions added, 0.")
        assert main(command) == 0
        assert capsys.readouterr().out.splitlines() == [
            "0 requests in the log with several answers that nobody has judged"
        ]
    [item] = taken
    assert item["path"] == "/v1/annotation/items" and len(item["answers"]) == 2
    assert 0 < (propensity(item["item_id"]) or 0) <= 1


def test_without_an_address_the_reward_service_is_asked_that_the_trainer_asks(
    state: StateDir, registry: Registry
) -> None:
    """Under `up` its port is any."""
    asked(state, "c", 2, "policy-000000")
    with services(state, registry) as ((_, address, *others), taken):
        state.run.mkdir(parents=True, exist_ok=True)
        (state.run / "trainer.toml").write_text(f'reward_address = "{address}"\n')
        assert main(["ask", "5", *others, "--state", str(state.root)]) == 0
    assert len(taken) == 1


def test_what_an_audiences_adapter_answered_is_asked_about_by_its_weights(state: StateDir, registry: Registry) -> None:
    """By the reward service: everybody's count what is helpful, the audience's what is terse."""
    weights.change(registry.store, state, {"terse": 0.0}, TwoMinds.objectives)
    audiences.define(registry.store, "brief", {"helpful": 0.0, "terse": 2.0}, {"terse": 0.0}, TwoMinds.objectives)
    audiences.define(registry.store, "plain", {"rule:short": 1.0}, {"terse": 0.0}, TwoMinds.objectives, ["rule:short"])
    by = {"c": "policy-000000", "b": "policy.brief-000003", "p": "policy.plain-000001", "g": "policy.gone-000000"}
    for name, version in by.items():
        asked(state, name, 2, version)
    with services(state, registry) as (options, _):
        for _ in by:
            assert main(["ask", "1", *options, "--state", str(state.root)]) == 0
    lines = map(json.loads, (state.root / ASKED).read_text().splitlines())
    told = {line["completions"][0]: line["information"] for line in lines}
    helpful, terse = (questions.information(questions.probabilities((x, -x), (2 * x, -2 * x))) for x in (1.0, 3.0))
    assert terse > 2 * helpful
    assert told == pytest.approx({"c": helpful, "b": terse, "p": helpful, "g": helpful}, rel=1e-4)
