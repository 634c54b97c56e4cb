"""The loop over real parts in the tiny world: cycles, kills at every durable step, rejections, roll-backs, services
that are away."""

import base64
import json
import math
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from rlhf_online import learning
from rlhf_online.config import dump
from rlhf_online.errors import (
    CheckpointError,
    ConfigError,
    EngineUnavailable,
    LogUnavailable,
    PositionLost,
    RewardUnavailable,
    VersionCorrupt,
)
from rlhf_online.eventlog import folder as files
from rlhf_online.eventlog import gap
from rlhf_online.eventlog.local import LocalLog
from rlhf_online.eventlog.segments import segment_name
from rlhf_online.eventlog.tail import LocalReader
from rlhf_online.events import AnswerRef, Envelope, Erasure, Pairwise, Sampling, Thumb
from rlhf_online.feedback import standing
from rlhf_online.feedback.held_out import is_held_out
from rlhf_online.gate.settings import GateSettings
from rlhf_online.gate.win_rate import WinRateCheck
from rlhf_online.models.policy import Policy
from rlhf_online.models.reward import RewardModel
from rlhf_online.rewards import weights as operator
from rlhf_online.rewards.rules import record
from rlhf_online.rewards.rules.ruleset import NONE, parse
from rlhf_online.simulation.tiny_model import write_tiny_model
from rlhf_online.state import StateDir
from rlhf_online.training import retrier
from rlhf_online.training.checkpoint import Checkpoints
from rlhf_online.training.loop import Trainer
from rlhf_online.training.policy.algorithms import PPO
from rlhf_online.training.policy.settings import PolicyTraining
from rlhf_online.training.publication import Publisher
from rlhf_online.training.retrier import Stopped
from rlhf_online.training.settings import RewardTraining, RolloutSettings
from rlhf_online.versions.manifest import Kind
from rlhf_online.watch.monitors import MONITORS
from rlhf_online.wire import decode
from tests.faults import auditor
from tests.support.crash import Crash
from tests.support.samples import value
from tests.support.trainer_world import World, world
from tests.support.waiting import until

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def tiny(tmp_path: Path) -> Iterator[World]:
    with world(tmp_path) as made:
        yield made


def cycles(trainer: Trainer) -> int:
    """Run until there is nothing to do."""
    count = 0
    while trainer.run_once():
        count += 1
    return count


def audit(world: World, trainer: Trainer) -> None:
    """Each accepted vote is in exactly one place; the models have learned from what the ledger says, once."""
    ledger = world.ledger()
    everything = [digest for digests in ledger.values() for digest in digests]
    assert len(everything) == len(set(everything))
    votes = world.state.read_status("trainer")["votes"]
    assert sum(votes.values()) == len(world.accepted)
    assert {name: len(ledger[name]) for name in ("trained", "held_out")} == {
        name: votes[name] for name in ("trained", "held_out")
    }
    apart = trainer.parts.held_back
    kept = [updater.state()[1] for updater in (trainer.parts.learners.reward, *([apart.updater] if apart else []))]
    learned = [vote["event_id"] for values in kept for vote in values["replay"]]
    assert len(learned) == len(set(learned)) == votes["trained"], "by one reward model or the other"
    assert all(set(learned).isdisjoint(vote["event_id"] for vote in values["held_out"]) for values in kept)
    assert set(learned) <= set(world.accepted)
    for version in world.registry.versions():
        world.registry.verify(version)
    for kind in ("policy", "reward"):
        states = [(world.registry.status(version).state, version) for version in world.registry.versions(kind)]
        assert [version for state, version in states if state == "live"] == [world.registry.live(kind)]
    assert world.registry.live("policy") == trainer.progress.policy_version
    live = trainer.parts.registry.path(trainer.progress.policy_version)
    assert weights(trainer) == weights_in(live)


def weights(trainer: Trainer) -> list[float]:
    return [
        float(p.detach().double().sum()) for _, p in sorted(trainer.parts.learners.policy.policy.parameters().items())
    ]


def weights_in(folder: Path) -> list[float]:
    return [float(tensor.double().sum()) for _, tensor in sorted(load_file(folder / "model.safetensors").items())]


def test_votes_become_a_served_reward_version_and_a_promoted_policy(tiny: World) -> None:
    with tiny.trainer() as trainer:
        tiny.chat(6)
        assert not trainer.run_once()
        assert tiny.registry.versions("reward") == []
        tiny.chat(20)
        before = weights(trainer)
        assert cycles(trainer) == 1
        assert weights(trainer) != before
        assert tiny.registry.live("reward") == "reward-000000"
        assert tiny.registry.live("policy") == "policy-000001"
        manifest = tiny.registry.manifest("policy-000001")
        assert manifest.parent == "policy-000000"
        assert manifest.reward_version == "reward-000000"
        assert manifest.position == {"local": 52}
        assert manifest.probe == trainer.parts.learners.policy.policy.probe([s.token_ids for s in manifest.probe])
        assert set(tiny.registry.status("policy-000001").gate) >= {"win_rate", "kl", "length_ratio"}
        held_out = sum(is_held_out(f"conversation-{n}", 0.2) for n in range(1, 27))
        assert held_out > 0
        status = tiny.state.read_status("trainer")
        assert status["votes"] == {
            "trained": 26 - held_out, "held_out": held_out, "orphaned": 0, "dead_lettered": 0, "pending": 0,
            "withdrawn": 0, "erased": 0,
        }  # fmt: skip
        assert status["cycle"] == 1
        assert [item["outcome"] for item in status["history"]] == ["promoted"]
        assert standing.read(tiny.registry.store).believed > 0, "an operator sees whose votes count how"
        said = tiny.state.read_status("watch")["monitors"]
        assert said.keys() == {*MONITORS}, "each monitor has spoken"
        assert said["length"]["says"].startswith("answers of ")
        audit(tiny, trainer)


