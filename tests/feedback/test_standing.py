"""Whose votes count otherwise than most: the record, and the command that shows it."""

from pathlib import Path

import pytest

from rlhf_online.cli import main
from rlhf_online.errors import FileDamaged
from rlhf_online.feedback import standing
from rlhf_online.feedback.standing import Standing
from rlhf_online.state import StateDir
from rlhf_online.versions import open_registry
from rlhf_online.versions.folder_store import FolderStore

SOME = Standing(believed=7, doubted=("3f",), capped=("9a", "3f"), alike=(("07", "c2"), ("a1", "b1", "d1")))


def test_the_newest_is_kept(tmp_path: Path) -> None:
    store = FolderStore(tmp_path / "versions")
    assert standing.read(store) == Standing()
    for each in (SOME, SOME, Standing(believed=8)):
        standing.write(store, each)
        assert standing.read(store) == each
    assert SOME.counts() == {"believed": 7, "doubted": 1, "capped": 2, "alike": 5}


@pytest.mark.parametrize("damaged", ["", "{", "[]", "null", '{"believed": 1}'])
def test_a_damaged_record_is_named_and_written_anew(tmp_path: Path, damaged: str) -> None:
    store = FolderStore(tmp_path / "versions")
    assert store.replace("people", damaged, expected=None)
    with pytest.raises(FileDamaged, match="the next update of the reward model writes it anew"):
        standing.read(store)
    standing.write(store, SOME)
    assert standing.read(store) == SOME


def test_who_erased_everything_is_named_no_more(tmp_path: Path) -> None:
    store = FolderStore(tmp_path / "versions")
    standing.forget(store, ["3f"])
    assert store.read("people") is None, "there was nobody to forget"
    standing.write(store, SOME)
    standing.forget(store, ["3f", "07", "d1", "somebody"])
    assert standing.read(store) == Standing(believed=7, capped=("9a",), alike=(("a1", "b1"),))
    assert store.replace("people", "{", expected=store.read("people"))
    standing.forget(store, [])
    assert standing.read(store) == Standing(), "what cannot be read may name anybody"


def test_an_operator_sees_who_is_what(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    registry = open_registry(StateDir(tmp_path).versions)
    assert main(["people", "standing", "--state", str(tmp_path)]) == 0
    assert capsys.readouterr().out == "believed  0 people\n"
    assert main(["people", "standing", "--state", str(tmp_path / "none")]) == 2
    standing.write(registry.store, SOME)
    assert main(["people", "standing", "--state", str(tmp_path)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "believed  7 people",
        "doubted   3f",
        "capped    9a",
        "capped    3f",
        "alike     07 c2",
        "alike     a1 b1 d1",
    ]
