"""The buffer's bounds: number, and age in promoted versions."""

from rlhf_online.rollout.buffer import RolloutBuffer
from rlhf_online.rollout.types import Rollout


def rollout(name: str, version: str = "policy-000003") -> Rollout:
    return Rollout(
        rollout_id=name,
        prompt_token_ids=(1, 3),
        token_ids=(5, 2),
        logprobs=(-0.5, -0.25),
        policy_version=version,
        temperature=0.7,
        finished=True,
    )


def names(rollouts: list[Rollout]) -> list[str]:
    return [item.rollout_id for item in rollouts]


LINEAGE = ["policy-000000", "policy-000001", "policy-000003", "policy-000004"]  # 2 was rejected


def test_newest_first_and_the_rest_stays() -> None:
    buffer = RolloutBuffer(10, 4)
    buffer.add(rollout(name) for name in "abc")
    assert names(buffer.take(2, LINEAGE, lambda name: True)) == ["c", "b"]
    assert len(buffer) == 1
    assert names(buffer.take(2, LINEAGE, lambda name: True)) == ["a"]


def test_age_counts_promoted_versions_only() -> None:
    buffer = RolloutBuffer(10, 2)
    for number in range(5):
        buffer.add([rollout(str(number), f"policy-{number:06d}")])
    assert names(buffer.take(9, LINEAGE, lambda name: True)) == ["4", "3", "1"]
    assert buffer.left_out["stale"] == 2  # 0 is three promotions old; 2 never led to the live one


def test_no_staleness_means_the_live_version_alone() -> None:
    buffer = RolloutBuffer(10, 0)
    buffer.add([rollout("old"), rollout("new", "policy-000004")])
    assert names(buffer.take(9, LINEAGE, lambda name: True)) == ["new"]


def test_beyond_the_capacity_the_oldest_go() -> None:
    buffer = RolloutBuffer(2, 4)
    buffer.add(rollout(name) for name in "abc")
    assert buffer.left_out["full"] == 1
    assert names(buffer.take(9, LINEAGE, lambda name: True)) == ["c", "b"]


def test_a_rollout_that_was_used_is_passed_over() -> None:
    buffer = RolloutBuffer(10, 4)
    buffer.add(rollout(name) for name in "abc")
    assert names(buffer.take(2, LINEAGE, lambda name: name != "b")) == ["c", "a"]
    assert len(buffer) == 0


def test_it_survives_json() -> None:
    buffer, other = RolloutBuffer(2, 4), RolloutBuffer(2, 4)
    buffer.add(rollout(name) for name in "abc")
    other.restore(buffer.to_json())
    assert other.left_out == {"stale": 0, "full": 1}
    assert other.take(9, LINEAGE, lambda name: True) == [rollout("c"), rollout("b")]


def test_what_versions_of_audiences_wrote_waits_for_their_own_updates() -> None:
    buffer = RolloutBuffer(10, 1)
    buffer.add([rollout("old", "policy-000001"), rollout("brief", "policy.brief-000001"), rollout("new")])
    assert names(buffer.take(9, LINEAGE, lambda name: True)) == ["new"]
    assert (len(buffer), buffer.left_out["stale"]) == (1, 1)
    assert names(buffer.take(9, ["policy.brief-000000", "policy.brief-000001"], lambda name: True)) == ["brief"]
