"""What follows a commit may be done again after a kill, and changes nothing the second time."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from rlhf_online.training.progress import JudgedVersion, Progress
from rlhf_online.training.publication import Publisher
from rlhf_online.versions import open_registry
from rlhf_online.versions.manifest import Manifest
from rlhf_online.versions.registry import Registry
from tests.support.crash import Crash

KEEP = 2


def write(folder: Path) -> None:
    (folder / "weights").write_text("the policy in memory")


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    registry = open_registry(tmp_path)
    version = registry.reserve("policy")
    write(registry.stage(version))
    registry.publish(Manifest(version=version, tuning="full"))
    registry.promote(version)
    return registry


@pytest.fixture
def publisher(registry: Registry) -> Publisher:
    learners: Any = SimpleNamespace(write_policy=write, write_reward=write)
    return Publisher(registry, learners, "full", KEEP)


def judged(registry: Registry, *, passed: bool = True) -> JudgedVersion:
    return JudgedVersion(
        version=registry.reserve("policy"),
        tuning="full",
        parent="policy-000000",
        reward_version="reward-000003",
        kl=1.5,
        position={"local": 7},
        probe=(),
        passed=passed,
        reasons=() if passed else ("too long", "too far"),
        figures={"win_rate": 0.5},
    )


def test_a_version_that_passed_becomes_live_once(registry: Registry, publisher: Publisher) -> None:
    item = judged(registry)
    assert publisher.publish_policy(item, staged=False) == "live"
    first = registry.manifest(item.version), registry.status(item.version)
    assert first[0].kl == 1.5
    assert first[0].position == {"local": 7}
    assert first[1].gate == {"win_rate": 0.5}
    assert publisher.publish_policy(item, staged=False) == "live"
    assert (registry.manifest(item.version), registry.status(item.version)) == first
    assert registry.lineage() == ["policy-000000", item.version]


def test_at_whatever_durable_step_it_was_killed_doing_it_again_completes_it(
    registry: Registry, publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.fsync
    parent, kills = "policy-000000", 0
    for fatal in range(1, 40):
        steps = 0

        def fsync(descriptor: int, fatal: int = fatal) -> None:
            nonlocal steps
            steps += 1
            if steps == fatal:
                raise Crash
            real(descriptor)

        item = replace(judged(registry), parent=parent)
        monkeypatch.setattr(os, "fsync", fsync)
        try:
            publisher.publish_policy(item, staged=False)
            done = True
        except Crash:
            kills, done = kills + 1, False
        monkeypatch.setattr(os, "fsync", real)
        assert publisher.publish_policy(item, staged=False) == "live"
        assert registry.live("policy") == item.version
        states = {version: registry.status(version).state for version in registry.versions("policy")}
        assert [version for version, state in states.items() if state == "live"] == [item.version]
        assert set(states.values()) <= {"live", "retired"}
        registry.verify(item.version)
        parent = item.version
        if done:
            break
    assert kills >= 6


def test_a_rejected_version_is_published_with_its_reasons(registry: Registry, publisher: Publisher) -> None:
    item = judged(registry, passed=False)
    publisher.stage_weights(item)
    assert publisher.publish_policy(item, staged=True) == "rejected"
    status = registry.status(item.version)
    assert (status.state, status.reason, status.gate) == ("rejected", "too long; too far", {"win_rate": 0.5})
    assert registry.live("policy") == "policy-000000"


def test_a_rejected_version_that_was_lost_in_a_kill_stays_unpublished(registry: Registry, publisher: Publisher) -> None:
    item = judged(registry, passed=False)
    assert publisher.publish_policy(item, staged=False) == "rejected"
    assert registry.versions("policy") == ["policy-000000"]


@pytest.mark.parametrize(
    "meanwhile",
    [
        lambda registry, item: registry.rollback("policy", reason="bad"),
        lambda registry, item: registry.mark(item.version, "failed", reason="probe"),
    ],
)
def test_a_version_that_has_left_service_is_left_alone(
    registry: Registry, publisher: Publisher, meanwhile: Callable[[Registry, JudgedVersion], object]
) -> None:
    item = judged(registry)
    publisher.publish_policy(item, staged=False)
    meanwhile(registry, item)
    live = registry.live("policy")
    assert publisher.publish_policy(item, staged=False) == "failed"
    assert registry.live("policy") == live


def test_a_child_of_a_version_that_was_rolled_back_is_not_promoted(registry: Registry, publisher: Publisher) -> None:
    first = judged(registry)
    publisher.publish_policy(first, staged=False)
    child = replace(judged(registry), parent=first.version)
    registry.rollback("policy", reason="bad")
    assert publisher.publish_policy(child, staged=False) == "rejected"
    assert registry.status(child.version).reason == f"its parent {first.version} is not live any more, policy-000000 is"
    assert registry.live("policy") == "policy-000000"


def test_old_versions_give_their_weights_up_and_keep_their_record(registry: Registry, publisher: Publisher) -> None:
    names = []
    for _ in range(KEEP + 3):
        item = replace(judged(registry), parent=registry.live("policy") or "")
        assert publisher.publish_policy(item, staged=False) == "live"
        names.append(item.version)
    whole = [name for name in registry.versions("policy") if registry.has_weights(name)]
    assert whole == ["policy-000000", *names[-1 - KEEP :]], "the first, the newest retired ones, the live one"
    assert [registry.status(name).state for name in names] == ["retired"] * (KEEP + 2) + ["live"]
    assert registry.manifest(names[0]).kl == 1.5


def test_a_version_that_was_overtaken_while_it_was_promoted_is_rejected(
    registry: Registry, publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    item, rival = judged(registry), registry.reserve("policy")
    write(registry.stage(rival))
    registry.publish(Manifest(version=rival, tuning="full"))
    real = registry.store.replace

    def replace(key: str, value: str, *, expected: str | None) -> bool:
        if (key, value) == ("live/policy", item.version):
            real(key, rival, expected="policy-000000")
        return real(key, value, expected=expected)

    monkeypatch.setattr(registry.store, "replace", replace)
    assert publisher.publish_policy(item, staged=False) == "rejected"
    assert registry.live("policy") == rival
    assert registry.status(item.version).reason == f"its parent policy-000000 is not live any more, {rival} is"


def learned(registry: Registry) -> Progress:
    return Progress(
        log_identity="a log",
        policy_version="policy-000000",
        reward_version=registry.reserve("reward"),
        position={"local": 7},
        figures={"accuracy": 0.75},
    )


def test_a_reward_version_becomes_live_once_and_says_what_it_learned_from(
    registry: Registry, publisher: Publisher
) -> None:
    first, second = learned(registry), learned(registry)
    assert publisher.publish_reward(first) and publisher.publish_reward(second)
    manifest, status = registry.verify(second.reward_version), registry.status(second.reward_version)
    assert (manifest.tuning, manifest.parent) == ("full", first.reward_version)
    assert (manifest.position, manifest.figures) == ({"local": 7}, {"accuracy": 0.75})
    assert (status.state, status.reason) == ("live", "learned from votes")
    assert publisher.publish_reward(second)
    assert (registry.verify(second.reward_version), registry.status(second.reward_version)) == (manifest, status)
    assert registry.verify(first.reward_version).parent == ""


@pytest.mark.parametrize("state", ["failed", "rejected", "retired"])
def test_a_reward_version_that_has_left_service_is_told_so_that_another_name_is_given(
    registry: Registry, publisher: Publisher, state: str
) -> None:
    first, second = learned(registry), learned(registry)
    publisher.publish_reward(first)
    if state == "retired":
        publisher.publish_reward(second)
    else:
        registry.mark(first.reward_version, "failed" if state == "failed" else "rejected", reason="the service")
    live = registry.live("reward")
    assert not publisher.publish_reward(first)
    assert registry.live("reward") == live and registry.status(first.reward_version).state == state


def test_old_reward_versions_give_their_weights_up(registry: Registry, publisher: Publisher) -> None:
    items = [learned(registry) for _ in range(KEEP + 3)]
    assert all(publisher.publish_reward(item) for item in items)
    names = registry.versions("reward")
    whole = [name for name in names if registry.has_weights(name)]
    assert whole == [names[0], *names[-1 - KEEP :]], "the first, the newest retired ones, the live one"


def test_a_reward_version_that_was_overtaken_while_it_was_promoted_takes_its_place(
    registry: Registry, publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    item, rival = learned(registry), registry.reserve("reward")
    write(registry.stage(rival))
    registry.publish(Manifest(version=rival, tuning="full"))
    real, waiting = registry.store.replace, [rival]

    def replace(key: str, value: str, *, expected: str | None) -> bool:
        if key == "live/reward" and waiting:
            real(key, waiting.pop(), expected=None)
        return real(key, value, expected=expected)

    monkeypatch.setattr(registry.store, "replace", replace)
    assert publisher.publish_reward(item)
    assert registry.live("reward") == item.reward_version
