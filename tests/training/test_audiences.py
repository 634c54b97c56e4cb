"""Audiences' policies through the real trainer: each its own line of versions, judged alone, once, despite kills."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from rlhf_online import learning
from rlhf_online.errors import UnknownVersion
from rlhf_online.events import now_ms
from rlhf_online.models.policy import Policy
from rlhf_online.models.trunk import Lora
from rlhf_online.rewards import audiences
from rlhf_online.rollout.buffer import RolloutBuffer
from rlhf_online.training import audiences as training
from rlhf_online.training import loop
from rlhf_online.training.checkpoint import Checkpoint, Checkpoints
from rlhf_online.training.loop import Trainer
from rlhf_online.training.policy.settings import PolicyTraining
from rlhf_online.training.settings import RewardTraining
from rlhf_online.versions.manifest import Manifest
from rlhf_online.versions.registry import Registry
from tests.support.crash import Crash, Kill, When
from tests.support.trainer_world import TorchEngine, World, world

OBJECTIVES = ("short", "long")
REWARD = RewardTraining(
    objectives=OBJECTIVES, heads=2, batch=16, epochs=1, cold_epochs=2, held_out=0.2, policy_accuracy=0.0
)
BRIEF, WORDY = {"short": 1.0, "long": 0.0}, {"short": 0.0, "long": 1.0}


@pytest.fixture
def tiny(tmp_path: Path) -> Iterator[World]:
    with world(tmp_path, tuning="lora", reward=REWARD) as made:
        yield made


def define(world: World, name: str, weights: dict[str, float]) -> None:
    audiences.define(world.registry.store, name, weights, {}, OBJECTIVES)


def votes(world: World, count: int = 12) -> None:
    world.chat(count, objective="short")
    world.chat(count, objective="long", longest=True)


def votes_on_its_answers(world: World, count: int = 12) -> None:
    """People whom the version of "brief" answers."""
    engine, version = world.engine, world.registry.live("policy.brief")
    assert version is not None
    world.engine = engine.of(version)
    votes(world, count)
    world.engine = engine


def told(world: World) -> dict[str, Any]:
    return world.state.read_status("trainer").get("audiences", {})


def policy(trainer: Trainer) -> dict[str, float]:
    parameters = trainer.parts.learners.policy.policy.parameters()
    return {name: float(parameter.detach().double().sum()) for name, parameter in sorted(parameters.items())}


def last(trainer: Trainer) -> Checkpoint:
    checkpoint = trainer.parts.checkpoints.last
    assert checkpoint is not None
    return checkpoint


def waiting(trainer: Trainer) -> list[str]:
    """The answers of the log that wait for an update."""
    buffer = trainer.parts.intake.policy_inputs.buffer
    return [rollout["rollout_id"] for rollout in buffer.to_json()["rollouts"]]


def ranks(world: World, version: str) -> set[int]:
    """Of the version's adapter."""
    adapter = load_file(world.registry.path(version) / "adapter_model.safetensors")
    return {len(tensor) for name, tensor in adapter.items() if "lora_A" in name}


def counted(trainer: Trainer, kind: str) -> tuple[float | None, float | None]:
    """The gate's verdicts on candidates of that kind: passed, and rejected."""
    value = trainer.parts.reporter.metrics.registry.get_sample_value
    passed, rejected = (
        value("rlhf_gate_candidates_total", {"kind": kind, "verdict": verdict}) for verdict in ("passed", "rejected")
    )
    return passed, rejected


def checked(world: World, trainer: Trainer) -> None:
    """What serves is what is committed, of everybody and of each audience, and nothing was used twice."""
    registry, progress = world.registry, trainer.progress
    for version in registry.versions():
        registry.verify(version)
    assert registry.live("policy") == progress.policy_version
    assert progress.audiences == {name: audiences.live(registry, name) for name in progress.audiences}
    ledger = world.ledger()
    everything = [digest for digests in ledger.values() for digest in digests]
    assert len(everything) == len(set(everything))
    common = policy(trainer)
    trainer.parts.learners.restore_policy(last(trainer).part("policy"))
    assert policy(trainer) == common, "the common policy is in memory"


