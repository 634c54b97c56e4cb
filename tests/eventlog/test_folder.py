"""The log's files beside its segments: who needs what, and what nobody may have again."""

import json
import os
from pathlib import Path

import pytest

from rlhf_online.errors import LogLocked
from rlhf_online.eventlog import folder as files
from rlhf_online.eventlog.segments import segment_name


def test_segments_are_told_from_other_files_and_come_in_order(tmp_path: Path) -> None:
    for name in (segment_name(30), segment_name(4), segment_name(0), "identity", "4.log"):
        (tmp_path / name).touch()
    assert files.segments(tmp_path) == [0, 4, 30]


def test_what_the_slowest_reader_needs_is_needed(tmp_path: Path) -> None:
    assert files.first_needed(tmp_path) is None, "nobody reads"
    files.mark_consumed(tmp_path, "trainer", 30)
    files.mark_consumed(tmp_path, "auditor", 12)
    (tmp_path / "readers" / ".trainer.17").write_text("{")  # left behind by a kill in the middle of a write
    assert files.first_needed(tmp_path) == 12
    files.mark_consumed(tmp_path, "auditor", 31)
    assert files.first_needed(tmp_path) == 30
    for nonsense in ("", "{}", "[]", '{"consumed": null}'):
        (tmp_path / "readers" / "auditor").write_text(nonsense)
        assert files.first_needed(tmp_path) == 0, "who cannot be read needs everything"


def test_a_reader_that_goes_while_one_looks_holds_nothing_back(tmp_path: Path) -> None:
    files.mark_consumed(tmp_path, "trainer", 30)
    (tmp_path / "readers" / "gone").symlink_to(tmp_path / "nowhere")
    assert files.first_needed(tmp_path) == 30


def test_the_highest_number_that_anybody_has_had(tmp_path: Path) -> None:
    assert files.highest_consumed(tmp_path, "a log") == 0
    files.mark_consumed(tmp_path, "trainer", 30)
    files.mark_consumed(tmp_path, "auditor", 12)
    (tmp_path / "readers" / "broken").write_text("{")
    (tmp_path / "readers" / ".trainer.17").write_text('{"consumed": 99}')
    assert files.highest_consumed(tmp_path, "a log") == 30
    (tmp_path / "shipped.json").write_text(json.dumps({"spool": "another", "shipped": 70}))
    assert files.highest_consumed(tmp_path, "a log") == 30, "another spool's number says nothing of this one's"
    (tmp_path / "shipped.json").write_text(json.dumps({"spool": "a log", "shipped": 70}))
    assert files.highest_consumed(tmp_path, "a log") == 70


def test_a_folder_is_named_once_and_its_owner_alone_may_look_into_it(tmp_path: Path) -> None:
    folder = tmp_path / "state" / "log"
    name = files.identity(folder)
    assert name == files.identity(folder) and len(name) == 36
    assert folder.stat().st_mode & 0o777 == 0o700


def test_the_writers_lock_names_its_holder_and_can_be_had_again(tmp_path: Path) -> None:
    lock = files.take_lock(tmp_path)
    with pytest.raises(LogLocked, match=rf"another process \(pid {os.getpid()}\) writes to the log in {tmp_path}"):
        files.take_lock(tmp_path)
    lock.release()
    files.take_lock(tmp_path).release()


@pytest.mark.parametrize(
    ("error", "what"),
    [
        (OSError(28, "No space left", "/log/committed"), "/log/committed: No space left"),
        (OSError(28, "No space left"), "/log: No space left"),
        (ValueError("no text"), "no text"),
    ],
)
def test_an_error_says_which_file_and_what_must_be(error: Exception, what: str) -> None:
    assert str(files.unusable(Path("/log"), error)).startswith(f"the log in /log cannot be used: {what}; it must be")
