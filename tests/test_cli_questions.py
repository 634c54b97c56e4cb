"""`rlhf-online ask`: from the log of a state folder, by a reward service, to the annotators' queue."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from rlhf_online.cli import main
from rlhf_online.eventlog.local import LocalLog
from rlhf_online.events import Answer, Completion, Envelope, Message, Sampling
from rlhf_online.models.limits import ModelLimits
from rlhf_online.rewards.asking import propensity
from rlhf_online.state import StateDir
from rlhf_online.versions import open_registry
from rlhf_online.versions.manifest import Manifest
from rlhf_online.wire import encode
from tests.support.reward_service import reward_service
from tests.support.scripted_judge import scripted_judge


class TwoMinds:
    """Two heads that differ by an answer's first token."""

    objectives = ("helpful",)
    correlation_OO = torch.eye(1)

    def scores(self, pairs: Sequence[tuple[tuple[int, ...], tuple[int, ...]]]) -> torch.Tensor:
        return torch.tensor([[[answer[0], -answer[0]]] for _, answer in pairs]).float()


class Words:
    """A tokenizer that nobody asks."""

    eos_ids = (2,)

    def prompt_ids(self, messages: Sequence[Message]) -> tuple[int, ...]:
        return (1,)

    def answer_ids(self, text: str) -> tuple[int, ...]:
        return (1,)

    def decode(self, ids: Sequence[int]) -> str:
        return ""


def test_pairs_are_asked_about_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "state"
    state = StateDir(root)
    answers = tuple(
        Answer(index=i, text="x" * (i + 1), token_ids=(i + 1,), logprobs=(-1.0,), spans=(), finish_reason="stop")
        for i in range(3)
    )
    asked = Completion(
        completion_id="c", conversation_id="talk", person="ann", messages=(Message(role="user", content="?"),),
        prompt_token_ids=(1,), answers=answers, sampling=Sampling(), started_ms=1, finished_ms=2,
    )  # fmt: skip
    with LocalLog(state.log) as log:
        log.append(encode(Envelope(event_id="e", event=asked))).result(10)
    state.operator_token()
    registry = open_registry(tmp_path / "versions")
    version = registry.reserve("reward")
    (registry.stage(version) / "weights").write_text("weights")
    registry.publish(Manifest(version=version, tuning="full"))
    registry.promote(version)
    limits = ModelLimits(vocabulary=78, context=128)
    with (
        reward_service(registry, lambda _: TwoMinds(), Words(), limits) as reward,
        scripted_judge(lambda body: {"results": [{"item_ids": [body["item_id"]]}]}) as (url, taken),
    ):
        command = ["ask", "5", "--reward", reward.address, "--url", url.removesuffix("/v1"), "--state", str(root)]
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
