"""The board of what became of votes, read on from where it was read to."""

from pathlib import Path

import pytest

from rlhf_online.feedback import outcomes
from rlhf_online.feedback.outcomes import Mark, OutcomeBoard, fact, vote_key
from tests.support.memory_store import MemoryStore


def told(board: OutcomeBoard, mark: Mark) -> tuple[list[str], Mark]:
    """The details of all facts behind the mark, and where they end."""
    details = []
    while True:
        facts = board.since(mark)
        details += [outcome.detail for _, outcome in facts.said]
        mark = facts.mark
        if not facts.more:
            return details, mark


def publish(board: OutcomeBoard, *details: str) -> None:
    board.publish({vote_key(detail, "ann"): fact("trained", detail) for detail in details})


def test_facts_are_read_once_each_in_whatever_chunk_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    board = OutcomeBoard(MemoryStore(tmp_path))
    assert told(board, Mark()) == ([], Mark())
    publish(board, "a")
    found, mark = told(board, Mark())
    assert found == ["a"] and told(board, mark) == ([], mark)
    publish(board, "b")
    monkeypatch.setattr(outcomes, "CHUNK_BYTES", 1)  # each batch begins a chunk from here on
    publish(board, "c")
    publish(board, "d")
    found, mark = told(board, mark)
    assert found == ["b", "c", "d"] and told(board, mark) == ([], mark)
    assert told(board, Mark())[0] == ["a", "b", "c", "d"]


def test_chunks_that_were_overwritten_meanwhile_are_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    board = OutcomeBoard(MemoryStore(tmp_path))
    monkeypatch.setattr(outcomes, "CHUNK_BYTES", 1)
    monkeypatch.setattr(outcomes, "CHUNKS", 3)
    publish(board, "0")
    _, mark = told(board, Mark())
    for number in range(1, 6):
        publish(board, str(number))
    assert told(board, mark)[0] == ["3", "4", "5"] == told(board, Mark())[0]
