"""The checks as settings."""

import pytest
from pydantic import ValidationError

from rlhf_online.gate.held_back import HeldBackCheck
from rlhf_online.gate.kl import KlCheck
from rlhf_online.gate.length import LengthCheck
from rlhf_online.gate.settings import GateSettings
from rlhf_online.gate.win_rate import WinRateCheck


def test_every_check_is_asked_with_its_own_settings() -> None:
    settings = GateSettings.model_validate({"kl": {"max": 3.0}, "length": {"min_ratio": 0.5}})
    for check in (KlCheck(max=3.0), WinRateCheck(), LengthCheck(min_ratio=0.5), HeldBackCheck()):
        assert check in settings.checks
    assert list(settings.named.values()) == list(settings.checks)


def test_a_threshold_stands_in_its_checks_table() -> None:
    with pytest.raises(ValidationError, match="max_kl"):
        GateSettings.model_validate({"max_kl": 3.0})
    assert set(GateSettings.moved.values()) == {"kl.max", "win_rate.min", "length.max_ratio", "length.min_ratio"}
