"""A database that follows the log: each record once, over kills, gaps, other logs and other tables."""

import asyncio
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import ClassVar

import pytest

from rlhf_online.errors import FileDamaged, ReadModelUnavailable
from rlhf_online.eventlog import folder as log_files
from rlhf_online.eventlog import read_model
from rlhf_online.eventlog.base import Record
from rlhf_online.eventlog.local import LocalLog
from rlhf_online.eventlog.read_model import ReadModel
from rlhf_online.eventlog.tail import LocalReader
from rlhf_online.events import Feedback
from rlhf_online.wire import Header, encode
from tests.support.logged import completion, thumb
from tests.support.waiting import eventually


class Votes(ReadModel):
    """The names of votes, in their order. While it is `broken`, the vote "unlucky" stops it."""

    broken = False

    tables: ClassVar[str] = "CREATE TABLE IF NOT EXISTS vote (number INTEGER PRIMARY KEY, name TEXT);"

    def apply(self, record: Record, header: Header) -> None:
        if header.kind is Feedback:
            self.execute("INSERT INTO vote VALUES (?, ?)", (record.offset, header.event_id))
        if self.broken and header.event_id == "unlucky":
            self.execute("SELECT name FROM nowhere")

    def trim(self, first: int) -> None:
        self.execute("DELETE FROM vote WHERE name = 'useless'")

    def names(self) -> list[str]:
        return [name for (name,) in self.rows("SELECT name FROM vote ORDER BY number")]


class Changed(Votes):
    """The same with another table."""

    tables: ClassVar[str] = "CREATE TABLE IF NOT EXISTS vote (number INTEGER PRIMARY KEY, name TEXT, mark TEXT);"

    def apply(self, record: Record, header: Header) -> None:
        self.execute("INSERT INTO vote VALUES (?, ?, '')", (record.offset, header.event_id))


class Beside:
    """A log, and read models that follow it, one after another."""

    def __init__(self, root: Path) -> None:
        self.folder = root / "log"
        self.path = root / "models" / "votes.sqlite"
        self.log = LocalLog(self.folder, segment_bytes=100)

    def write(self, *names: str) -> None:
        for name in names:
            self.log.append(encode(thumb("answer", event_id=name))).result(30)

    def open(self, kind: type[Votes] = Votes) -> Votes:
        return kind(self.path, self.folder)

    def found(self, kind: type[Votes] = Votes) -> list[str]:
        with closing(self.open(kind)) as model:
            model.catch_up()
            return model.names()

    def lose(self, first: int) -> None:
        (self.folder / f"{first:020d}.log").unlink()


@pytest.fixture
def beside(tmp_path: Path) -> Iterator[Beside]:
    beside = Beside(tmp_path)
    yield beside
    beside.log.close()


def test_it_goes_on_where_it_stood(beside: Beside) -> None:
    beside.write("a", "b")
    with closing(beside.open()) as model:
        model.catch_up()
        beside.write("c")
        assert model.names() == ["a", "b"]
        model.catch_up()
        assert model.names() == ["a", "b", "c"]
    beside.write("d")
    assert beside.found() == ["a", "b", "c", "d"]


def test_a_transaction_that_fails_changes_nothing_and_is_tried_again(beside: Beside) -> None:
    beside.write("a", "unlucky")
    with closing(beside.open()) as model:
        model.broken = True
        with pytest.raises(ReadModelUnavailable, match=r"votes.sqlite cannot be used: no such table: nowhere"):
            model.catch_up()
        assert model.names() == []
        model.broken = False
        model.catch_up()
        assert model.names() == ["a", "unlucky"]


def test_what_nobody_can_read_is_passed_over(beside: Beside) -> None:
    beside.write("a")
    beside.log.append(b"\xff no envelope").result(30)
    beside.write("b")
    assert beside.found() == ["a", "b"]