def test_each_learns_after_the_common_policy_and_is_a_version_of_its_own_kind(tiny: World) -> None:
    with tiny.trainer() as trainer:
        votes(tiny)
        assert trainer.run_once()
        assert tiny.registry.versions("policy.brief") == []
        define(tiny, "brief", BRIEF)
        define(tiny, "wordy", WORDY)
        votes(tiny)
        assert trainer.run_once()
        for name, weights in (("brief", BRIEF), ("wordy", WORDY)):
            version = f"policy.{name}-000000"
            manifest, status = tiny.registry.manifest(version), tiny.registry.status(version)
            assert (manifest.parent, manifest.weights, manifest.tuning) == ("policy-000002", weights, "lora")
            assert manifest.reward_version == tiny.registry.live("reward")
            assert (status.state, status.reason, status.gate["samples"]) == ("live", "passed the gate", 16)
            assert (told(tiny)[name]["version"], told(tiny)[name]["state"]) == (version, "live")
        assert tiny.registry.manifest("policy-000002").weights == {"short": 1.0, "long": 1.0}
        checked(tiny, trainer)
        adapters = [
            load_file(tiny.registry.path(name) / "adapter_model.safetensors")
            for name in ("policy-000002", "policy.brief-000000", "policy.wordy-000000")
        ]
        name = next(name for name in adapters[0] if "lora_B" in name)
        assert len({float(adapter[name].sum()) for adapter in adapters}) == 3, "three adapters"
        votes(tiny)
        assert trainer.run_once()
        assert tiny.registry.manifest("policy.brief-000001").parent == "policy.brief-000000"
        assert tiny.registry.lineage("policy.brief") == ["policy.brief-000000", "policy.brief-000001"]
        assert tiny.registry.lineage() == [f"policy-{number:06d}" for number in range(4)]
        checked(tiny, trainer)


def test_answers_of_an_audiences_version_train_it_and_nobody_else(tiny: World) -> None:
    with tiny.trainer() as trainer:
        define(tiny, "brief", BRIEF)
        votes(tiny)
        trainer.run_once()
        asked = len(tiny.accepted)
        votes_on_its_answers(tiny)
        assert trainer.run_once()
        store = trainer.parts.registry.store
        its = {f"completion-{number}" for number in range(asked + 1, tiny.conversations + 1)}
        trained, others = (
            {each["completion_id"] for each in json.loads(store.read(f"trained/{name}.json") or "")["answers"]}
            for name in ("policy.brief-000001", "policy-000002")
        )
        assert trained and trained <= its, "the log's answers by its own version"
        assert others and not others & its
        learned = [vote["event_id"] for vote in trainer.parts.learners.reward.state()[1]["replay"]]
        assert set(learned) & set(tiny.accepted[asked:]), "votes on them train everybody's reward model"
        checked(tiny, trainer)


