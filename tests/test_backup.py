"""A copy made while people vote and the trainer learns goes on on an empty machine: nothing lost, nothing twice."""

import json
import shutil
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from rlhf_online import sqlite
from rlhf_online.backup import CONTENTS, backup, restore
from rlhf_online.cli import main
from rlhf_online.durable import write_json
from rlhf_online.errors import BackupFailed, InvalidInput
from rlhf_online.events import AnswerRef, Completion, Envelope, Thumb
from rlhf_online.state import StateDir
from tests.faults import auditor
from tests.support.trainer_world import PROMPTS, World, world

CYCLES = 2


@pytest.fixture(scope="module")
def busy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, list[tuple[Path, list[str]]]]]:
    """A folder whose state was copied again and again while two cycles ran and people voted; the copies, oldest first,
    each with the votes that were acknowledged before it began."""
    root = tmp_path_factory.mktemp("busy")
    copies: list[tuple[Path, list[str]]] = []
    with world(root, keep_checkpoints=1) as tiny:
        tiny.state.person_hash().sign(tiny.state.log)
        tiny.state.operator_token()
        tiny.chat(14)
        learned = threading.Event()
        database = sqlite.connect(_folder(tiny.state.annotation) / "queue.sqlite", synchronous="FULL")
        database.execute("CREATE TABLE vote (event_id TEXT)")
        with ThreadPoolExecutor(2) as pool, tiny.trainer() as trainer:
            voting = pool.submit(_vote_on, tiny, learned, database)
            learning = pool.submit(lambda: [trainer.run_once() for _ in range(CYCLES)])
            try:
                while not learning.done():
                    before = list(tiny.accepted)
                    target = root / f"copy-{len(copies)}"
                    backup(tiny.state, target, log=tiny.state.log, versions=True)
                    copies.append((target, before))
            finally:
                learned.set()
            assert learning.result() == [True] * CYCLES
            voting.result()
        database.close()
    yield root, copies


def _folder(path: Path) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    return path


def _vote_on(tiny: World, until: threading.Event, database) -> None:
    """Votes as fast as the log acknowledges them, each noted in a database as well, after it was."""
    prompt = tiny.tokenizer.prompt_ids(tiny.completion(PROMPTS[0], []).messages)
    rollouts = tiny.engine.sample([prompt], 1, 8, 1.0)
    made: Completion | None = None
    number = 0
    while not until.is_set():
        if number % 20 == 0:
            made = tiny.completion(PROMPTS[number % 9], rollouts)
            tiny.append(Envelope(event_id=made.completion_id, event=made))
        assert made is not None
        answer = AnswerRef(completion_id=made.completion_id)
        event_id = tiny.vote(made, Thumb(answer=answer, up=number % 2 == 0), person=f"p{number % 20}")
        database.execute("INSERT INTO vote VALUES (?)", (event_id,))
        number += 1


def test_every_copy_holds_all_that_was_acknowledged_before_it_and_nothing_twice(busy, tmp_path: Path) -> None:
    _, copies = busy
    assert len(copies) > CYCLES, "they were made while it ran"
    checkpoints = set()
    for number, (copy, before) in enumerate(copies):
        state = StateDir(tmp_path / f"{number}")
        checkpoints.add(restore(copy, state).checkpoint)
        if (state.checkpoints).is_dir():
            assert auditor.audit(state.root, before).problems == []
        assert _noted(state) <= _logged(state)
        assert state.person_hash() and (state.root / "person.salt").stat().st_mode & 0o077 == 0
    assert len(checkpoints) > 1, "the trainer committed between them"


def _noted(state: StateDir) -> set[str]:
    database = sqlite.connect(state.annotation / "queue.sqlite", synchronous="FULL")
    try:
        return {event_id for (event_id,) in database.execute("SELECT event_id FROM vote")}
    finally:
        database.close()


def _logged(state: StateDir) -> set[str]:
    return {seen.event_id for seen in auditor._spool(state.log)}  # noqa: SLF001  # code that shares none with the log


