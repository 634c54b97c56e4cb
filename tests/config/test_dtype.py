"""What layers may compute in."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from rlhf_online.config import RewardSettings, SftSettings
from rlhf_online.config.base import Section
from rlhf_online.training.settings import TrainerSettings

SERVICES: list[tuple[type[Section], dict[str, Any]]] = [
    (TrainerSettings, {"chat_url": "", "reward_address": "", "state_dir": Path()}),
    (RewardSettings, {"state_dir": Path()}),
    (SftSettings, {"data": Path("talks.jsonl"), "out": Path()}),
]


@pytest.mark.parametrize(("settings", "needed"), SERVICES)
def test_float16_is_refused_with_the_reason_and_what_to_use_instead(settings: type[Section], needed: dict[str, Any]):
    with pytest.raises(ValidationError) as told:
        settings.model_validate({"model": "m", "dtype": "float16", **needed})
    (error,) = told.value.errors()
    assert error["loc"] == ("dtype",)
    assert error["msg"].startswith("nothing is learned in float16: gradients below 6e-8 are 0 in it")
    assert "use 'bfloat16', or 'float32'" in error["msg"]


@pytest.mark.parametrize(("settings", "needed"), SERVICES)
def test_bfloat16_is_taken(settings: type[Section], needed: dict[str, Any]):
    made = settings.model_validate({"model": "m", "dtype": "bfloat16", **needed})
    assert getattr(made, "dtype") == "bfloat16"  # noqa: B009
