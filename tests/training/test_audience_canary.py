"""An audience's version that passed the gate before a share of its people, through the real trainer; kills between."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rlhf_online.canary import record
from rlhf_online.canary.settings import CanarySettings
from rlhf_online.rewards import audiences
from rlhf_online.training.loop import Trainer
from rlhf_online.versions.registry import Registry
from tests.support.canary import Audience
from tests.support.crash import Crash, Kill, When
from tests.support.trainer_world import World, world
from tests.training.test_audiences import BRIEF, REWARD, WORDY, define, told, votes

SETTINGS = CanarySettings(steps=(0.1, 0.5), look=2, min_answers=4, max_people=30)
KIND, LIVE, CANDIDATE = "policy.brief", "policy.brief-000000", "policy.brief-000001"
EVERYBODYS = "policy-000001"


@pytest.fixture
def tiny(tmp_path: Path) -> Iterator[World]:
    with world(tmp_path, tuning="lora", reward=REWARD, canary=SETTINGS) as made:
        yield made


def begun(world: World, trainer: Trainer) -> Audience:
    """The audience's second version is its canary; everybody's first one is everybody's. Who votes on the former."""
    define(world, "brief", BRIEF)
    for _ in range(2):
        votes(world)
        assert trainer.run_once()
    return Audience(world, CANDIDATE, LIVE)


def canary_of(world: World, kind: str = KIND) -> tuple[str, float]:
    """The canary and its share; none is "" and 0."""
    found = record.under_way(world.registry, kind)
    return ("", 0.0) if found is None else (found.version, found.share)


def counted(world: World) -> dict[str, Any]:
    return world.state.read_status("trainer")["audience_canaries"]


def test_its_first_version_is_live_at_once_and_the_next_one_a_canary_beside_everybodys(tiny: World) -> None:
    with tiny.trainer() as trainer:
        define(tiny, "brief", BRIEF)
        votes(tiny)
        assert trainer.run_once()
        assert tiny.registry.live(KIND) == LIVE, "nothing of its own answered before"
        votes(tiny)
        assert trainer.run_once()
        assert (tiny.registry.live(KIND), tiny.registry.status(CANDIDATE).state) == (LIVE, "canary")
        assert (canary_of(tiny), canary_of(tiny, "policy")) == ((CANDIDATE, 0.1), (EVERYBODYS, 0.1))
        assert (told(tiny)["brief"]["version"], told(tiny)["brief"]["state"]) == (CANDIDATE, "canary")
        assert tiny.registry.status(CANDIDATE).gate["samples"]


def test_it_is_promoted_once_its_own_people_prefer_it_and_the_audience_learns_on_from_it(tiny: World) -> None:
    with tiny.trainer() as trainer:
        people = begun(tiny, trainer)
        people.compares(4, better=CANDIDATE)
        trainer.read_log()
        assert (canary_of(tiny), canary_of(tiny, "policy")) == ((CANDIDATE, 0.5), (EVERYBODYS, 0.1))
        assert counted(tiny)[KIND]["people"] == 4
        Audience(tiny).compares(8, better=EVERYBODYS)
        trainer.read_log()
        assert counted(tiny)[KIND]["people"] == 4, "everybody's votes are not its people's"
        people.compares(8, better=CANDIDATE)
        trainer.read_log()
        assert tiny.registry.live(KIND) == CANDIDATE
        assert tiny.registry.status(CANDIDATE).reason == "people prefer it: 12 people, evidence 245 of 20"
        assert (counted(tiny), tiny.registry.live("policy")) == ({}, "policy-000000")
        assert trainer.parts.intake.canaries["policy"].people.to_json()["pairs"]["outcomes"] == [(1.0, 8)]
        votes(tiny)
        assert trainer.run_once()
        assert tiny.registry.manifest("policy.brief-000002").parent == CANDIDATE
        assert canary_of(tiny) == ("policy.brief-000002", 0.1)


