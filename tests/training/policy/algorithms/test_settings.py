"""The setting `[policy.algorithm]`: a table that has the algorithm's own settings, and none that means nothing."""

from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from rlhf_online.training.policy.algorithms import ALGORITHMS, Algorithm
from rlhf_online.training.policy.algorithms.grpo import GRPO
from rlhf_online.training.policy.algorithms.ppo import PPO

READ: TypeAdapter[Any] = TypeAdapter(Algorithm)


def _refusal(value: Any) -> str:
    with pytest.raises(ValidationError) as refused:
        READ.validate_python(value)
    [error] = refused.value.errors()
    return error["msg"]


def test_a_table_or_a_name():
    assert READ.validate_python({"name": "grpo", "std": False}) == GRPO(std=False)
    assert READ.validate_python("grpo") == READ.validate_python({"name": "grpo"}) == GRPO()
    assert READ.validate_python({"gamma": 0.9}) == PPO(gamma=0.9), "without a name it is the default one's"
    with pytest.raises(ValidationError, match="does not match any of the expected tags: 'ppo', 'grpo'"):
        READ.validate_python("a2c")


@pytest.mark.parametrize("name", ALGORITHMS)
def test_what_is_written_is_read_back(name: str):
    algorithm = ALGORITHMS[name]()
    assert READ.validate_python(algorithm.model_dump(mode="json", exclude_unset=True)) == algorithm


@pytest.mark.parametrize("name", ALGORITHMS)
def test_another_algorithms_setting_is_refused_naming_both(name: str):
    own = ALGORITHMS[name].model_fields
    others = {setting for kind in ALGORITHMS.values() for setting in kind.model_fields} - own.keys()
    assert others
    for setting in others:
        message = _refusal({"name": name, setting: 1})
        assert message.startswith(f"{setting} is a setting of ") and f"; {name} has " in message
    assert _refusal({"name": "kto", "clip": 0.1}) == (
        "clip is a setting of ppo, grpo, dr-grpo, dapo, gspo, rloo, reinforce; kto has beta"
    )


def test_what_is_no_algorithms_setting_is_refused():
    with pytest.raises(ValidationError) as refused:
        READ.validate_python({"name": "kto", "epsilon": 0.1})
    assert [(error["type"], error["loc"]) for error in refused.value.errors()] == [
        ("extra_forbidden", ("kto", "epsilon"))
    ]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"kl_horizon": 100.0}, "kl_horizon has no effect while kl_target is 0.0: it needs above 0"),
        ({"kl_coef": 0.0, "kl_target": 3.0}, "kl_target has no effect while kl_coef is 0.0: it needs above 0"),
        ({"kl_coef": 0.0, "kl_in": "loss"}, "kl_in has no effect while kl_coef is 0.0"),
        ({"reject_above": 3.0}, "reject_above has no effect while correction is behaviour: it needs 'decoupled'"),
        ({"weight_per": "sequence"}, "weight_per has no effect while correction is behaviour: it needs 'decoupled'"),
        ({"max_weight": 3.0}, "max_weight has no effect while correction is behaviour: it needs 'decoupled'"),
        ({"kl_max_weight": 3.0}, "kl_max_weight has no effect while kl_in is reward: it needs 'loss'"),
        ({"value_coef": 0.0, "value_clip": 0.1}, "value_clip has no effect while value_coef is 0.0"),
        ({"value_coef": 0.0, "value_lr": 0.1}, "value_lr has no effect while value_coef is 0.0"),
        ({"name": "grpo", "whiten_rewards": "scale"}, "whiten_rewards has no effect while std is 1: it needs False"),
    ],
)
def test_what_has_no_effect_beside_the_others_is_refused(value: dict[str, Any], message: str):
    assert _refusal(value).startswith(message)


def test_what_has_an_effect_beside_the_others_is_not():
    for value in (
        {"kl_target": 3.0, "kl_horizon": 100.0},
        {"correction": "decoupled", "max_weight": 3.0, "reject_above": 3.0, "dual_clip": 3.0},
        {"kl_in": "loss", "kl_max_weight": 3.0},
        {"name": "grpo", "std": False, "whiten_rewards": "scale"},
    ):
        assert value.items() <= READ.validate_python(value).model_dump().items()


@pytest.mark.parametrize("name", ALGORITHMS)
def test_every_setting_says_what_it_is(name: str):
    fields = ALGORITHMS[name].model_fields
    assert all(field.description and not field.is_required() for field in fields.values())