def test_votes_on_an_erased_conversation_are_repeated_no_more(tiny: World) -> None:
    with tiny.trainer() as trainer:
        tiny.chat(20)
        assert cycles(trainer) == 1

        def repeated() -> set[str]:
            _, values = trainer.parts.learners.reward.state()
            return {vote["conversation_id"] for vote in (*values["replay"], *values["held_out"])}

        erased = min(repeated())
        erasure = Erasure(conversation_id=erased, person="p", erased_ms=2_000_000)
        tiny.append(Envelope(event_id="erasure", event=erasure))
        tiny.chat(20)
        assert cycles(trainer) == 1
        assert erased not in repeated() and len(repeated()) > 1


def test_the_policy_waits_until_the_reward_model_is_better_than_chance(tmp_path: Path) -> None:
    """Few votes prove nothing: cycles end after the reward model, which is served and says what it is worth."""
    reward = RewardTraining(heads=2, batch=16, epochs=1, cold_epochs=2, held_out=0.2)
    with world(tmp_path, reward=reward) as tiny, tiny.trainer() as trainer:
        tiny.chat(16)
        before = weights(trainer)
        assert cycles(trainer) == 1
        assert tiny.registry.versions("policy") == ["policy-000000"] and weights(trainer) == before
        version = tiny.registry.live("reward")
        assert version == "reward-000000"
        figures = tiny.registry.manifest(version).figures
        assert figures == trainer.progress.figures and figures["accuracy_low"] < 0.5 < figures["accuracy_high"]
        [item] = tiny.state.read_status("trainer")["history"]
        assert item["outcome"] == "cold" and "more votes are needed" in item["why"]
        trainer.progress.figures |= {"accuracy_low": 0.51}
        trainer.improve_policy()
        assert tiny.state.read_status("trainer")["history"][-1]["outcome"] == "promoted"


def test_a_reward_model_may_serve_several_policy_updates(tmp_path: Path) -> None:
    """Each is a version of its own; a restart in between goes on with those that are left."""
    with world(tmp_path, policy_updates=3) as tiny:
        tiny.chat(20)
        with tiny.trainer() as trainer:
            assert trainer.run_once()
            assert (trainer.progress.next_update, trainer.progress.updates_left) == ("policy", 2)
        with tiny.trainer() as trainer:
            tiny.chat(4)  # too few for a cycle of their own
            assert cycles(trainer) == 2
            assert trainer.progress.updates_left == 0
            assert tiny.registry.versions("policy") == [f"policy-00000{number}" for number in range(4)]
            assert tiny.registry.versions("reward") == ["reward-000000"]
            assert tiny.registry.manifest("policy-000003").parent == "policy-000002"
            audit(tiny, trainer)


