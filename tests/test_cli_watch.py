"""`rlhf-online watch`: what the trainer wrote of the monitors, for operators."""

import json
from pathlib import Path

import pytest

from rlhf_online.cli import main
from rlhf_online.state import StateDir

READING = {
    "evidence": 12.5,
    "alarm": True,
    "says": "of 900 comparisons, 1 people prefer words as others do not",
    "rows": [{"person": "beef", "trait": "mango", "votes": 20, "share": 1.0}],
}


def test_what_monitors_say_is_shown_with_whom_they_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    silent = {"evidence": None, "alarm": False, "says": "nothing is known yet", "rows": []}
    monitors = {"poison": READING, "drift": silent, "over_optimisation": silent}
    StateDir(tmp_path).write_status("watch", {"monitors": monitors})
    assert main(["watch", "--state", str(tmp_path)]) == 0
    told = capsys.readouterr().out
    assert "poison" in told and "ALARM" in told and "evidence 12.5 of 1" in told
    assert "beef" in told and "mango" in told
    assert "drift             silent  unknown: nothing is known yet" in told
    assert "over_optimisation silent  unknown" in told
    assert main(["watch", "--state", str(tmp_path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["monitors"]["poison"] == READING


def test_one_monitor_is_asked_for_by_its_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    StateDir(tmp_path).write_status("watch", {"monitors": {"poison": READING, "segments": {**READING, "rows": []}}})
    assert main(["watch", "segments", "--state", str(tmp_path)]) == 0
    told = capsys.readouterr().out
    assert "segments" in told and "poison" not in told
    assert main(["watch", "poison", "--state", str(tmp_path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["monitors"] == {"poison": READING}
    assert main(["watch", "nonsense", "--state", str(tmp_path)]) != 0
    assert "name one of drift, tampering" in capsys.readouterr().err


def test_before_the_first_update_it_says_when_it_will_speak(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    StateDir(tmp_path).write_status("trainer", {})
    assert main(["watch", "--state", str(tmp_path)]) == 0
    assert "speaks when the reward model has learned" in capsys.readouterr().out