def test_one_that_its_people_like_less_is_taken_back_and_its_policy_too(tiny: World) -> None:
    with tiny.trainer() as trainer:
        begun(tiny, trainer).compares(12, better=LIVE)
        trainer.read_log()
        status = tiny.registry.status(CANDIDATE)
        assert (status.state, status.reason) == ("rejected", f"people prefer {LIVE} (12 people)")
        assert (tiny.registry.live(KIND), canary_of(tiny, "policy")[0]) == (LIVE, EVERYBODYS)
        votes(tiny)
        assert trainer.run_once()
        assert tiny.registry.manifest("policy.brief-000002").parent == LIVE


def test_while_it_is_under_way_its_audience_waits_and_no_other_and_a_restart_counts_nothing_twice(tiny: World) -> None:
    with tiny.trainer() as trainer:
        people = begun(tiny, trainer)
        define(tiny, "wordy", WORDY)
        votes(tiny)
        assert trainer.run_once()
        why = f"{CANDIDATE} is a canary: `rlhf-online canary status --audience brief` tells how it fares"
        assert (told(tiny)["brief"]["why"], told(tiny)["wordy"]["state"]) == (why, "live")
        assert tiny.registry.versions(KIND) == [LIVE, CANDIDATE]
        people.compares(3, better=CANDIDATE)
        trainer.read_log()
        tally = trainer.parts.intake.canaries[KIND].to_json()
    with tiny.trainer() as successor:
        successor.read_log()
        assert successor.parts.intake.canaries.keys() == {"policy", KIND}
        assert successor.parts.intake.canaries[KIND].to_json() == tally
        assert tally["votes"] == 3


def test_with_its_audience_it_goes(tiny: World) -> None:
    with tiny.trainer() as trainer:
        begun(tiny, trainer)
        audiences.remove(tiny.registry.store, "brief")
        votes(tiny)
        assert trainer.run_once()
        status = tiny.registry.status(CANDIDATE)
        assert (status.state, status.reason) == ("rejected", "its audience was removed")
        assert trainer.parts.intake.canaries.keys() == {"policy"}


def test_with_what_it_is_compared_with_it_goes_and_the_audience_begins_anew(tiny: World) -> None:
    with tiny.trainer() as trainer:
        begun(tiny, trainer)
        trainer.read_log()
        tiny.registry.rollback(KIND, reason="by hand")
        trainer.read_log()
        status = tiny.registry.status(CANDIDATE)
        assert (status.state, status.reason.partition(":")[0]) == ("rejected", "it is the canary no more")
        votes(tiny)
        assert trainer.run_once()
        following = "policy.brief-000002"
        assert (tiny.registry.live(KIND), tiny.registry.manifest(following).parent) == (following, "policy-000000")


KILLS: list[tuple[Any, str, When]] = [
    (record, "begin", "before"),
    (record, "begin", "after"),
    (record, "advance", "after"),
    (Registry, "promote", "before"),
    (Registry, "promote", "after"),
]


@pytest.mark.parametrize(("owner", "name", "when"), KILLS, ids=[f"{when} {name}" for _, name, when in KILLS])
def test_killed_anywhere_another_trainer_comes_to_the_same_end(
    tiny: World, owner: Any, name: str, when: When, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The trainer dies beside one change of the store that is about the audience's second version."""
    kill = Kill(when)
    define(tiny, "brief", BRIEF)
    votes(tiny)
    with monkeypatch.context() as patch, tiny.trainer() as trainer:
        assert trainer.run_once()
        kill.at(owner, name, patch)
        kill.armed = name == "begin"
        votes(tiny)
        if kill.armed:
            with pytest.raises(Crash):
                trainer.run_once()
        else:
            assert trainer.run_once()
            kill.armed = True
            Audience(tiny, CANDIDATE, LIVE).compares(4, better=CANDIDATE)
            with pytest.raises(Crash):
                trainer.read_log()
                Audience(tiny, CANDIDATE, LIVE).compares(8, better=CANDIDATE)
                trainer.read_log()
    with tiny.trainer() as successor:
        for _ in range(3):
            successor.read_log()
            if tiny.registry.live(KIND) == LIVE:
                Audience(tiny, CANDIDATE, LIVE).compares(6, better=CANDIDATE)
        assert tiny.registry.live(KIND) == CANDIDATE
        assert tiny.registry.status(CANDIDATE).reason.startswith("people prefer it")
        assert (tiny.registry.status(LIVE).state, canary_of(tiny, "policy")[0]) == ("retired", EVERYBODYS)
