"""A power loss at any moment loses nothing that was promised, and leaves what every reader opens.

`tests/support/durable_writers.py` is the table of all that writes. For each row: whenever the power goes, the reader
finds what was there before or what is there afterwards, and once a call has returned, what is there afterwards; whoever
starts again upon what a power loss or a kill left gets there too; and each line that asks for an fsync is needed.
"""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.durable_writers import NOT_PROMISED, WRITERS, Writer
from tests.support.power_loss import AFTER_THE_CALL, BEGINNING, Moment, Recording, Tree, lay_out, recorded
from tests.support.writing_calls import writing_functions

ROOT = Path(__file__).parents[1]

writers = pytest.mark.parametrize("writer", WRITERS, ids=lambda writer: writer.name)


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("fsync", "fdatasync"):
        monkeypatch.setattr(os, name, lambda descriptor: None)


class Folders:
    """New folders; each is gone when the third after it is asked for."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._number = 0

    def new(self) -> Path:
        self._number += 1
        shutil.rmtree(self._root / str(self._number - 3), ignore_errors=True)
        return self._root / str(self._number)


def of(writer: Writer, root: Path, lies: str = "") -> Recording:
    root.mkdir()
    writer.before(root)
    return recorded(root, writer.write, lies=lies)


def lost(writer: Writer, recording: Recording, folders: Folders) -> Iterator[str]:
    """The power losses after which something else is found than may be."""
    kept = [moment for moment in recording.moments if moment.what in (BEGINNING, AFTER_THE_CALL)]
    expected = [writer.read(lay_out(moment.alive, folders.new())) for moment in kept]
    assert expected[0] != expected[-1], "it writes nothing that its reader sees"
    seen: set[tuple[int, bool, Tree]] = set()
    for moment in recording.moments[recording.lied_at :]:
        strict = moment.what == AFTER_THE_CALL
        possible = expected[moment.promised : moment.promised + (1 if strict else 2)]
        for what, tree in moment.losses():
            if (moment.promised, strict, tree) in seen:
                continue
            seen.add((moment.promised, strict, tree))
            try:
                found = writer.read(lay_out(tree, folders.new()))
                if found not in possible and (strict or not writer.between(found)):
                    yield f"{what}: found {found}, and may find {possible}"
            except Exception as error:  # whatever it is, the product could not go on
                yield f"{what}: {error!r}"


def lost_after_a_kill(writer: Writer, moments: list[Moment], folders: Folders, lies: str = "") -> Iterator[str]:
    """Names and contents that a killed process left are there, and not yet on disk. The next one goes on from them and
    makes its promises; then the power goes."""
    for moment in moments:
        if moment.now == moment.certain:
            continue
        folder = folders.new()
        certain = moment.killed(folder)
        last = recorded(folder, writer.write, lies=lies, certain=certain, only_promises=True).moments[-1]
        goal = writer.read(lay_out(last.alive, folders.new()))
        found = writer.read(lay_out(last.surely, folders.new()))
        if found != goal and not writer.removes:
            yield f"killed {moment.what}: found {found} instead of {goal}"


@writers
def test_a_power_loss_loses_nothing_that_was_promised(writer: Writer, tmp_path: Path) -> None:
    recording = of(writer, tmp_path / "root")
    assert list(lost(writer, recording, Folders(tmp_path))) == []
    assert {f"rlhf_online.{name}" for name in writer.writes} <= recording.callers


@writers
def test_who_starts_again_after_a_kill_builds_on_certain_ground(writer: Writer, tmp_path: Path) -> None:
    moments = of(writer, tmp_path / "root").moments
    assert list(lost_after_a_kill(writer, moments, Folders(tmp_path))) == []


def test_without_any_single_fsync_something_is_lost(tmp_path: Path) -> None:
    """Or the line that asks for it is of no use."""
    folders = Folders(tmp_path)
    found = [(writer, of(writer, tmp_path / f"root {number}")) for number, writer in enumerate(WRITERS)]

    def noticed(line: str) -> bool:
        concerned = [(writer, recording) for writer, recording in found if line in recording.fsyncs]
        return any(
            next(lost(writer, of(writer, folders.new(), line), folders), None)
            or next(lost_after_a_kill(writer, recording.moments[::-1], folders, line), None)
            for writer, recording in sorted(concerned, key=lambda each: len(each[1].moments))
        )

    assert [line for line in sorted(set().union(*(each.fsyncs for _, each in found))) if not noticed(line)] == []


def test_every_writer_of_the_product_is_in_the_table() -> None:
    tried = {f"rlhf_online.{name}" for writer in WRITERS for name in writer.writes}
    writing = writing_functions(ROOT)
    assert [name for name in sorted(writing - tried) if not name.startswith(tuple(NOT_PROMISED))] == []
    assert [name for name in NOT_PROMISED if not any(each.startswith(name) for each in writing)] == []