def test_retention_keeps_what_was_not_taken_in_durably(beside: Beside) -> None:
    """The log is told after SQLite's journal was synced and emptied."""
    beside.write("a", "b")
    with closing(beside.open()) as model:
        model.tidy()
        assert log_files.first_needed(beside.folder) is None
        model.catch_up()
        model.tidy()
        assert log_files.first_needed(beside.folder) == 2
        beside.write("c")
        model.catch_up()
        assert log_files.first_needed(beside.folder) == 2
        assert beside.path.with_name("votes.sqlite-wal").stat().st_size > 0
        model.tidy()
        assert log_files.first_needed(beside.folder) == 3
        assert beside.path.with_name("votes.sqlite-wal").stat().st_size == 0
        with closing(sqlite3.connect(f"file:{beside.path}?immutable=1", uri=True)) as what_was_synced:
            assert what_was_synced.execute("SELECT position FROM place").fetchall() == [(3,)]


def test_a_kill_before_the_log_was_told_loses_and_doubles_nothing(
    beside: Beside, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    def kill(*_: object) -> None:
        raise Killed

    beside.write("a", "b")
    with monkeypatch.context() as patched, closing(beside.open()) as model:
        patched.setattr(LocalReader, "mark_consumed", kill)
        model.catch_up()
        with pytest.raises(Killed):
            model.tidy()
    beside.write("c")
    assert beside.found() == ["a", "b", "c"]


async def test_what_is_of_no_use_goes_in_time(beside: Beside, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where nothing more is written."""
    monkeypatch.setattr(read_model, "FOLLOW_S", 0.01)
    monkeypatch.setattr(read_model, "TIDY_S", 0.01)
    beside.write("a", "useless")
    with closing(beside.open()) as model:
        model.catch_up()
        assert model.names() == ["a", "useless"]
        following = asyncio.create_task(model.follow(asyncio.Lock()))
        await eventually(lambda: model.names() == ["a"])
        following.cancel()
        await asyncio.wait((following,))


class Forgetful(Votes):
    """A vote "forget" takes all others away for good."""

    def apply(self, record: Record, header: Header) -> None:
        super().apply(record, header)
        if header.event_id == "forget":
            self.execute("DELETE FROM vote")
            self.scrub()


def test_a_file_is_written_anew_once_in_a_while_also_after_a_restart(
    beside: Beside, monkeypatch: pytest.MonkeyPatch
) -> None:
    def size() -> int:
        return beside.path.stat().st_size

    beside.write("a" * 30_000, "forget")
    with closing(beside.open(Forgetful)) as model:
        model.catch_up()
    before = size()
    with closing(beside.open(Forgetful)) as model:
        model.tidy()
        assert (small := size()) < before
        beside.write("b" * 30_000, "forget")
        model.catch_up()
        model.tidy()
        assert size() > small
        monkeypatch.setattr(read_model, "SCRUB_S", 0)
        model.tidy()
        assert size() == small


def test_who_meets_a_long_transaction_is_told_to_come_again(beside: Beside, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read_model, "WAIT_S", 0.01)
    asked: list[str] = []

    class Slow(Votes):
        def apply(self, record: Record, header: Header) -> None:
            def ask() -> None:
                with pytest.raises(ReadModelUnavailable, match="votes are being put in order; try again soon"):
                    self.names()
                asked.append(header.event_id)

            meanwhile = threading.Thread(target=ask)
            meanwhile.start()
            meanwhile.join()

    beside.write("a")
    with closing(beside.open(Slow)) as model:
        model.catch_up()
    assert asked == ["a"]


def test_it_may_hold_what_the_log_has_let_go_of(beside: Beside) -> None:
    beside.write("a", "b", "c")
    assert beside.found() == ["a", "b", "c"]
    beside.lose(0)
    beside.write("d")
    assert beside.found() == ["a", "b", "c", "d"]


def test_a_gap_is_passed_over(beside: Beside) -> None:
    beside.write("a")
    assert beside.found() == ["a"]
    beside.write("b", "c", "d")
    for first in log_files.segments(beside.folder)[:-1]:
        beside.lose(first)
    assert beside.found() == ["a", "d"]


def test_other_tables_are_made_anew(beside: Beside) -> None:
    beside.log.append(encode(completion("an answer"))).result(30)
    beside.write("a")
    assert beside.found() == ["a"]
    assert beside.found(Changed) == ["an answer", "a"]
    assert beside.found(Changed) == ["an answer", "a"]


def test_another_log_is_followed_from_its_beginning_and_alone(beside: Beside) -> None:
    beside.write("a")
    assert beside.found() == ["a"]
    beside.log.close()
    beside.folder.rename(beside.folder.with_name("old"))
    beside.log = LocalLog(beside.folder)
    beside.write("b", "c")
    assert beside.found() == ["b", "c"]


def test_a_log_that_was_put_back_is_followed_anew(beside: Beside) -> None:
    beside.write("a", "b")
    beside.found()
    with sqlite3.connect(beside.path) as database:
        database.execute("UPDATE place SET position = 9")
    database.close()
    beside.write("c")
    assert beside.found() == ["a", "b", "c"]


def test_a_damaged_one_is_made_anew_if_the_log_holds_everything(beside: Beside) -> None:
    beside.write("a", "b")
    beside.found()
    beside.path.write_bytes(b"no database" * 1000)
    assert beside.found() == ["a", "b"]
    beside.path.write_bytes(b"no database" * 1000)
    beside.lose(0)
    with pytest.raises(FileDamaged, match=r"votes.sqlite cannot be read .*: bring it back from a backup, or remove it"):
        beside.open()


def test_who_asks_too_early_is_told_how_far_it_is(beside: Beside, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read_model, "BATCH", 1)
    beside.write("a", "b", "c")
    with closing(beside.open()) as model:
        with pytest.raises(ReadModelUnavailable, match="votes are still being read from the log, 1 of 3 records"):
            model.catch_up(within_s=0)
        model.catch_up()
        assert model.names() == ["a", "b", "c"]


async def test_few_records_wait_for_more(beside: Beside, monkeypatch: pytest.MonkeyPatch) -> None:
    """A transaction for each record costs more than all else of it."""
    monkeypatch.setattr(read_model, "FOLLOW_S", 3600.0)
    monkeypatch.setattr(read_model, "FEW", 2)
    beside.write("a", "b", "c", "d", "e")
    with closing(beside.open()) as model:
        following = asyncio.create_task(model.follow(asyncio.Lock()))
        await eventually(lambda: len(model.names()) == 5)
        beside.write("f")
        for _ in range(5):
            await asyncio.to_thread(model.names)
        assert model.names() == ["a", "b", "c", "d", "e"]
        following.cancel()
        await asyncio.wait((following,))


@pytest.mark.parametrize(("records", "limits"), [(5, [2, 2, 2]), (9, [2, 4, 2, 2])])
async def test_one_that_keeps_up_takes_in_few_at_a_time_and_one_far_behind_many(
    beside: Beside, monkeypatch: pytest.MonkeyPatch, records: int, limits: list[int]
) -> None:
    """A thread that computes for long holds up whoever waits for answers."""
    for name, value in {"FOLLOW_S": 3600.0, "PAUSE_S": 0.0, "FEW": 2, "BATCH": 4}.items():
        monkeypatch.setattr(read_model, name, value)
    beside.write(*(f"vote {number}" for number in range(records)))
    with closing(beside.open()) as model:
        advance, asked = model.advance, []
        monkeypatch.setattr(model, "advance", lambda limit: (asked.append(limit), advance(limit))[1])
        following = asyncio.create_task(model.follow(asyncio.Lock()))
        await eventually(lambda: len(model.names()) == records)
        assert asked == limits
        following.cancel()
        await asyncio.wait((following,))


async def test_it_follows_by_itself_and_tries_again(beside: Beside, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read_model, "FOLLOW_S", 0.01)
    with closing(beside.open()) as model:
        following = asyncio.create_task(model.follow(asyncio.Lock()))
        beside.write("a")
        await eventually(lambda: model.names() == ["a"])
        model.broken = True
        beside.write("unlucky")
        with pytest.raises(ReadModelUnavailable):
            await asyncio.to_thread(model.catch_up)
        model.broken = False
        await eventually(lambda: model.names() == ["a", "unlucky"])
        following.cancel()
        await asyncio.wait((following,))


def test_others_of_the_machine_read_nothing(beside: Beside) -> None:
    beside.write("a")
    with closing(beside.open()) as model:
        model.catch_up()
        assert beside.path.parent.stat().st_mode & 0o077 == 0
        assert {path.stat().st_mode & 0o777 for path in beside.path.parent.iterdir()} == {0o600}