def test_all_scores_of_a_cycle_are_by_the_weights_that_it_began_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An operator changes them while the policy learns: the cycle keeps its own, after a restart too."""
    reward = RewardTraining(
        objectives=("helpful", "harmless"),
        heads=2,
        batch=16,
        epochs=1,
        cold_epochs=1,
        held_out=0.2,
        policy_accuracy=0.0,
    )
    with world(tmp_path, reward=reward) as tiny:

        def weigh(**changes: float) -> None:
            """As a chat service does that shares nothing but the store with the trainer."""
            operator.change(tiny.registry.store, StateDir(tmp_path / "chat"), changes, reward.objectives)

        weigh(harmless=2.0)
        tiny.chat(20)
        with tiny.trainer() as trainer:
            trainer.read_log()
            trainer.learn_votes()
            weigh(harmless=0.0)
        asked: list[dict[str, float] | None] = []
        with tiny.trainer() as trainer:
            score = trainer.parts.rewards.score

            def noted(pairs: Any, reward_version: str, timeout: float, weights: Any = None, rules: Any = "") -> Any:
                asked.append(weights)
                return score(pairs, reward_version, timeout, weights, rules)

            monkeypatch.setattr(trainer.parts.rewards, "score", noted)
            assert trainer.run_once()
            assert asked and all(weights == {"helpful": 1.0, "harmless": 2.0} for weights in asked)
            assert tiny.registry.manifest("policy-000001").weights == {"helpful": 1.0, "harmless": 2.0}
            tiny.chat(12)
            asked.clear()
            assert cycles(trainer) == 1
            assert asked and all(weights == {"helpful": 1.0, "harmless": 0.0} for weights in asked)
            weigh(helpful=0.0, harmless=1.0)
            tiny.chat(12)
            asked.clear()
            assert cycles(trainer) == 1
            assert not asked, "no vote was about the only thing that counts now: the policy waits"


def test_the_reward_models_trunk_may_begin_as_another_model(tmp_path: Path) -> None:
    other = tmp_path / "other"
    write_tiny_model(other, weights_seed=9)
    reward = RewardTraining(trunk=str(other), heads=2, cold_epochs=1, policy_accuracy=0.0)
    with world(tmp_path, reward=reward) as tiny:
        with tiny.trainer() as trainer:
            begun = trainer.parts.learners.reward.model.decoder.state_dict()["embed_tokens.weight"].clone()
            assert torch.equal(begun, load_file(other / "model.safetensors")["model.embed_tokens.weight"])
            tiny.chat(20)
            assert cycles(trainer) == 1
            assert tiny.registry.live("policy") == "policy-000001", "the reward service scores with it"
        text = (other / "tokenizer.json").read_text()
        (other / "tokenizer.json").write_text(text.replace('"copper"', '"bronze"'))
        with pytest.raises(ConfigError, match=r"reward\.trunk: .* another tokenizer"), tiny.trainer():
            pass


def test_answers_without_a_score_train_nothing(tiny: World, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny.chat(20)
    with tiny.trainer() as trainer:
        score, learned = trainer.parts.rewards.score, []

        def broken(pairs: Any, reward_version: str, timeout: float, weights: Any = None, rules: Any = "") -> Any:
            found = score(pairs, reward_version, timeout, weights, rules)
            return [replace(item, score=math.nan) if index % 4 == 0 else item for index, item in enumerate(found)]

        monkeypatch.setattr(trainer.parts.rewards, "score", broken)
        update = trainer.parts.learners.policy.update

        def noted(*given: Any) -> Any:
            learned.append(report := update(*given))
            return report

        monkeypatch.setattr(trainer.parts.learners.policy, "update", noted)
        assert cycles(trainer) == 1
        [report] = learned
        dropped = report.left_out["score"]
        assert report.rollouts > 0 and dropped == -(-(dropped + report.rollouts) // 4)
        assert trainer.progress.left_out == {"score": dropped}


RULES = """
[propositions.short]
length = { max = 2 }
[rules.terse]
weights = { short = 3.0 }
"""


def test_all_scores_of_a_cycle_are_by_the_rules_that_it_began_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An operator takes them back while the policy learns: the cycle keeps its own, after a restart too."""
    with world(tmp_path) as tiny:
        record.apply(tiny.registry.store, parse(RULES))
        operator.change(tiny.registry.store, tiny.state, {"rule:terse": 2.0}, ("helpful",), ("rule:terse",))
        tiny.chat(20)
        with tiny.trainer() as trainer:
            trainer.read_log()
            trainer.learn_votes()
            record.apply(tiny.registry.store, NONE)
        asked: list[tuple[dict[str, float], str]] = []
        with tiny.trainer() as trainer:
            score = trainer.parts.rewards.score

            def noted(pairs: Any, reward_version: str, timeout: float, weights: Any = None, rules: Any = "") -> Any:
                asked.append((weights, rules))
                return score(pairs, reward_version, timeout, weights, rules)

            monkeypatch.setattr(trainer.parts.rewards, "score", noted)
            assert trainer.run_once()
            by_rules = [each for each in asked if each == ({"helpful": 1.0, "rule:terse": 2.0}, RULES)]
            audited = [each for each in asked if each == ({"helpful": 1.0}, "")]
            assert by_rules and len(by_rules) + len(audited) == len(asked), "the audit asks the reward models alone"
            manifest = tiny.registry.manifest("policy-000001")
            assert manifest.weights == {"helpful": 1.0, "rule:terse": 2.0}
            assert manifest.rules_version == parse(RULES).version
            tiny.chat(12)
            asked.clear()
            assert cycles(trainer) == 1
            assert asked and all(each == ({"helpful": 1.0}, "") for each in asked)


def test_rules_that_are_damaged_are_waited_for(tiny: World) -> None:
    tiny.chat(20)
    stop = threading.Event()
    with tiny.trainer(stop) as trainer:
        assert tiny.registry.store.replace(record.KEY, "{", expected=None)
        thread = threading.Thread(target=trainer.run)
        thread.start()
        try:
            until(
                lambda: tiny.registry.store.place(record.KEY) in tiny.state.read_status("trainer")["waiting_for"],
                60,
                "the trainer to say what it waits for",
            )
            record.apply(tiny.registry.store, parse(RULES))
            until(lambda: tiny.registry.live("policy") == "policy-000001", 60, "a policy")
        finally:
            stop.set()
            thread.join()


def test_weights_that_are_damaged_are_waited_for(tiny: World) -> None:
    tiny.chat(20)
    stop = threading.Event()
    with tiny.trainer(stop) as trainer:
        assert tiny.registry.store.replace(operator.KEY, "{", expected=None)
        thread = threading.Thread(target=trainer.run)
        thread.start()
        try:
            until(
                lambda: tiny.registry.store.place(operator.KEY) in tiny.state.read_status("trainer")["waiting_for"],
                60,
                "the trainer to say what it waits for",
            )
            operator.change(tiny.registry.store, tiny.state, {}, tiny.settings.reward.objectives)
            until(lambda: tiny.registry.live("policy") == "policy-000001", 60, "a policy")
        finally:
            stop.set()
            thread.join()


