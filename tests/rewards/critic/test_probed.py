"""Annotators see notes of a critic that passed its probe, as it is asked now."""

from pathlib import Path
from typing import Any

import pytest

from rlhf_online.errors import FileDamaged, InvalidInput
from rlhf_online.rewards.critic import probed
from rlhf_online.rewards.critic.planted import probe
from rlhf_online.rewards.critic.settings import CriticSettings
from tests.support.scripted_critic import knowing

SETTINGS = CriticSettings(url="http://127.0.0.1:9/v1", model="m", principles=("Be brief.",))
GOOD, SILENT = probe(knowing, SETTINGS.principles), probe(lambda messages: "[]", SETTINGS.principles)
AT_S = 1_800_000_000.0


def test_a_critic_that_was_not_probed_writes_no_notes(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"was not probed .* `rlhf-online critic probe FILE`"):
        probed.require(tmp_path, SETTINGS, AT_S)
    probed.keep(tmp_path, SETTINGS, GOOD, AT_S)
    probed.require(tmp_path, SETTINGS, AT_S)


@pytest.mark.parametrize(
    "other", [{"model": "n"}, {"url": "http://127.0.0.1:10/v1"}, {"principles": ("Be brief.", "Praise the brand.")}]
)
def test_a_probe_is_of_one_address_model_and_principles(tmp_path: Path, other: dict[str, Any]) -> None:
    probed.keep(tmp_path, SETTINGS, GOOD, AT_S)
    with pytest.raises(InvalidInput, match="was not probed"):
        probed.require(tmp_path, SETTINGS.model_copy(update=other), AT_S)
    probed.require(tmp_path, SETTINGS.model_copy(update={"max_tokens": 5, "timeout_s": 1.0}), AT_S)


def test_the_last_probe_counts_and_only_for_some_days(tmp_path: Path) -> None:
    probed.keep(tmp_path, SETTINGS, GOOD, AT_S)
    probed.require(tmp_path, SETTINGS, AT_S + probed.LASTS_S)
    with pytest.raises(InvalidInput, match="more than 7 days old"):
        probed.require(tmp_path, SETTINGS, AT_S + probed.LASTS_S + 1)
    probed.keep(tmp_path, SETTINGS, SILENT, AT_S + 1)
    with pytest.raises(InvalidInput, match=r"a recall of 0\.00, surely 0\.00, and least_recall is 0\.3; a precision"):
        probed.require(tmp_path, SETTINGS, AT_S + 2)


def test_what_is_asked_for_is_what_the_file_says_now(tmp_path: Path) -> None:
    probed.keep(tmp_path, SETTINGS, GOOD, AT_S)
    with pytest.raises(InvalidInput, match=r"least_recall is 0\.95"):
        probed.require(tmp_path, SETTINGS.model_copy(update={"least_recall": 0.95}), AT_S)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"at_s": 1}', '{"at_s": "now", "found": {}}'])
def test_a_damaged_file_says_what_to_do(tmp_path: Path, text: str) -> None:
    probed.keep(tmp_path, SETTINGS, GOOD, AT_S)
    [path] = (tmp_path / probed.FOLDER).iterdir()
    path.write_text(text)
    with pytest.raises(FileDamaged, match="`rlhf-online critic probe FILE`"):
        probed.require(tmp_path, SETTINGS, AT_S)