def test_restored_on_an_empty_machine_it_has_the_same_digests_and_learns_on(busy, tmp_path: Path) -> None:
    root, copies = busy
    copy, before = copies[-1]
    shutil.copytree(root / "model", tmp_path / "model")
    assert main(["backup", "restore", str(copy), "--state", str(tmp_path / "state")]) == 0
    original = json.loads((copy / CONTENTS).read_text())["checkpoint"]
    manifest = f"checkpoints/{original:06d}/manifest.json"
    assert (tmp_path / "state" / manifest).read_bytes() == (copy / manifest).read_bytes()
    with world(tmp_path) as tiny:
        for version in tiny.registry.versions():
            if tiny.registry.has_weights(version):
                tiny.registry.verify(version)
        was, committed = tiny.registry.live("policy"), len(_entries(tiny))
        tiny.accepted, tiny.conversations = list(before), 10_000
        tiny.chat(10)
        with tiny.trainer() as trainer:
            assert trainer.parts.checkpoints.last is not None and trainer.parts.checkpoints.last.number == original
            assert trainer.run_once()
        live = tiny.registry.live("policy")
        assert was and live and live > was
        ledger = _entries(tiny)
        assert len(ledger) == len(set(ledger)) > committed, "nothing is taken in twice"
        accepted = set(tiny.accepted)
    assert auditor.audit(tmp_path / "state", accepted).problems == []


def _entries(tiny: World) -> list[bytes]:
    return [digest for digests in tiny.ledger().values() for digest in digests]


def test_a_copy_in_which_one_bit_has_flipped_is_refused_and_leaves_nothing(busy, tmp_path: Path) -> None:
    _, copies = busy
    bad = tmp_path / "bad"
    shutil.copytree(copies[-1][0], bad)
    segment = next((bad / "log").glob("*.log"))
    data = bytearray(segment.read_bytes())
    data[len(data) // 2] ^= 1
    segment.write_bytes(bytes(data))
    with pytest.raises(BackupFailed, match=f"{segment.name} is not what was backed up"):
        restore(bad, StateDir(tmp_path / "state"))
    assert not (tmp_path / "state").exists() and [path.name for path in tmp_path.iterdir()] == ["bad"]


def test_what_is_no_backup_and_what_is_in_the_way_is_said(busy, tmp_path: Path) -> None:
    root, copies = busy
    state, copy = StateDir(root / "state"), copies[-1][0]
    with pytest.raises(InvalidInput, match="is there already"):
        backup(state, copy, log=None, versions=True)
    with pytest.raises(InvalidInput, match="is not empty"):
        restore(copy, state)
    with pytest.raises(InvalidInput, match="no state folder at"):
        backup(StateDir(tmp_path / "none"), tmp_path / "copy", log=None, versions=True)
    with pytest.raises(InvalidInput, match="is no backup"):
        restore(tmp_path, StateDir(tmp_path / "state"))
    write_json(tmp_path / CONTENTS, {"format": 1, "checkpoint": 0, "files": {"../x": {"sha256": "", "size": 0}}})
    with pytest.raises(InvalidInput, match="names what is outside"):
        restore(tmp_path, StateDir(tmp_path / "state"))


def test_a_copy_is_brought_back_to_where_one_is_and_never_into_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = StateDir(tmp_path / "state").operator_token()
    backup(StateDir(tmp_path / "state"), tmp_path / "copy", log=None, versions=True)
    (tmp_path / "file").touch()
    with pytest.raises(InvalidInput, match="is a file"):
        restore(tmp_path / "copy", StateDir(tmp_path / "file"))
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    restore(tmp_path / "copy", StateDir(Path(".")))
    assert StateDir(tmp_path / "empty").operator_token() == token


def test_what_is_in_kafka_or_a_bucket_is_not_copied_and_said(busy, tmp_path: Path, capsys, monkeypatch) -> None:
    root, _ = busy
    config = tmp_path / "trainer.toml"
    config.write_text('[log]\nurl = "kafka://127.0.0.1:1"\n[versions]\nurl = "s3://bucket/prefix"\n')
    command = ["backup", "make", str(tmp_path / "copy"), "--state", str(root / "state"), "--config", str(config)]
    assert main(command) == 0
    told = capsys.readouterr().out
    assert "the log is in Kafka" in told and "the versions are in s3://bucket/prefix" in told
    names = {path.name for path in (tmp_path / "copy").iterdir()}
    assert "checkpoints" in names and not names & {"log", "versions", "run", "status"}
