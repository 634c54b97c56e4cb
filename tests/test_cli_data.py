"""The commands `data …`, as people type them."""

import json
import os
from pathlib import Path

import pytest

from rlhf_online.cli import main
from rlhf_online.data.formats import FORMATS
from rlhf_online.eventlog.local import LocalLog
from rlhf_online.eventlog.tail import LocalReader
from rlhf_online.state import StateDir
from rlhf_online.wire import decode
from tests.support import hh_rlhf


@pytest.fixture(autouse=True)
def umask(monkeypatch: pytest.MonkeyPatch) -> None:
    """A command closes its process's files to others; this process is the tests'."""
    monkeypatch.setattr(os, "umask", lambda mask: 0)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    rows = [*hh_rlhf.rows(30), {"chosen": "x", "rejected": "y"}]
    return hh_rlhf.write(tmp_path / "pairs.jsonl", rows)


def test_formats_are_listed_with_what_they_are(capsys: pytest.CaptureFixture[str]):
    assert main(["data", "formats"]) == 0
    told = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in told] == list(FORMATS)


def test_a_file_is_imported_once_and_the_counts_are_told(
    tmp_path: Path, file: Path, capsys: pytest.CaptureFixture[str]
):
    command = ["data", "import", "--format", "hh-rlhf", str(file), "--state", str(tmp_path / "state")]
    assert main([*command, "--json"]) == 0
    [told] = json.loads(capsys.readouterr().out)
    assert (told["file"], told["rows"], told["imported"], told["votes"]) == ("pairs.jsonl", 31, 30, 30)
    assert told["refused"] == {"shape": 1} and told["examples"]["shape"][0].startswith("row 31: ")
    assert main(command) == 0
    table = capsys.readouterr().out
    assert "31 rows" in table and "already there         30" in table and "row 31: a transcript begins with" in table
    with LocalReader(tmp_path / "state" / "log") as reader:
        assert len(reader.read({}, 1000)[0]) == 60


def test_votes_are_exported_and_what_is_left_out_is_told(
    tmp_path: Path, file: Path, capsys: pytest.CaptureFixture[str]
):
    state, out = str(tmp_path / "state"), tmp_path / "out.jsonl"
    assert main(["data", "import", "--format", "hh-rlhf", str(file), "--state", state]) == 0
    assert main(["data", "export", "--format", "trl-preference", str(out), "--state", state]) == 0
    assert f"30 rows in {out}" in capsys.readouterr().out and len(out.read_text().splitlines()) == 30
    thumbs = ["data", "export", "--format", "trl-unpaired", str(tmp_path / "thumbs.jsonl"), "--state", state, "--json"]
    assert main(thumbs) == 0
    assert json.loads(capsys.readouterr().out) == {"rows": 0, "left_out": {"pairwise": 30}}
    for arguments, told in [
        (["--format", "csv", "x.jsonl"], "no file is written as 'csv'"),
        (["--format", "votes", str(out)], "exists: name a new file"),
        (["--format", "votes", "x.jsonl", "--state", str(tmp_path / "absent")], "no event log at"),
    ]:
        assert main(["data", "export", "--state", state, *arguments]) == 2
        assert told in capsys.readouterr().err


def test_people_are_hashed_as_the_service_hashes_them(tmp_path: Path):
    state = StateDir(tmp_path / "state")
    row = {"prompt": "a", "completion": "b", "label": True, "person": "ann"}
    rows = tmp_path / "rows.jsonl"
    rows.write_text(json.dumps(row))
    assert main(["data", "import", "--format", "trl-unpaired", str(rows), "--state", str(state.root)]) == 0
    with LocalReader(state.log) as reader:
        votes = [decode(record.payload).event for record in reader.read({}, 10)[0]]
    assert getattr(votes[1], "person", "") == state.person_hash()("ann")
    assert state.root.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--format", "hh", "pairs.jsonl"], "no format is called 'hh': hh-rlhf, shp"),
        (["--format", "hh-rlhf", "absent.jsonl"], "absent.jsonl cannot be read: No such file or directory"),
        (["--format", "shp", "pairs.jsonl"], "nothing of it could be imported: is --format the right one?"),
    ],
)
def test_a_mistake_is_told_in_one_sentence(
    tmp_path: Path,
    file: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    told: str,
):
    monkeypatch.chdir(tmp_path)
    assert main(["data", "import", *arguments, "--state", "state"]) == 2
    assert told in capsys.readouterr().err


def test_a_log_that_a_service_writes_to_is_left_alone(tmp_path: Path, file: Path, capsys: pytest.CaptureFixture[str]):
    state = StateDir(tmp_path / "state")
    with LocalLog(state.log):
        assert main(["data", "import", "--format", "hh-rlhf", str(file), "--state", str(state.root)]) != 0
    assert "another process" in capsys.readouterr().err
