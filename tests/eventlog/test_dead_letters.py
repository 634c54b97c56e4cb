"""The file of records that cannot be used: a line each, for people and for `replay` by hand."""

import base64
import json
from pathlib import Path

import pytest

from rlhf_online.errors import LogUnavailable
from rlhf_online.eventlog import dead_letters
from rlhf_online.eventlog.base import DeadLetter


def _letter(offset: int, *, orphan: bool = False) -> DeadLetter:
    return DeadLetter(
        partition="local", offset=offset, event_id=f"vote-{offset}", reason="why", payload=b"\xff\0", orphan=orphan
    )


def test_a_line_says_where_the_record_stood_what_it_held_and_why(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "letters.jsonl"
    path.parent.mkdir()
    dead_letters.append(path, [_letter(1), _letter(2, orphan=True)])
    dead_letters.append(path, [_letter(3)])
    assert [json.loads(line) for line in path.read_text().splitlines()] == [
        {
            "partition": "local",
            "offset": offset,
            "event_id": f"vote-{offset}",
            "reason": "why",
            "payload": base64.b64encode(b"\xff\0").decode(),
        }
        for offset in (1, 2, 3)
    ]
    assert dead_letters.count(path) == 3


def test_there_is_no_file_before_there_is_a_letter(tmp_path: Path) -> None:
    dead_letters.append(tmp_path / "letters.jsonl", [])
    assert list(tmp_path.iterdir()) == [] and dead_letters.count(tmp_path / "letters.jsonl") == 0


def test_a_file_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    with pytest.raises(LogUnavailable, match=rf"{tmp_path} cannot be written: Is a directory"):
        dead_letters.append(tmp_path, [_letter(1)])
    with pytest.raises(LogUnavailable, match=rf"{tmp_path} cannot be read: Is a directory"):
        dead_letters.count(tmp_path)