def test_each_is_judged_by_itself(tiny: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """One whose candidate the gate rejects stays as it is; the others and the common policy learn on."""
    judge = training.judge_candidate

    def strict(parts: Any, view: Any, scored: Any, kind: str) -> Any:
        judged = judge(parts, view, scored, kind)
        return replace(judged, passed=False, reasons=("a test",)) if kind == "policy.brief" else judged

    monkeypatch.setattr(training, "judge_candidate", strict)
    with tiny.trainer() as trainer:
        define(tiny, "brief", BRIEF)
        define(tiny, "wordy", WORDY)
        votes(tiny)
        assert trainer.run_once()
        assert tiny.registry.live("policy") == "policy-000001"
        assert (audiences.live(tiny.registry, "brief"), tiny.registry.live("policy.wordy")) == (
            None,
            "policy.wordy-000000",
        )
        status = tiny.registry.status("policy.brief-000000")
        assert (status.state, status.reason) == ("rejected", "a test")
        assert trainer.progress.audiences == {"wordy": "policy.wordy-000000"}
        assert told(tiny)["brief"]["why"] == "a test"
        assert [counted(trainer, kind) for kind in ("policy", "policy.brief", "policy.wordy")] == [
            (1, 0),
            (0, 1),
            (1, 0),
        ]
        checked(tiny, trainer)
        audiences.remove(tiny.registry.store, "brief")
        votes(tiny)
        assert trainer.run_once()
        assert counted(trainer, "policy.brief") == (None, None)


KILLS: list[tuple[Any, str, When]] = [
    (training, "judge_candidate", "after"),
    (RolloutBuffer, "take", "after"),
    (Checkpoints, "save", "before"),
    (Checkpoints, "save", "after"),
    (Registry, "publish", "before"),
    (Registry, "publish", "after"),
    (Registry, "promote", "after"),
    (loop.audiences, "take_back_policy", "before"),
]


@pytest.mark.parametrize(("owner", "name", "when"), KILLS, ids=[f"{when} {name}" for _, name, when in KILLS])
def test_killed_anywhere_it_goes_on_with_the_audience_that_it_was_at(
    tiny: World, owner: Any, name: str, when: When, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The trainer dies beside one step of the first audience, and comes to what it would have come to."""
    kill = Kill(when)
    improve = training._improve  # noqa: SLF001

    def arming(*args: Any) -> Any:
        kill.armed = True
        return improve(*args)

    define(tiny, "brief", BRIEF)
    define(tiny, "wordy", WORDY)
    votes(tiny)
    with monkeypatch.context() as patch, tiny.trainer() as trainer, pytest.raises(Crash):
        patch.setattr(training, "_improve", arming)
        kill.at(owner, name, patch)
        trainer.run_once()
    assert tiny.registry.live("policy") == "policy-000001", "the common policy was published before"
    with tiny.trainer() as successor:
        while successor.run_once():
            pass
        live = {name: audiences.live(tiny.registry, name) for name in ("brief", "wordy")}
        assert all(version and version.startswith(f"policy.{name}-") for name, version in live.items())
        assert tiny.registry.versions("policy") == ["policy-000000", "policy-000001"], "nothing was learned twice"
        assert sum(len(tiny.registry.versions(f"policy.{name}")) for name in live) == 2
        checked(tiny, successor)


def test_a_version_that_no_pod_holds_stops_nobody_and_is_not_waited_for_once_it_has_been_live_for_long(
    tiny: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "now_ms", lambda: now_ms() + int(training.SERVED_WITHIN_S * 1000))
    with tiny.trainer() as trainer:
        monkeypatch.setattr(training, "POLL_S", None)  # whoever waits for that long fails
        define(tiny, "brief", BRIEF)
        votes(tiny)
        trainer.run_once()

        def nobody(self: TorchEngine, prompt: Any) -> str:
            if self.version:
                raise UnknownVersion(f"the chat service does not hold {self.version}")
            return self.policy()[0]

        monkeypatch.setattr(TorchEngine, "serving", nobody)
        votes(tiny)
        assert trainer.run_once()
        assert told(tiny)["brief"]["why"] == "the chat service does not hold policy.brief-000000"
        assert tiny.registry.live("policy") == "policy-000002"
        checked(tiny, trainer)


def test_pods_have_a_while_to_hold_a_version_that_has_just_become_live(
    tiny: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    serving = TorchEngine.serving

    def late(self: TorchEngine, prompt: Any) -> str:
        asked.append(self.version)
        if self.version and asked.count(self.version) < 3:
            raise UnknownVersion(f"the chat service does not hold {self.version}")
        return serving(self, prompt)

    monkeypatch.setattr(TorchEngine, "serving", late)
    monkeypatch.setattr(training, "now_ms", lambda: 0)
    monkeypatch.setattr(training, "POLL_S", 0.0)
    with tiny.trainer() as trainer:
        define(tiny, "brief", BRIEF)
        for _ in range(2):
            votes(tiny)
            trainer.run_once()
        assert asked.count("policy.brief-000000") == 3
        assert tiny.registry.live("policy.brief") == "policy.brief-000001"


def test_answers_wait_on_if_nobody_holds_their_version_any_more(tiny: World, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = TorchEngine.stream

    def gone(self: TorchEngine, *args: Any) -> Any:
        if self.version:
            raise UnknownVersion(f"the chat service does not hold {self.version}")
        return stream(self, *args)

    with tiny.trainer() as trainer:
        define(tiny, "brief", BRIEF)
        votes(tiny, 8)
        trainer.run_once()
        votes_on_its_answers(tiny, count=5)
        votes(tiny, 3)
        with monkeypatch.context() as patch:
            patch.setattr(TorchEngine, "stream", gone)
            assert trainer.run_once()
        assert told(tiny)["brief"]["why"] == "the chat service does not hold policy.brief-000000"
        waited, used = waiting(trainer), len(tiny.ledger()["rollout"])
        assert len(waited) == 30, "ten people were given three answers each"
        checked(tiny, trainer)
        votes(tiny, 8)
        assert trainer.run_once()
        assert not set(waited) & set(waiting(trainer)), "the next update takes them"
        assert len(tiny.ledger()["rollout"]) >= used + len(waited)
        assert tiny.registry.live("policy.brief") == "policy.brief-000001"
        checked(tiny, trainer)


def test_an_update_that_is_undone_leaves_no_version_and_uses_its_answers_once(tmp_path: Path) -> None:
    """As the common policy's does: what threw the policy off is not tried again."""
    with (
        world(tmp_path, tuning="lora", reward=REWARD, policy=PolicyTraining(epochs=1, max_step_kl=1e-9)) as tiny,
        tiny.trainer() as trainer,
    ):
        define(tiny, "brief", BRIEF)
        votes(tiny)
        trainer.run_once()
        assert tiny.registry.versions("policy.brief") == []
        assert told(tiny)["brief"]["why"].startswith("the update moved the policy by")
        assert len(tiny.ledger()["rollout"]) == 64, "32 each, of 72"
        assert len(waiting(trainer)) == 8
        checked(tiny, trainer)


def test_it_begins_anew_from_the_common_version_if_its_first_is_rolled_back(tiny: World) -> None:
    with tiny.trainer() as trainer:
        define(tiny, "brief", BRIEF)
        votes(tiny)
        trainer.run_once()
        change = tiny.registry.rollback("policy.brief", reason="a test")
        assert (change.version, change.state) == ("policy.brief-000000", "failed")
        assert audiences.live(tiny.registry, "brief") is None
        votes(tiny)
        trainer.run_once()
        manifest = tiny.registry.manifest("policy.brief-000001")
        assert (manifest.parent, audiences.live(tiny.registry, "brief")) == ("policy-000002", "policy.brief-000001")
        assert tiny.registry.status("policy.brief-000000").state == "failed"
        checked(tiny, trainer)


def test_its_seconds_are_its_own_and_no_cycles(tiny: World) -> None:
    with tiny.trainer() as trainer:
        define(tiny, "brief", BRIEF)
        for _ in range(2):
            votes(tiny)
            trainer.run_once()
        history = tiny.state.read_status("trainer")["history"]
        assert told(tiny)["brief"]["seconds"] > 0
        assert [cycle["outcome"] for cycle in history] == ["promoted", "promoted"]
        for cycle in history:
            assert set(cycle["seconds"]) == {"reward", "publishing", "rollouts", "policy", "gate"}
            assert cycle["gate_share"] == pytest.approx(
                cycle["seconds"]["gate"] / sum(cycle["seconds"].values()), abs=0.05
            )


def test_without_audiences_nothing_is_done_for_them(tiny: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "_improve", pytest.fail)
    with tiny.trainer() as trainer:
        votes(tiny)
        assert trainer.run_once()
        assert (trainer.progress.audiences_left, told(tiny)) == ([], {})
        assert not any(file.startswith("audience.") for file in last(trainer).files)


def test_rolled_back_removed_and_defined_anew_it_goes_on_from_what_serves(tiny: World) -> None:
    with tiny.trainer() as trainer:
        define(tiny, "brief", BRIEF)
        for _ in range(2):
            votes(tiny)
            trainer.run_once()
        tiny.registry.rollback("policy.brief", reason="a test")
        votes(tiny)
        trainer.run_once()
        assert tiny.registry.manifest("policy.brief-000002").parent == "policy.brief-000000"
        audiences.remove(tiny.registry.store, "brief")
        votes(tiny)
        trainer.run_once()
        assert (trainer.progress.audiences, tiny.registry.live("policy.brief")) == ({}, "policy.brief-000002")
        assert not last(trainer).has("audience.brief")
        define(tiny, "brief", WORDY)
        votes(tiny)
        trainer.run_once()
        assert tiny.registry.manifest("policy.brief-000003").parent == "policy.brief-000002"
        assert tiny.registry.manifest("policy.brief-000003").weights == WORDY
        checked(tiny, trainer)


def test_an_adapter_of_another_rank_may_be_promoted_for_one_audience(tiny: World) -> None:
    with tiny.trainer() as trainer:
        define(tiny, "brief", BRIEF)
        votes(tiny)
        trainer.run_once()
        other = tiny.registry.reserve("policy.brief")
        made = Policy.load(Path(tiny.settings.model), tuning="lora", lora=Lora(2, layers=1), seed=1)
        made.write_version(tiny.registry.stage(other))
        tiny.registry.publish(Manifest(version=other, tuning="lora", parent="policy.brief-000000"))
        tiny.registry.promote(other, reason="by hand")
        for version in ("policy.brief-000002", "policy.brief-000003"):
            votes(tiny)
            trainer.run_once()
            assert (tiny.registry.live("policy.brief"), ranks(tiny, version)) == (version, {2})
            assert ranks(tiny, trainer.progress.policy_version) == {16}
            checked(tiny, trainer)
    with tiny.trainer() as successor:
        votes(tiny)
        successor.run_once()
        assert tiny.registry.live("policy.brief") == "policy.brief-000004"
        checked(tiny, successor)


def test_while_learning_is_paused_no_audience_learns_and_a_damaged_record_stops_nobody_else(tiny: World) -> None:
    with tiny.trainer() as trainer:
        define(tiny, "brief", BRIEF)
        trainer.progress.audiences_left = ["brief"]
        votes(tiny)
        learning.pause(tiny.registry.store, "a test")
        assert not trainer.run_once() or told(tiny)["brief"]["why"].startswith("learning is paused")
        learning.resume(tiny.registry.store)
        tiny.registry.store.replace(audiences.KEY, "{", expected=tiny.registry.store.read(audiences.KEY))
        while trainer.run_once():
            pass
        assert tiny.registry.live("policy") == "policy-000001"
        assert tiny.registry.versions("policy.brief") == []
