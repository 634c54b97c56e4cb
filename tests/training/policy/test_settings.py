"""The table `[policy]`: its algorithm or its stages, and what was in it and is an algorithm's."""

import pytest
from pydantic import ValidationError

from rlhf_online.training.policy.algorithms import ALGORITHMS, KTO, PPO
from rlhf_online.training.policy.settings import PolicyTraining


def test_stages_follow_one_another_and_the_last_goes_on():
    settings = PolicyTraining.model_validate(
        {
            "lr": 1e-3,
            "lr_decay_updates": 10,
            "schedule": [
                {"algorithm": "best-of-n", "updates": 2, "lr": 1e-4},
                {"algorithm": {"name": "kto", "beta": 0.3}, "updates": 1},
                {"algorithm": "ppo", "updates": 1},
            ],
        }
    )
    names = [settings.stage(updates).algorithm.name for updates in range(6)]
    assert names == ["best-of-n", "best-of-n", "kto", "ppo", "ppo", "ppo"]
    assert settings.stage(2).algorithm == KTO(beta=0.3)
    assert [settings.rate(updates) for updates in (0, 1, 2, 10, 11)] == pytest.approx([0.1, 0.09, 0.8, 0, 0])


def test_without_stages_it_is_the_algorithm_for_ever():
    assert PolicyTraining().stage(7).algorithm == PPO()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"algorithm": "grpo", "schedule": [{"algorithm": "kto"}]}, "algorithm and schedule are both given"),
        ({"schedule": [{"algorithm": "kto"}, {"algorithm": "ppo"}]}, "lasts for ever; another follows"),
        ({"demonstrations": "file.jsonl"}, "demonstrations has no effect while ptx_coef is 0.0: it needs above 0"),
    ],
)
def test_what_has_no_effect_is_refused(values: dict[str, object], message: str):
    with pytest.raises(ValidationError, match=message):
        PolicyTraining.model_validate(values)


def test_what_was_in_the_table_is_somewhere_else():
    for old, new in PolicyTraining.moved.items():
        table, _, name = new.partition(".")
        assert table == "algorithm" and any(name in kind.model_fields for kind in ALGORITHMS.values())
        with pytest.raises(ValidationError):
            PolicyTraining.model_validate({old: 1})


@pytest.mark.parametrize("name", ALGORITHMS)
def test_what_was_given_is_read_back_with_the_algorithms_name(name: str):
    settings = PolicyTraining(algorithm=ALGORITHMS[name]())
    written = settings.model_dump(mode="json", exclude_unset=True)
    assert written == {"algorithm": {"name": name}}
    assert PolicyTraining.model_validate(written) == settings
