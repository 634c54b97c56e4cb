"""Waiting for what scores and what serves: either may turn out to be another one."""

import threading
from pathlib import Path
from types import SimpleNamespace as Space
from typing import cast

import pytest

from rlhf_online.errors import RewardUnavailable
from rlhf_online.training import retrier, serving
from rlhf_online.training.parts import TrainerParts
from rlhf_online.training.progress import Progress
from rlhf_online.training.retrier import Retrier
from rlhf_online.training.serving import serve_policy, serve_reward

PROMPT = (1, 5, 3)


class World:
    """A registry, a reward service and an engine; `calls` are what was asked of them, in order."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[str] = []
        self.live = ["policy-000001"]
        self.references = ["policy-000000"]
        self.publishable = [True]
        self.reward_away = 0
        self.served = [True]
        self.waiting: list[str] = []
        parts = Space(
            publisher=Space(publish_reward=self._publish),
            rewards=Space(wait_for_version=self._wait),
            retrier=Retrier(threading.Event(), lambda doing, error: self.waiting.append(doing)),
            registry=Space(
                reserve=lambda kind: f"{kind}-000009",
                live=lambda kind: self.live.pop(0) if len(self.live) > 1 else self.live[0],
                references=lambda: self.references,
                path=Path,
            ),
            learners=Space(follow=self._follow),
            experience=Space(wait_until_served=self._served),
        )
        self.parts = cast(TrainerParts, parts)
        self.progress = Progress(
            log_identity="a log", policy_version="policy-000001", reward_version="reward-000001",
            reference="policy-000000",
        )  # fmt: skip
        monkeypatch.setattr(retrier, "FIRST_WAIT_S", 0.0)
        monkeypatch.setattr(serving, "commit", self._commit)

    def _publish(self, progress: Progress) -> bool:
        self.calls.append(f"publish {progress.reward_version}")
        return self.publishable.pop(0) if len(self.publishable) > 1 else self.publishable[0]

    def _wait(self, version: str, timeout_s: float) -> None:
        if self.reward_away:
            self.reward_away -= 1
            raise RewardUnavailable("away")
        self.calls.append(f"scores {version}")

    def _follow(self, folder: Path, reference: Path, *, new_reference: bool) -> None:
        self.calls.append(f"follow {folder} from {reference}{' anew' if new_reference else ''}")

    def _served(self, version: str, prompt: tuple[int, ...]) -> bool:
        assert prompt == PROMPT
        self.calls.append(f"serves {version}")
        return self.served.pop(0)

    def _commit(self, parts: object, progress: Progress, *, policy: bool = False) -> None:
        what = f"{progress.policy_version} from {progress.reference}" if policy else progress.reward_version
        self.calls.append(f"commit {what}")


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    return World(monkeypatch)


def test_the_reward_version_is_published_and_waited_for(world: World) -> None:
    world.reward_away = 2
    serve_reward(world.parts, world.progress)
    assert world.calls == ["publish reward-000001"] * 3 + ["scores reward-000001"]
    assert world.waiting == ["waiting for the reward service"] * 2


def test_a_reward_version_that_cannot_be_live_gets_another_name_which_is_committed_first(world: World) -> None:
    world.publishable = [False, True]
    serve_reward(world.parts, world.progress)
    assert world.calls == [
        "publish reward-000001", "commit reward-000009", "publish reward-000009", "scores reward-000009"
    ]  # fmt: skip


def test_the_policy_in_memory_that_is_live_is_only_waited_for(world: World) -> None:
    serve_policy(world.parts, world.progress, PROMPT)
    assert world.calls == ["serves policy-000001"]


def test_a_live_version_that_is_another_one_is_loaded_and_committed_before_anything_is_learned(world: World) -> None:
    world.live, world.served = ["policy-000004"], [True]
    serve_policy(world.parts, world.progress, PROMPT)
    assert world.calls == [
        "follow policy-000004 from policy-000000", "commit policy-000004 from policy-000000", "serves policy-000004"
    ]  # fmt: skip
    assert world.progress.policy_version == "policy-000004"


def test_another_reference_is_taken_up_also_where_the_live_version_is_the_same(world: World) -> None:
    world.references = ["policy-000000", "policy-000001"]
    serve_policy(world.parts, world.progress, PROMPT)
    assert world.calls == [
        "follow policy-000001 from policy-000001 anew",
        "commit policy-000001 from policy-000001",
        "serves policy-000001",
    ]


def test_what_changes_while_one_waits_is_followed(world: World) -> None:
    world.live, world.served = ["policy-000001", "policy-000002"], [False, True]
    serve_policy(world.parts, world.progress, PROMPT)
    assert world.calls == [
        "serves policy-000001",
        "follow policy-000002 from policy-000000",
        "commit policy-000002 from policy-000000",
        "serves policy-000002",
    ]
