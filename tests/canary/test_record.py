"""Which conversations a canary gets, and what begins and ends it in the store."""

import json
from pathlib import Path

import pytest

from rlhf_online.canary import record
from rlhf_online.canary.record import Canary, advance, begin, end, key, under_way
from rlhf_online.versions.manifest import Manifest
from rlhf_online.versions.registry import Registry
from tests.support.memory_store import MemoryStore

CONVERSATIONS = [f"conversation {n}" for n in range(4000)]


def canary(share: float, version: str = "policy-000001") -> Canary:
    return Canary(version=version, live="policy-000000", steps=(share,), step=0, began_ms=1, since_ms=1)


def getting(share: float, version: str = "policy-000001") -> set[str]:
    return {name for name in CONVERSATIONS if canary(share, version).answers(name)}


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    registry = Registry(MemoryStore(tmp_path))
    for _ in range(2):
        name = registry.reserve("policy")
        registry.stage(name)
        registry.publish(Manifest(version=name, tuning="lora"))
    registry.promote("policy-000000")
    return registry


def test_a_share_of_the_conversations_get_it_nobody_at_0_and_everybody_at_1() -> None:
    assert getting(0) == set()
    assert getting(1) == set(CONVERSATIONS)
    assert len(getting(0.1)) == pytest.approx(400, abs=80)


def test_who_gets_it_keeps_it_when_the_share_grows_and_the_next_canary_gets_others() -> None:
    assert getting(0.01) < getting(0.1) < getting(0.5)
    both = getting(0.5) & getting(0.5, "policy-000002")
    assert len(both) == pytest.approx(1000, abs=120), "independent: a quarter"


def test_it_begins_once_and_goes_from_step_to_step(registry: Registry) -> None:
    assert under_way(registry) is None
    first = begin(registry, "policy-000001", (0.1, 1.0), {"samples": 3})
    assert first is not None and (first.share, first.live) == (0.1, "policy-000000")
    assert registry.status("policy-000001").state == "canary"
    assert advance(registry, first, "fine so far")
    second = under_way(registry)
    assert second is not None and (second.share, second.reason, second.began_ms) == (1.0, "fine so far", first.began_ms)
    assert begin(registry, "policy-000001", (0.5,), {}) == second, "it is under way: nothing changes"
    assert not advance(registry, first, "somebody who is late"), "that step is over"
    assert registry.status("policy-000001").gate == {"samples": 3}


def test_an_audiences_is_of_its_own_line_and_touches_no_others(registry: Registry) -> None:
    for _ in range(2):
        name = registry.reserve("policy.brief")
        registry.stage(name)
        registry.publish(Manifest(version=name, tuning="lora"))
    registry.promote("policy.brief-000000")
    everybodys = begin(registry, "policy-000001", (0.1,), {})
    found = begin(registry, "policy.brief-000001", (0.2, 0.4), {})
    assert found is not None and found.live == "policy.brief-000000"
    assert (under_way(registry), under_way(registry, "policy.brief")) == (everybodys, found)
    assert under_way(registry, "policy.long") is None
    assert advance(registry, found, "fine so far")
    registry.promote("policy-000001")
    assert under_way(registry) is None
    later = under_way(registry, "policy.brief")
    assert later is not None and later.share == 0.4
    end(registry, later, "people prefer the other")
    assert under_way(registry, "policy.brief") is None
    assert (registry.live("policy.brief"), registry.status(found.version).state) == (found.live, "rejected")


def test_an_audiences_ends_with_the_version_that_it_is_compared_with_though_none_comes_in_its_place(
    registry: Registry,
) -> None:
    for _ in range(2):
        name = registry.reserve("policy.brief")
        registry.stage(name)
        registry.publish(Manifest(version=name, tuning="lora"))
    registry.promote("policy.brief-000000")
    assert begin(registry, "policy.brief-000001", (0.1,), {}) is not None
    registry.rollback("policy.brief", reason="by hand")
    assert registry.live("policy.brief") == "policy.brief-000000", "the pointer stays"
    assert under_way(registry, "policy.brief") is None


def test_it_ends_with_a_reason_and_not_if_it_is_live_already(registry: Registry) -> None:
    found = begin(registry, "policy-000001", (0.1,), {})
    assert found is not None
    registry.promote("policy-000001")
    assert under_way(registry) is None
    end(registry, found, "too late")
    assert registry.status("policy-000001").state == "live"


def test_whoever_changes_what_is_live_ends_it(registry: Registry) -> None:
    begin(registry, "policy-000001", (0.1,), {})
    name = registry.reserve("policy")
    registry.stage(name)
    registry.publish(Manifest(version=name, tuning="lora"))
    registry.promote(name)
    assert under_way(registry) is None
    registry.rollback("policy", reason="by hand")
    assert under_way(registry) is not None, "what it was compared with is live again"
    registry.mark("policy-000001", "failed", reason="the engine")
    assert under_way(registry) is None


def test_a_promotion_that_a_rejection_overtakes_holds(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    """The trainer takes the canary back between the operator's look at its state and the move of the pointer."""
    found = begin(registry, "policy-000001", (0.1,), {})
    assert found is not None
    real = registry.store.replace

    def replace(key: str, value: str, *, expected: str | None) -> bool:
        if key == "live/policy":
            monkeypatch.undo()
            end(Registry(registry.store), found, "people dislike it")
        return real(key, value, expected=expected)

    monkeypatch.setattr(registry.store, "replace", replace)
    registry.promote("policy-000001")
    assert (registry.live("policy"), registry.status("policy-000001").state) == ("policy-000001", "live")


@pytest.mark.parametrize(
    "damage",
    ["", "no JSON", "[]", "{}", '{"version": 3}', {"step": 7}, {"step": -1}, {"steps": [2.0]}, {"version": "policy-9"}],
)
def test_nobody_gets_a_candidate_because_its_record_broke(registry: Registry, damage: str | dict[str, object]) -> None:
    found = begin(registry, "policy-000001", (0.1,), {})
    assert found is not None
    before = registry.store.read(key("policy"))
    after = damage if isinstance(damage, str) else json.dumps(found.to_json() | damage)
    assert registry.store.replace(key("policy"), after, expected=before)
    assert under_way(registry) is None
    again = record.begin(registry, "policy-000001", (0.1,), {})
    assert again is not None and again == under_way(registry), "the trainer writes it anew"
