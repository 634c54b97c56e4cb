"""The auditor finds what each broken order of steps does, and nothing where the order is right."""

import ast
import shutil
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path

import pytest

from rlhf_online.durable import write_json
from rlhf_online.eventlog.local import LocalLog
from rlhf_online.training.intake import joined_votes
from rlhf_online.training.ledger import Ledger
from rlhf_online.wire import encode
from tests.faults import auditor
from tests.faults.auditor import audit
from tests.support.logged import thumb
from tests.support.trainer_world import World, world

PREFIX = "rlhf_online"


def test_it_shares_no_code_with_what_it_checks() -> None:
    assert auditor.__file__ is not None
    tree = ast.parse(Path(auditor.__file__).read_text())
    imported = [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    imported += [name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names]
    assert [name for name in imported if name.startswith((PREFIX, "services"))] == ["rlhf_online.proto.rlhf.v1"]


# The log


class PowerFailure:
    """Stands in for fdatasync; before each call it keeps the folder as a power failure would leave it at this moment.

    Of each segment that is what was synced before; `acknowledged` are the ids that clients had been told of by then.
    """

    def __init__(self, folder: Path, aside: Path, futures: dict[str, Future[int]]) -> None:
        self._folder, self._aside, self._futures = folder, aside, futures
        self._synced: dict[str, int] = {}
        self.moments: list[tuple[Path, set[str]]] = []

    def __call__(self, descriptor: int) -> None:
        moment = self._aside / str(len(self.moments))
        shutil.copytree(self._folder, moment / "log")
        for path in (moment / "log").glob("*.log"):
            with path.open("r+b") as file:
                file.truncate(self._synced.get(path.name, 0))
        told = {event_id for event_id, future in list(self._futures.items()) if future.done()}
        self.moments.append((moment, told))
        self._synced = {path.name: path.stat().st_size for path in self._folder.glob("*.log")}


def _power_failures(tmp_path: Path, kind: type[LocalLog] = LocalLog) -> list[list[str]]:
    """What the auditor says at each moment of a log that takes forty votes."""
    futures: dict[str, Future[int]] = {}
    failure = PowerFailure(tmp_path / "state" / "log", tmp_path / "moments", futures)
    with kind(tmp_path / "state" / "log", segment_bytes=1000, sync=failure) as log:
        for number in range(40):
            futures[f"vote-{number}"] = log.append(encode(thumb("c", event_id=f"vote-{number}")))
            futures[f"vote-{number}"].result(30)
    assert len(failure.moments) == 40
    return [audit(moment, told).problems for moment, told in failure.moments]


def test_no_power_failure_takes_an_acknowledged_vote(tmp_path: Path) -> None:
    assert _power_failures(tmp_path) == [[]] * 40


class Hasty(LocalLog):
    """Acknowledges a record when it is queued, and takes the next one when it is durable."""

    durable: Future[int] | None = None

    def append(self, payload: bytes) -> Future[int]:
        if self.durable is not None:
            self.durable.result(30)
        self.durable = super().append(payload)
        acknowledged: Future[int] = Future()
        acknowledged.set_result(0)
        return acknowledged


def test_it_finds_a_log_that_acknowledges_before_the_fsync(tmp_path: Path) -> None:
    said = _power_failures(tmp_path, Hasty)
    assert all("1 acknowledged events are lost" in sentence for [sentence] in said)


# The trainer


@pytest.fixture
def tiny(tmp_path: Path) -> Iterator[World]:
    with world(tmp_path) as made:
        yield made


def _cycle(tiny: World) -> None:
    with tiny.trainer() as trainer:
        while trainer.run_once():
            pass


def test_the_books_of_a_trainer_are_right(tiny: World) -> None:
    tiny.chat(20)
    _cycle(tiny)
    ghost = tiny.orphan(created_ms=1_000_100)
    tiny.chat(3)
    report = audit(tiny.state.root, tiny.accepted)
    assert report.problems == []
    assert report.fate["pending"] == 4, f"three votes and {ghost} were not read yet"
    assert report.fate["trained"] + report.fate["held_out"] == 20
    tiny.chat(20)
    _cycle(tiny)
    report = audit(tiny.state.root, tiny.accepted)
    assert report.problems == []
    assert report.fate["pending"] == 1, "the one whose answer never comes"
    assert sum(report.fate.values()) == report.accepted == len(tiny.accepted) == 44


def test_what_was_taken_back_has_its_place_in_the_books(tmp_path: Path) -> None:
    votes = ["kept", "changed", "withdrawal"]
    with LocalLog(tmp_path / "log") as log:
        for event_id in votes:
            log.append(encode(thumb("c", event_id=event_id))).result(30)
    fates = [(0, "kept"), (5, "changed"), (5, "withdrawal")]
    (tmp_path / "checkpoints" / "ledger").mkdir(parents=True)
    entries = [bytes([number]) + auditor.digest(event_id) for number, event_id in fates]
    (tmp_path / "checkpoints" / "ledger" / "ids").write_bytes(b"".join(entries))
    newest = tmp_path / "checkpoints" / "000001"
    write_json(newest / "intake.json", {"join": {"pending": [], "pushed_out": []}, "votes": []})
    write_json(newest / "manifest.json", {"ledger": {"ids": {}}, "log": {"position": {"local": 3}}})
    report = audit(tmp_path, votes)
    assert (report.problems, report.fate["trained"], report.fate["withdrawn"]) == ([], 1, 2)


def test_it_finds_votes_that_never_reached_the_log(tiny: World) -> None:
    tiny.chat(3)
    assert audit(tiny.state.root, [*tiny.accepted, "vote-99"]).lost == {"vote-99"}


def test_it_finds_a_position_that_is_committed_before_the_training(
    tiny: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The position moves on, what was learned up to it is not in the checkpoint: a kill then passes votes over."""
    tiny.chat(20)
    monkeypatch.setattr(Ledger, "seal", lambda ledger, folder: [])
    with tiny.trainer() as trainer:
        trainer.run_once()
    assert "20 votes were passed over" in " ".join(audit(tiny.state.root, tiny.accepted).problems)


def test_it_finds_training_that_is_committed_before_the_position(tiny: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was learned is in the checkpoint, the position is the old one: a kill then trains on votes again."""
    monkeypatch.setattr(joined_votes, "SUBJECTS", 0)  # the intake would take them for revisions
    tiny.chat(20)
    _cycle(tiny)
    monkeypatch.setattr(Ledger, "known", lambda ledger, event_id: False)  # the ledger would notice
    with tiny.trainer() as trainer:
        trainer.parts.intake.position = {}
        trainer.run_once()
    report = audit(tiny.state.root, tiny.accepted)
    assert "events were taken twice" in " ".join(report.problems)
    assert report.fate["trained"] + report.fate["held_out"] == 40


def test_its_command_line_prints_the_books(tiny: World, tmp_path: Path, monkeypatch, capsys) -> None:
    tiny.chat(3)
    (tmp_path / "acknowledged").write_text("\n".join(tiny.accepted))
    monkeypatch.setattr(
        "sys.argv", ["auditor", "--state", str(tiny.state.root), "--acknowledged", str(tmp_path / "acknowledged")]
    )
    assert auditor.main() == 0
    assert "accepted 3: in Kafka 0, spooled 0; pending 3; twice 0" in capsys.readouterr().out
    with (tmp_path / "acknowledged").open("a") as file:
        file.write("\nvote-99")
    assert auditor.main() == 1
    assert "1 acknowledged events are lost, such as vote-99" in capsys.readouterr().err
