"""A version that passed the gate before people, through the real trainer: promoted, held, taken back; kills between."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rlhf_online.canary import record
from rlhf_online.canary.decision import Decision
from rlhf_online.canary.settings import CanarySettings
from rlhf_online.state import StateDir
from rlhf_online.training import canary
from rlhf_online.training.loop import Trainer
from rlhf_online.versions.manifest import Manifest
from rlhf_online.versions.registry import Registry
from tests.support.canary import CANDIDATE, LIVE, Audience
from tests.support.crash import Crash, Kill, When
from tests.support.samples import value
from tests.support.trainer_world import World, world

SETTINGS = CanarySettings(steps=(0.1, 0.5), look=2, min_answers=4, max_people=30)


@pytest.fixture
def tiny(tmp_path: Path) -> Iterator[World]:
    with world(tmp_path, canary=SETTINGS) as made:
        yield made


def cycles(trainer: Trainer) -> list[str]:
    """Run until there is nothing to do; how the cycles ended."""
    number = 0
    while trainer.run_once():
        number += 1
    history = told(trainer)["history"]
    return [cycle["outcome"] for cycle in history[len(history) - number :]]


def told(trainer: Trainer) -> dict[str, Any]:
    """What the trainer tells of itself."""
    return StateDir(trainer.parts.settings.state_dir).read_status("trainer")


def begun(world: World, trainer: Trainer, *, chat: bool = True) -> Audience:
    """A canary after the first votes."""
    if chat:
        world.chat(24)
    assert cycles(trainer) == ["canary"]
    assert world.registry.status(CANDIDATE).state == "canary"
    assert world.registry.live("policy") == LIVE
    return Audience(world)


def canary_of(world: World) -> tuple[str, float]:
    """The canary and its share; none is "" and 0."""
    found = record.under_way(world.registry)
    return ("", 0.0) if found is None else (found.version, found.share)


def test_a_version_is_promoted_once_it_was_exposed_and_people_prefer_it_and_the_policy_learns_on(tiny: World) -> None:
    with tiny.trainer() as trainer:
        people = begun(tiny, trainer)
        assert canary_of(tiny) == (CANDIDATE, 0.1)
        people.compares(4, better=CANDIDATE)
        assert cycles(trainer) == []
        assert canary_of(tiny) == (CANDIDATE, 0.5)
        assert told(trainer)["waiting_for"].startswith("the canary: ")
        assert told(trainer)["canary"]["people"] == 4
        metrics = trainer.parts.reporter.metrics.canary
        assert (value(metrics.people), value(metrics.share), value(metrics.needed)) == (4, 0.5, 20)
        assert value(metrics.evidence.labels("better")) > 1 > value(metrics.evidence.labels("worse"))
        assert value(metrics.version.labels(CANDIDATE, LIVE)) == 1
        people.compares(3, better=CANDIDATE)
        trainer.read_log()
        assert canary_of(tiny) == (CANDIDATE, 0.5), "six people of one mind are not enough"
        people.compares(5, better=CANDIDATE)
        trainer.read_log()
        assert tiny.registry.live("policy") == CANDIDATE
        assert tiny.registry.status(CANDIDATE).reason == "people prefer it: 12 people, evidence 245 of 20"
        assert tiny.registry.status(CANDIDATE).by == "trainer"
        assert tiny.registry.status(CANDIDATE).gate["samples"]
        assert canary_of(tiny) == ("", 0.0)
        assert told(trainer)["canary"] is None
        decisions = [value(metrics.decisions.labels(action)) for action in ("advance", "promote", "take_back")]
        assert (decisions, value(metrics.share), value(metrics.people)) == ([1, 1, 0], 0, 0)
        cycles(trainer)  # the next version learns from the votes that came meanwhile
        assert tiny.registry.manifest("policy-000002").parent == CANDIDATE


def test_one_that_people_like_less_is_taken_back_and_the_policy_too(tiny: World) -> None:
    with tiny.trainer() as trainer:
        people = begun(tiny, trainer)
        people.compares(12, better=LIVE)
        trainer.read_log()
        status = tiny.registry.status(CANDIDATE)
        assert (status.state, tiny.registry.live("policy")) == ("rejected", LIVE)
        assert status.reason == f"people prefer {LIVE} (12 people)"
        assert status.gate["samples"]
        assert canary_of(tiny) == ("", 0.0)
        cycles(trainer)
        assert tiny.registry.manifest("policy-000002").parent == LIVE


def test_blind_votes_count_and_thumbs_and_what_people_dislike_is_taken_back_by_its_guardrail(tiny: World) -> None:
    with tiny.trainer() as trainer:
        people = begun(tiny, trainer)
        people.compares(12, better=CANDIDATE, blind=False)
        trainer.read_log()
        assert told(trainer)["canary"]["people"] == 0, "they could know who wrote what"
        people.rates(14, CANDIDATE, up=False)
        trainer.read_log()
        assert tiny.registry.status(CANDIDATE).reason == "thumbs_down: 100.0% of its answers, 60.0% are allowed"


@pytest.mark.parametrize(
    "by", [lambda r: r.promote(CANDIDATE, reason="by hand"), lambda r: r.mark(CANDIDATE, "failed", reason="the engine")]
)
def test_an_operator_or_an_engine_is_quicker(tiny: World, by: Callable[[Registry], object]) -> None:
    with tiny.trainer() as trainer:
        people = begun(tiny, trainer)
        by(tiny.registry)
        reason = tiny.registry.status(CANDIDATE).reason
        people.compares(12, better=LIVE)
        trainer.read_log()
        assert tiny.registry.status(CANDIDATE).reason == reason
        assert (canary_of(tiny), told(trainer)["canary"]) == (("", 0.0), None)
        cycles(trainer)
        assert tiny.registry.manifest("policy-000002").parent == tiny.registry.live("policy")


def test_one_whose_live_version_was_replaced_is_no_canary_for_good(tiny: World) -> None:
    with tiny.trainer() as trainer:
        begun(tiny, trainer)
        other = tiny.registry.reserve("policy")
        tiny.registry.stage(other)
        tiny.registry.publish(Manifest(version=other, tuning="full", parent=LIVE))
        tiny.registry.promote(other, reason="by hand")
        trainer.read_log()
        status = tiny.registry.status(CANDIDATE)
        assert (status.state, status.reason.partition(":")[0]) == ("rejected", "it is the canary no more")


def test_whoever_promotes_another_version_while_the_store_keeps_the_trainer_waiting_is_not_overruled(
    tiny: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tiny.trainer() as trainer:
        people = begun(tiny, trainer)
        people.compares(4, better=CANDIDATE)
        trainer.read_log()
        other = tiny.registry.reserve("policy")
        tiny.registry.stage(other)
        tiny.registry.publish(Manifest(version=other, tuning="full"))
        decide = canary.decide

        def late(*args: Any) -> Decision:
            decision = decide(*args)
            if decision.action == "promote":
                tiny.registry.promote(other, reason="by hand")
            return decision

        monkeypatch.setattr(canary, "decide", late)
        people.compares(8, better=CANDIDATE)
        trainer.read_log()
        assert (tiny.registry.live("policy"), tiny.registry.status(other).reason) == (other, "by hand")
        assert (canary_of(tiny), told(trainer)["canary"]) == (("", 0.0), None)


KILLS = [
    (Registry, "mark", "after"),
    (record, "begin", "after"),
    (record, "advance", "after"),
    (Registry, "promote", "before"),
    (Registry, "promote", "after"),
]


@pytest.mark.parametrize(("owner", "name", "when"), KILLS, ids=[f"{when} {name}" for _, name, when in KILLS])
def test_killed_anywhere_another_trainer_comes_to_the_same_end(
    tiny: World, owner: Any, name: str, when: When, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The votes are all in the log; the trainer dies beside one change of the store, and a successor goes on."""
    kill = Kill(when, armed=name in ("mark", "begin"))
    tiny.chat(24)
    with monkeypatch.context() as patch, tiny.trainer() as trainer:
        kill.at(owner, name, patch)
        if kill.armed:
            with pytest.raises(Crash):
                cycles(trainer)
        else:
            people = begun(tiny, trainer, chat=False)
            kill.armed = True
            people.compares(4, better=CANDIDATE)
            with pytest.raises(Crash):
                trainer.read_log()
                people.compares(8, better=CANDIDATE)
                trainer.read_log()
    with tiny.trainer() as successor:
        successor.read_log()
        for _ in range(2):
            Audience(tiny).compares(6, better=CANDIDATE)
            successor.read_log()
        assert tiny.registry.live("policy") == CANDIDATE
        assert tiny.registry.status(CANDIDATE).reason.startswith("people prefer it")
        assert tiny.registry.status(LIVE).state == "retired"


def test_while_it_is_under_way_the_reward_model_learns_the_policy_waits_and_a_restart_counts_nothing_twice(
    tiny: World,
) -> None:
    with tiny.trainer() as trainer:
        people = begun(tiny, trainer)
        tiny.chat(24)
        assert cycles(trainer) == ["waiting"]
        assert tiny.registry.live("reward") == "reward-000001"
        assert tiny.registry.versions("policy") == [LIVE, CANDIDATE]
        assert canary_of(tiny) == (CANDIDATE, 0.1), "nobody has voted on the canary: others' votes move nothing"
        people.compares(3, better=CANDIDATE)
        trainer.read_log()
        tally = trainer.parts.intake.canaries["policy"].to_json()
    with tiny.trainer() as successor:
        successor.read_log()
        assert successor.parts.intake.canaries["policy"].to_json() == tally
        assert tally["votes"] == 3
        assert canary.waits_for(successor.parts)
