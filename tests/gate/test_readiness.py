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
    said = reward_model_blocks(figures, least, "a.setting")
    assert bool(said) is blocked
    if blocked:
        assert f"a.setting asks for more than {least:g}" in said and "more votes are needed" in said


def test_it_is_said_how_far_the_reward_model_has_come_by_how_many_votes() -> None:
    """What was never measured counts as none."""
    assert "more than 0.00 of the time, by 0 pairs and 0 thumbs, and" in reward_model_blocks({}, 0.5, "a.setting")
    figures = {"accuracy_low": 0.25, "accuracy_n": 7, "thumb_auc_low": 0.375, "thumb_n": 8}
    assert "more than 0.38 of the time, by 7 pairs and 8 thumbs, and" in reward_model_blocks(figures, 0.5, "a.setting")


def test_it_is_said_which_reward_model_is_meant() -> None:
    assert reward_model_blocks({}, 0.5, "a.setting", which="held-back reward model").startswith(
        "the held-back reward model orders"
    )
    said = reward_model_blocks({"trained_objectives": 0}, 0.0, "a.setting", which="held-back reward model")
    assert said.startswith("no vote has taught the held-back reward model")


def test_the_policy_waits_for_the_first_vote_that_teaches_whatever_accuracy_is_asked_for() -> None:
    assert "no vote has taught the reward model" in reward_model_blocks(
        {"trained_objectives": 0, "accuracy_n": 0}, 0.0, "a.setting"
    )
    assert not reward_model_blocks({"trained_objectives": 1, "accuracy_n": 0}, 0.0, "a.setting")