def test_a_restart_goes_on_where_it_was(tiny: World) -> None:
    with tiny.trainer() as trainer:
        tiny.chat(20)
        assert cycles(trainer) == 1
        state = trainer.parts.learners.reward.state()[1]
        buffer = len(trainer.parts.intake.policy_inputs.buffer)
        progress = trainer.progress.to_json()
    with tiny.trainer() as again:
        assert again.progress.to_json() == progress
        assert again.parts.learners.reward.state()[1] == state
        assert len(again.parts.intake.policy_inputs.buffer) == buffer
        assert not again.run_once()
        tiny.chat(15)
        assert cycles(again) == 1
        assert tiny.registry.live("policy") == "policy-000002"
        audit(tiny, again)


@pytest.mark.parametrize("share", [step / 10 for step in range(10)])
def test_killed_at_a_durable_step_it_trains_exactly_once(
    tiny: World, share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The trainer dies at an fsync somewhere in two cycles; another takes over, and the books are right."""
    real = os.fsync
    thread, steps, fatal = threading.get_ident(), 0, 0

    def fsync(descriptor: int) -> None:
        nonlocal steps
        if threading.get_ident() == thread and counting:
            steps += 1
            if steps == fatal:
                raise Crash
        real(descriptor)

    counting = False
    monkeypatch.setattr(os, "fsync", fsync)
    tiny.chat(20)
    with tiny.trainer() as trainer:
        assert cycles(trainer) == 1
    tiny.chat(16)
    fatal = 1 + int(share * 140)  # a cycle has a few more durable steps than that
    with tiny.trainer() as trainer, pytest.raises(Crash):
        counting = True
        cycles(trainer)
    counting = False
    tiny.chat(3)
    with tiny.trainer() as successor:
        cycles(successor)
        tiny.chat(14)
        cycles(successor)
        audit(tiny, successor)
        assert tiny.state.read_status("trainer")["votes"]["pending"] < 8


@pytest.mark.parametrize(("step", "kind"), [("publish_reward", "reward"), ("publish_policy", "policy")])
def test_killed_between_the_commit_and_the_publication_it_publishes_after_the_restart(
    tiny: World, step: str, kind: Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object, **__: object) -> None:
        raise Crash

    tiny.chat(20)
    with monkeypatch.context() as patch, tiny.trainer() as trainer:
        patch.setattr(Publisher, step, killed)
        with pytest.raises(Crash):
            cycles(trainer)
    judged = trainer.progress.judged
    committed = trainer.progress.reward_version if judged is None else judged.version
    assert committed.startswith(kind)
    assert committed not in tiny.registry.versions(kind)
    with tiny.trainer() as successor:
        cycles(successor)
        assert tiny.registry.live(kind) == committed
        audit(tiny, successor)


def test_killed_by_the_system_at_random_moments_it_trains_exactly_once(tiny: World, tmp_path: Path) -> None:
    """SIGKILL to real processes; what they left is taken over each time."""
    rng = random.Random(4)
    config = tmp_path / "trainer.toml"
    dump(tiny.settings.model_copy(update={"reward_address": tiny.service.address}), config)
    tiny.chat(40)
    for _ in range(2):
        history = tiny.state.read_status("trainer").get("updated_ms", 0)
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.trainer_process", str(config)], cwd=ROOT, stdin=subprocess.PIPE
        )
        try:
            until(lambda h=history: tiny.state.read_status("trainer").get("updated_ms", 0) > h, 60, "a sign of life")
            threading.Event().wait(rng.uniform(0, 0.6))
        finally:
            process.send_signal(signal.SIGKILL)
            process.communicate()
        tiny.chat(12)
    with tiny.trainer() as successor:
        cycles(successor)
        audit(tiny, successor)
    assert auditor.audit(tiny.state.root, tiny.accepted).problems == []


def test_answers_that_may_not_train_the_policy_are_shown_though_nothing_is_learned_from_them(tiny: World) -> None:
    with tiny.trainer() as trainer:
        rollouts = tiny.engine.sample([(1, 5, 3)], 4, 4, 1.0)
        for number in range(30):
            made = tiny.completion(f"name fruit {number}", rollouts)
            greedy = replace(made, sampling=Sampling(temperature=0.0))
            tiny.append(Envelope(event_id=made.completion_id, event=greedy))
            best, worst = (AnswerRef(completion_id=made.completion_id, index=index) for index in (0, 1))
            tiny.vote(made, Pairwise(chosen=best, rejected=worst))
        cycles(trainer)
        assert trainer.progress.policy_version == "policy-000000"
        gauge = trainer.parts.reporter.metrics.policy.left_out
        assert value(gauge.labels("greedy")) == 30 * len(rollouts)


def test_feedback_that_leads_nowhere_is_counted(tiny: World) -> None:
    with tiny.trainer() as trainer:
        tiny.chat(20)
        tiny.orphan(created_ms=1_000_100)
        completion = tiny.completion("name one fruit", tiny.engine.sample([(1, 5, 3)], 1, 4, 1.0))
        tiny.log.append(b"\xff\xff no envelope").result(10)
        tiny.append(Envelope(event_id=completion.completion_id, event=completion))
        tiny.vote(completion, Thumb(answer=AnswerRef(completion_id=completion.completion_id, index=5), up=True))
        cycles(trainer)
        votes = tiny.state.read_status("trainer")["votes"]
        assert (votes["pending"], votes["orphaned"], votes["dead_lettered"]) == (1, 0, 2)
        gauge = trainer.parts.reporter.metrics.intake.dead_letters
        assert [value(gauge.labels(reason)) for reason in ("undecodable", "missing")] == [1, 1]
        rollouts = tiny.engine.sample([(1, 5, 3)], 1, 4, 1.0)
        for _ in range(60):  # the log's time is what most of its last events say
            later = tiny.completion("name one fruit", rollouts, finished_ms=9_000_000)
            tiny.append(Envelope(event_id=later.completion_id, event=later))
        trainer.run_once()
        votes = tiny.state.read_status("trainer")["votes"]
        assert (votes["pending"], votes["orphaned"]) == (0, 1)
        dead = _lines(tiny.state.log / "dead-letters.jsonl")
        assert [line["reason"] for line in dead][1] == f"completion {completion.completion_id} has no answer 5"
        assert base64.b64decode(dead[0]["payload"]) == b"\xff\xff no envelope"
        assert (dead[0]["partition"], dead[0]["offset"]) == ("local", 41)
        assert not (tiny.state.log / "orphans.jsonl").exists(), "it is written when that is committed"
        tiny.chat(12)
        assert cycles(trainer) == 1
        [orphan] = _lines(tiny.state.log / "orphans.jsonl")
        assert orphan["reason"] == "its answer did not come in time"
        assert decode(base64.b64decode(orphan["payload"])).event_id == orphan["event_id"] == "vote-20"


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_same_vote_sent_again_counts_once(tiny: World) -> None:
    with tiny.trainer() as trainer:
        tiny.chat(20)
        assert cycles(trainer) == 1
        trained = trainer.parts.ledger.counts()["trained"]
        reader = LocalReader(tiny.state.log)
        for record in reader.read({}, 1000)[0]:
            tiny.log.append(record.payload).result(10)
        reader.close()
        assert not trainer.run_once()
        assert trainer.parts.ledger.counts()["trained"] == trained
        assert trainer.parts.intake.pending == 0


def test_a_rejected_candidate_says_why_and_is_taken_back(tmp_path: Path) -> None:
    gate = GateSettings(samples=16, win_rate=WinRateCheck(min=1.0))
    with world(tmp_path, gate=gate) as tiny, tiny.trainer() as trainer:
        tiny.chat(20)
        before = weights(trainer)
        assert cycles(trainer) == 1
        status = tiny.registry.status("policy-000001")
        assert status.state == "rejected"
        assert "win rate over the live version" in status.reason
        assert tiny.registry.live("policy") == "policy-000000"
        assert weights(trainer) == before
        assert weights_in(tiny.registry.path("policy-000001")) != before
        assert tiny.state.read_status("trainer")["history"][-1]["outcome"] == "rejected"
        audit(tiny, trainer)


def test_an_update_that_moved_too_far_is_undone_and_gives_no_version(tmp_path: Path) -> None:
    policy = PolicyTraining(epochs=1, minibatches=2, max_step_kl=1e-9)
    with world(tmp_path, policy=policy) as tiny, tiny.trainer() as trainer:
        tiny.chat(20)
        before = weights(trainer)
        assert cycles(trainer) == 1
        assert tiny.registry.versions("policy") == ["policy-000000"]
        assert weights(trainer) == before
        item = tiny.state.read_status("trainer")["history"][-1]
        assert item["outcome"] == "undone"
        assert "nats an answer" in item["why"]


@pytest.mark.parametrize("algorithm", ["kto", "online-dpo"])
def test_an_update_with_nothing_to_learn_from_is_skipped_and_counted(tmp_path: Path, algorithm: str) -> None:
    """No thumbs for one; for the other answers that are worth the same, since nobody can score them."""
    policy = PolicyTraining.model_validate({"algorithm": algorithm})
    with world(tmp_path, policy=policy) as tiny, tiny.trainer() as trainer:
        if algorithm == "online-dpo":
            trainer.parts.experience.pessimism = float("nan")
        before = weights(trainer)
        for number in range(2):
            tiny.chat(20)
            assert cycles(trainer) == 1
            item = tiny.state.read_status("trainer")["history"][-1]
            assert item["outcome"] == "skipped" and "no answer that can be learned from" in item["why"]
            assert weights(trainer) == before and tiny.registry.versions("policy") == ["policy-000000"]
            left_out = trainer.progress.left_out.get("score", 0)
            assert left_out == (0 if algorithm == "kto" else 32 * (number + 1))
            gauge = trainer.parts.reporter.metrics.policy.left_out
            assert value(gauge.labels("score")) == left_out and value(gauge.labels("stale")) == 0
        audit(tiny, trainer)
    with tiny.trainer() as again:
        assert again.progress.left_out == trainer.progress.left_out


@pytest.mark.parametrize("algorithm", ["grpo", "kto"])
def test_thumbs_and_groups_train_the_policy_too(tmp_path: Path, algorithm: str) -> None:
    policy = PolicyTraining.model_validate({"algorithm": algorithm, "max_step_kl": 50.0, "ema": 0.5})
    with world(tmp_path, policy=policy) as tiny, tiny.trainer() as trainer:
        tiny.chat(12)
        for number in range(8):
            [rollout] = tiny.engine.sample([(1, 14, 15 + number, 3)], 1, 8, 1.0)
            completion = tiny.completion("name one fruit", [rollout])
            tiny.append(Envelope(event_id=completion.completion_id, event=completion))
            answer = AnswerRef(completion_id=completion.completion_id, index=0)
            tiny.vote(completion, Thumb(answer=answer, up=number % 2 == 0))
        assert cycles(trainer) == 1
        item = tiny.state.read_status("trainer")["history"][-1]
        assert item["outcome"] == "promoted" and item["algorithm"] == algorithm
        assert item["rollouts"] > 30 if algorithm == "grpo" else 0 < item["rollouts"] <= 8
        live = tiny.registry.path("policy-000001")
        assert weights(trainer) != weights_in(live), "what serves is the average"
        with trainer.parts.learners.policy.published():
            assert weights(trainer) == weights_in(live)


def test_paused_it_takes_votes_in_and_learns_nothing_over_restarts_until_it_is_resumed(tiny: World) -> None:
    learning.pause(tiny.registry.store, "odd votes")
    for _ in range(2):
        with tiny.trainer() as trainer:
            tiny.chat(10)
            before = weights(trainer)
            assert cycles(trainer) == 0
            assert weights(trainer) == before and tiny.registry.versions() == ["policy-000000"]
            status = tiny.state.read_status("trainer")
            assert status["paused"] and status["votes"]["pending"] + status["votes"]["held_out"] == len(tiny.accepted)
    learning.resume(tiny.registry.store)
    with tiny.trainer() as trainer:
        assert cycles(trainer) == 1
        assert tiny.registry.live("policy") == "policy-000001"
        assert not tiny.state.read_status("trainer")["paused"]
        audit(tiny, trainer)


@pytest.mark.parametrize("phase", ["publishing", "gate"])
def test_paused_in_the_midst_of_a_cycle_no_policy_goes_live_and_none_is_kept(
    tiny: World, phase: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the reward version's publication, and after the gate: what votes taught the reward model stays."""
    with tiny.trainer() as trainer:
        tiny.chat(26)
        began = trainer.parts.reporter.phase

        @contextmanager
        def pausing(name: str) -> Iterator[None]:
            with began(name):
                yield
            if name == phase:
                learning.pause(tiny.registry.store)

        monkeypatch.setattr(trainer.parts.reporter, "phase", pausing)
        before = weights(trainer)
        assert cycles(trainer) == 1
        assert weights(trainer) == before and tiny.registry.live("policy") == "policy-000000"
        assert tiny.registry.live("reward") == "reward-000000"
        assert [item["outcome"] for item in tiny.state.read_status("trainer")["history"]] == ["paused"]
        audit(tiny, trainer)
        tiny.chat(10)
        learning.resume(tiny.registry.store)
        monkeypatch.setattr(trainer.parts.reporter, "phase", began)
        assert cycles(trainer) == 1 and trainer.progress.policy_version != "policy-000000"
        audit(tiny, trainer)


def test_after_a_roll_back_it_learns_on_from_the_live_version(tiny: World) -> None:
    with tiny.trainer() as trainer:
        tiny.chat(20)
        assert cycles(trainer) == 1
        tiny.registry.rollback("policy", reason="an operator said so")
        tiny.chat(16)
        assert cycles(trainer) == 1
        assert tiny.registry.manifest("policy-000002").parent == "policy-000000"
        assert tiny.registry.live("policy") == "policy-000002"
        audit(tiny, trainer)


def test_killed_once_it_has_followed_a_roll_back_it_begins_with_the_live_version(
    tiny: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it took up is in a checkpoint before anything is learned from it."""

    def killed(*_: object) -> bool:
        raise Crash

    with monkeypatch.context() as patch, tiny.trainer() as trainer:
        tiny.chat(20)
        assert cycles(trainer) == 1
        tiny.registry.rollback("policy", reason="an operator said so")
        tiny.chat(16)
        patch.setattr(trainer.parts.experience, "wait_until_served", killed)
        with pytest.raises(Crash):
            cycles(trainer)
    with tiny.trainer() as successor:
        assert successor.progress.policy_version == "policy-000000"
        assert weights(successor) == weights_in(tiny.registry.path("policy-000000"))
        assert cycles(successor) == 1
        audit(tiny, successor)


def test_a_refreshed_reference_begins_a_new_line(tmp_path: Path) -> None:
    ppo = PPO(kl_target=1.0)
    policy = PolicyTraining(algorithm=ppo, epochs=1, minibatches=2, max_step_kl=50.0)
    with world(tmp_path, policy=policy) as tiny:
        with tiny.trainer() as trainer:
            tiny.chat(20)
            assert cycles(trainer) == 1
            assert tiny.registry.manifest("policy-000001").reference == "policy-000000"
            moved = trainer.parts.learners.policy.algorithm_state.kl_coef
            assert moved is not None and moved != ppo.kl_coef
            tiny.registry.refresh_reference("policy-000001")
            tiny.chat(16)
            learners = trainer.parts.learners
            assert cycles(trainer) == 1
            assert tiny.registry.manifest("policy-000002").reference == "policy-000001"
            item = tiny.state.read_status("trainer")["history"][-1]
            assert item["kl_before"] == pytest.approx(0, abs=1e-6) and item["kl_coef"] == ppo.kl_coef
            pairs = [((1, 20, 3), (30, 2))]
            live = Policy.load(Path(tiny.settings.model), tuning="full", version=tiny.registry.path("policy-000001"))
            assert learners.policy.policy.logprobs(pairs, reference=True) == live.logprobs(pairs)
            assert learners.policy.updates == 2
            audit(tiny, trainer)
        with tiny.trainer() as again:
            assert again.progress.reference == "policy-000001"
            learned = again.parts.learners.policy.policy
            assert learned.logprobs(pairs, reference=True) == live.logprobs(pairs)


def test_a_checkpoint_of_another_line_is_refused(tiny: World) -> None:
    with tiny.trainer() as trainer:
        tiny.chat(20)
        assert cycles(trainer) == 1
    tiny.registry.refresh_reference("policy-000001")
    with tiny.trainer() as trainer:
        tiny.chat(16)
        assert cycles(trainer) == 1
    (tiny.state.versions / "references").unlink()
    with (
        pytest.raises(VersionCorrupt, match=r"counts from policy-000001, and here it was only ever .* policy-000000"),
        tiny.trainer(),
    ):
        pass


def test_a_reward_version_that_the_service_refused_is_published_anew(
    tiny: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = RewardModel.save

    def save(model: RewardModel, folder: Path) -> None:
        real(model, folder)
        if "reward-000000" in folder.name:
            (folder / "reward.json").write_text("{")

    monkeypatch.setattr(RewardModel, "save", save)
    with tiny.trainer() as trainer:
        tiny.chat(20)
        assert cycles(trainer) == 1
        assert tiny.registry.status("reward-000000").state == "failed"
        assert tiny.registry.live("reward") == "reward-000001"
        assert tiny.registry.manifest("policy-000001").reward_version == "reward-000001"
        audit(tiny, trainer)


class Away:
    """Wraps a service; the first calls of each method fail as if it were down."""

    def __init__(self, real: Any, error: Exception, times: int) -> None:
        self._real, self._error, self._times = real, error, times
        self._left: dict[str, int] = {}

    def __getattr__(self, name: str) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            self._left[name] = self._left.get(name, self._times) - 1
            if self._left[name] >= 0:
                raise self._error
            return getattr(self._real, name)(*args, **kwargs)

        return call


def test_services_that_are_away_are_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retrier, "FIRST_WAIT_S", 0.001)
    more = RolloutSettings(per_cycle=96, answers_per_prompt=4, max_tokens=8)
    with world(tmp_path, rollout=more) as tiny, tiny.trainer() as trainer:
        parts = trainer.parts
        experience = parts.experience
        experience.sampler = Away(experience.sampler, EngineUnavailable("loading"), 2)  # pyright: ignore
        rewards = Away(parts.rewards, RewardUnavailable("restarting"), 2)
        experience.sources = [rewards]  # pyright: ignore
        trainer.parts = replace(parts, rewards=rewards, checkpoints=FullDisk(parts.checkpoints, 3))  # pyright: ignore
        waits: list[str] = []
        parts.retrier.waiting = lambda doing, error: waits.append(f"{doing}: {error}")
        tiny.chat(20)
        assert cycles(trainer) == 1
        assert {wait.split(":")[0] for wait in waits} == {
            "writing a checkpoint", "waiting for the reward service", "asking which version serves",
            "sampling fresh answers", "scoring answers",
        }  # fmt: skip
        assert sum("disk full" in wait for wait in waits) == 3
        assert tiny.registry.live("policy") == "policy-000001"
        audit(tiny, trainer)


def test_a_log_that_is_away_at_the_start_is_waited_for(tiny: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retrier, "FIRST_WAIT_S", 0.001)
    identity, calls = LocalReader.identity, 0

    def away(reader: LocalReader) -> str:
        nonlocal calls
        calls += 1
        if calls <= 2:
            raise LogUnavailable("no broker answers")
        return identity(reader)

    monkeypatch.setattr(LocalReader, "identity", away)
    tiny.chat(20)
    with tiny.trainer() as trainer:
        assert calls == 3
        assert cycles(trainer) == 1
        audit(tiny, trainer)


class FullDisk:
    """Checkpoints on a disk that is full for the first saves."""

    def __init__(self, real: Checkpoints, times: int) -> None:
        self._real, self._left = real, times

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def save(self, *args: Any) -> Any:
        self._left -= 1
        if self._left >= 0:
            raise CheckpointError("disk full")
        return self._real.save(*args)


def test_a_stop_while_waiting_ends_it_and_loses_nothing(tiny: World) -> None:
    stop = threading.Event()
    with tiny.trainer(stop) as trainer:
        tiny.chat(20)
        experience = trainer.parts.experience

        class Never:
            def serving(self, prompt: tuple[int, ...]) -> str:
                stop.set()
                raise EngineUnavailable("loading")

        experience.sampler = Never()  # pyright: ignore
        trainer.run()  # ends by itself
        with pytest.raises(Stopped):
            trainer.parts.retrier.check()
    with tiny.trainer() as again:
        assert again.progress.next_update == "policy"
        assert again.run_once()
        assert tiny.registry.live("policy") == "policy-000001"
        audit(tiny, again)


def test_another_log_is_refused_until_an_operator_accepts_what_is_missing(tiny: World) -> None:
    with tiny.trainer() as trainer:
        tiny.chat(20)
        cycles(trainer)
    tiny.log.close()
    shutil.rmtree(tiny.state.log)
    with pytest.raises(PositionLost, match=r"belongs to the log .* gap accept"), tiny.trainer():
        pass
    gap.accept(tiny.state.checkpoints, gap.standing(tiny.state.checkpoints))
    tiny.log = LocalLog(tiny.state.log)
    with tiny.trainer() as trainer:
        assert trainer.progress.position == {"local": 0}
        assert trainer.progress.cycle == 1, "what was learned stays"
        tiny.chat(20)
        assert cycles(trainer) == 1
    with tiny.trainer() as trainer:
        assert trainer.progress.cycle == 2, "the checkpoint belongs to the new log"
    tiny.log.close()
    shutil.rmtree(tiny.state.log)
    with pytest.raises(PositionLost, match="gap accept"), tiny.trainer():
        pytest.fail("one gap was accepted, not every later one")


def test_records_that_were_removed_too_early_stop_the_trainer(tiny: World) -> None:
    with tiny.trainer() as trainer:
        tiny.chat(20)
        cycles(trainer)
    tiny.log.close()
    tiny.log = LocalLog(tiny.state.log, segment_bytes=2000)
    tiny.chat(20)
    for first in files.segments(tiny.state.log)[:2]:
        (tiny.state.log / segment_name(first)).unlink()
    with tiny.trainer() as trainer, pytest.raises(PositionLost, match="gap accept"):
        trainer.run_once()
    gap.accept(tiny.state.checkpoints, gap.standing(tiny.state.checkpoints))
    with tiny.trainer() as trainer:
        assert trainer.progress.position["local"] == files.segments(tiny.state.log)[0]
        assert not trainer.run_once() or trainer.progress.cycle == 2


def test_a_gap_further_on_is_stood_at_and_accepted_there(tiny: World) -> None:
    tiny.log.close()
    tiny.log = LocalLog(tiny.state.log, segment_bytes=2000)
    with tiny.trainer() as trainer:
        tiny.chat(20)
        assert cycles(trainer) == 1
        first = len(files.segments(tiny.state.log))
        tiny.chat(20)
        begin, end = files.segments(tiny.state.log)[first + 1 : first + 3]
        (tiny.state.log / segment_name(begin)).unlink()
    for _ in range(2):
        with tiny.trainer() as trainer, pytest.raises(PositionLost, match=f"records {begin} to {end - 1} are missing"):
            trainer.run_once()
        assert gap.standing(tiny.state.checkpoints).position == {"local": begin}
    gap.accept(tiny.state.checkpoints, gap.standing(tiny.state.checkpoints))
    with tiny.trainer() as trainer:
        assert trainer.progress.position == {"local": end}
        assert cycles(trainer) == 1
    report = auditor.audit(tiny.state.root, tiny.accepted)
    assert report.twice == 0
    assert 0 < len(report.lost) < 20


def test_the_log_is_told_what_no_checkpoint_needs(tiny: World) -> None:
    with tiny.trainer() as trainer:
        assert files.first_needed(tiny.state.log) == 0, "from the beginning on, nothing may go"
        for _ in range(3):
            tiny.chat(20)
            assert cycles(trainer) == 1
        oldest = trainer.parts.checkpoints.position()["local"]
        assert 0 < oldest <= trainer.progress.position["local"]
        assert files.first_needed(tiny.state.log) == oldest


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_bits_that_flip_in_what_all_checkpoints_share_are_mended_and_nothing_is_trained_twice(
    tiny: World, share: float
) -> None:
    with tiny.trainer() as trainer:
        tiny.chat(20)
        assert cycles(trainer) == 1
        progress = trainer.progress.to_json()
    folder = tiny.state.checkpoints
    newest = max(path for path in folder.iterdir() if path.name.isdigit())
    for path in [*folder.glob("ledger/*.ids"), *folder.glob("answers/*.bin"), *newest.glob("*.safetensors")]:
        data = bytearray(path.read_bytes())
        data[int(share * len(data))] ^= 1
        path.write_bytes(data)
    with tiny.trainer() as trainer:
        assert trainer.progress.to_json() == progress
        tiny.chat(15)
        assert cycles(trainer) == 1
        audit(tiny, trainer)


def test_a_damaged_checkpoint_falls_back_to_the_one_before(tiny: World) -> None:
    with tiny.trainer() as trainer:
        tiny.chat(20)
        assert cycles(trainer) == 1
    newest = max(path for path in tiny.state.checkpoints.iterdir() if path.name.isdigit())
    data = bytearray((newest / "policy.safetensors").read_bytes())
    data[-5] ^= 1
    (newest / "policy.safetensors").write_bytes(data)
    (newest / "policy.safetensors.parity").unlink()
    with tiny.trainer() as trainer:
        assert trainer.progress.next_update == "policy"  # as after the first commit of the cycle
        assert trainer.run_once()
        assert tiny.registry.manifest("policy-000002").parent == "policy-000001"  # the live one is followed
        audit(tiny, trainer)
