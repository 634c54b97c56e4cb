"""A gap that an operator accepts: at one place, of one log, and nowhere else."""

import json
from pathlib import Path

import pytest

from rlhf_online.errors import CheckpointError, InvalidInput
from rlhf_online.eventlog.gap import Place, accept, accepted, standing

PLACE = Place("a log", {"local": 17})


def _checkpoint(folder: Path, name: str, text: str) -> None:
    (folder / name).mkdir(parents=True)
    (folder / name / "manifest.json").write_text(text)


def test_it_is_accepted_at_its_place_alone(tmp_path: Path) -> None:
    assert not accepted(tmp_path, "a log", {"local": 17}), "nobody has"
    accept(tmp_path, PLACE)
    assert accepted(tmp_path, "a log", {"local": 17})
    assert not accepted(tmp_path, "another", {"local": 17})
    assert not accepted(tmp_path, "a log", {"local": 18})
    assert not accepted(tmp_path, "a log", {"local": 17, "other": 0})


NONSENSE = ["", "{", "{}", "[]", '{"identity": "a log"}', '{"identity": "a log", "position": [17]}']


@pytest.mark.parametrize("text", NONSENSE)
def test_a_file_that_says_nothing_accepts_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / "accept-gap.json").write_text(text)
    assert not accepted(tmp_path, "a log", {"local": 17})


def test_the_newest_checkpoint_says_where_it_stands(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="there is no checkpoint in"):
        standing(tmp_path)
    for name, offset in (("000002", 20), ("000010", 100), ("000009", 90)):
        log = {"identity": "a log", "position": {"local": offset}}
        _checkpoint(tmp_path, name, json.dumps({"number": 1, "log": log}))
    _checkpoint(tmp_path, "aside", "{}")
    assert standing(tmp_path) == Place("a log", {"local": 100})


@pytest.mark.parametrize("text", ["[]", *NONSENSE])
def test_a_newest_checkpoint_that_does_not_say_is_named(tmp_path: Path, text: str) -> None:
    _checkpoint(tmp_path, "000001", json.dumps({"log": {"identity": "a log", "position": {}}}))
    _checkpoint(tmp_path, "000002", f'{{"log": {text}}}')
    with pytest.raises(CheckpointError, match=r"000002/manifest\.json cannot be read .*start the trainer"):
        standing(tmp_path)
