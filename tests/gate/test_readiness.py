"""Which reward models the policy may learn from."""

import pytest

from rlhf_online.gate.readiness import reward_model_blocks


@pytest.mark.parametrize(
    ("figures", "least", "blocked"),
    [
        ({"accuracy_low": 0.55, "accuracy_n": 300, "thumb_n": 0}, 0.5, False),
        ({"accuracy_low": 0.5, "accuracy_n": 30, "thumb_n": 0}, 0.5, True),
        ({"accuracy_low": 0.0, "accuracy_n": 0, "thumb_auc_low": 0.6, "thumb_n": 80}, 0.5, False),
        ({"accuracy_low": 0.55, "accuracy_n": 300, "thumb_auc_low": 0.6, "thumb_n": 80}, 0.7, True),
        ({}, 0.5, True),
        ({}, 0.0, False),
    ],
)
def test_the_policy_waits_for_a_reward_model_that_is_better_than_chance(figures, least, blocked) -> None:
    said = reward_model_blocks(figures, least)
    assert bool(said) is blocked
    if blocked:
        assert f"asks for more than {least:g}" in said and "more votes are needed" in said


def test_the_policy_waits_for_the_first_vote_that_teaches_whatever_accuracy_is_asked_for() -> None:
    assert "no vote has taught the reward model" in reward_model_blocks({"trained_objectives": 0, "accuracy_n": 0}, 0.0)
    assert not reward_model_blocks({"trained_objectives": 1, "accuracy_n": 0}, 0.0)
