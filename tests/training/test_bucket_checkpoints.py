"""Checkpoints in a bucket: a trainer elsewhere goes on from the newest one, and whoever it replaced is fenced."""

import errno
import json
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch

from rlhf_online.config import VersionsSettings
from rlhf_online.errors import CheckpointError, Fenced, StoreUnavailable
from rlhf_online.eventlog.gap import Place
from rlhf_online.training import checkpoint
from rlhf_online.training.bucket_checkpoints import BLOBS, KEPT, BucketCheckpoints
from rlhf_online.training.checkpoint import CheckpointPart, Checkpoints
from rlhf_online.versions.bucket import Bucket, Object
from tests.support.object_server import BUCKET, FULL, ObjectServer, environment, object_server
from tests.support.trainer_world import world


class Alone:
    """The lease of a machine that no other trainer shares, until it is `lost`."""

    epoch = 1
    lost = False

    def check(self) -> None:
        pass

    def guard(self) -> AbstractContextManager[None]:
        if self.lost:
            raise Fenced("another trainer has taken over")
        return nullcontext()


class Machines:
    """Trainers' machines, each with a folder of its own, that share one bucket."""

    def __init__(self, folder: Path, server: ObjectServer) -> None:
        self.folder = folder
        self.server = server
        self.bucket = Bucket(f"s3://{BUCKET}/{folder.name}")
        self._starts = 0

    def start(self, name: str, keep: int = 2) -> Checkpoints:
        """A trainer that starts there."""
        self._starts += 1
        there = BucketCheckpoints(self.bucket, f"{name}, start {self._starts}")
        return Checkpoints(self.folder / name, keep, Alone(), there)

    def blobs(self) -> set[str]:
        return {each.name for each in self.bucket.listed(BLOBS)}

    def record(self) -> dict[str, Any]:
        found = self.bucket.get(KEPT)
        assert found is not None
        return json.loads(found.data)


@pytest.fixture(scope="module")
def server() -> Iterator[ObjectServer]:
    with object_server() as server:
        yield server


@pytest.fixture
def machines(server: ObjectServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machines]:
    for name, value in environment(server.port).items():
        monkeypatch.setenv(name, value)
    yield Machines(tmp_path, server)
    server.relent()


def save(checkpoints: Checkpoints, n: int) -> None:
    """A checkpoint with a part of its own, one that is as it was, and a sealed file."""
    name = f"0000{n}.bin"
    checkpoints.ledger_folder.mkdir(parents=True, exist_ok=True)
    (checkpoints.ledger_folder / name).write_bytes(bytes([n]) * 100)
    first = checkpoints.last is None
    policy = CheckpointPart({"w": torch.full((3,), float(n))}, {"updates": n})
    reward = CheckpointPart({"w": torch.zeros(3)}, {}) if first else None
    place = Place("a log", {"0": 10 * n})
    checkpoints.save({"n": n}, {"policy": policy, "reward": reward}, {"ledger": [name]}, place)


def state(checkpoints: Checkpoints) -> dict[str, Any] | None:
    found = checkpoints.load()
    return None if found is None else found.state


def test_another_machine_goes_on_from_the_newest_checkpoint(machines: Machines) -> None:
    first = machines.start("a")
    assert state(first) is None
    save(first, 1)
    save(first, 2)
    second = machines.start("b")
    found = second.load()
    assert found is not None and found.state == {"n": 2} and found.sealed == {"ledger": ("00002.bin",), "answers": ()}
    assert found.part("policy").tensors["w"].tolist() == [2.0, 2.0, 2.0]
    assert found.part("reward").tensors["w"].tolist() == [0.0, 0.0, 0.0]
    assert (second.ledger_folder / "00002.bin").read_bytes() == bytes([2]) * 100
    assert second.position() == {"0": 10}, "the older one, which is in the bucket alone, may be gone back to"
    save(second, 3)
    assert state(Checkpoints(machines.folder / "b", 2)) == {"n": 3}, "the folder is whole without the bucket"


def test_a_file_that_checkpoints_share_is_sent_once_and_goes_with_the_last_of_them(machines: Machines) -> None:
    checkpoints = machines.start("a")
    checkpoints.load()
    for n in (1, 2, 3):
        save(checkpoints, n)
    uploads = [path for method, path, *_ in machines.server.requests() if method == "PUT" and f"/{BLOBS}/" in path]
    assert len(uploads) == len(set(uploads))
    kept = machines.record()["kept"]
    named = {item["sha256"] for each in kept for kind in ("files", "ledger", "answers") for item in each[kind].values()}
    assert [each["number"] for each in kept] == [1, 2] and machines.blobs() == named


def test_of_two_trainers_the_one_that_started_last_saves_and_the_other_is_told(machines: Machines) -> None:
    first = machines.start("a")
    first.load()
    save(first, 1)
    second = machines.start("b")
    assert state(second) == {"n": 1}
    with pytest.raises(Fenced, match=r"another trainer \(b, start 2\) saves the checkpoints in s3://"):
        save(first, 5)
    save(second, 2)
    with pytest.raises(Fenced):
        save(first, 6)
    assert state(machines.start("c")) == {"n": 2}


def test_who_is_overtaken_while_it_claims_claims_again(machines: Machines, monkeypatch: pytest.MonkeyPatch) -> None:
    slow, quick = machines.start("a"), machines.start("b")
    put, overtaken = Bucket.put, False

    def overtakes(bucket: Bucket, key: str, data: bytes, known: Object | None) -> Object | None:
        nonlocal overtaken
        if not overtaken:
            overtaken = True
            quick.load()
            save(quick, 1)
        return put(bucket, key, data, known)

    monkeypatch.setattr(Bucket, "put", overtakes)
    assert state(slow) == {"n": 1}
    with pytest.raises(Fenced):
        save(quick, 2)
    save(slow, 2)
    assert state(machines.start("c")) == {"n": 2}


def test_whose_lease_is_lost_while_files_are_sent_names_no_checkpoint(
    machines: Machines, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease = Alone()
    checkpoints = Checkpoints(machines.folder / "a", 2, lease, BucketCheckpoints(machines.bucket, "a"))
    checkpoints.load()
    save(checkpoints, 1)
    before = machines.record()
    monkeypatch.setattr(BucketCheckpoints, "upload", lambda *_: setattr(lease, "lost", True))
    with pytest.raises(Fenced):
        save(checkpoints, 2)
    assert machines.record() == before


def test_a_commit_whose_answer_was_lost_is_no_other_trainers(
    machines: Machines, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints, put = machines.start("a"), Bucket.put
    checkpoints.load()

    def answer_lost(bucket: Bucket, key: str, data: bytes, known: Object | None) -> Object | None:
        put(bucket, key, data, known)
        raise StoreUnavailable("no answer in time")

    monkeypatch.setattr(Bucket, "put", answer_lost)
    with pytest.raises(CheckpointError, match="no answer in time"):
        save(checkpoints, 1)
    monkeypatch.setattr(Bucket, "put", put)
    save(checkpoints, 1)
    save(checkpoints, 2)
    assert state(machines.start("b")) == {"n": 2}


def test_while_the_bucket_takes_nothing_nothing_is_saved_and_later_it_is(machines: Machines) -> None:
    checkpoints = machines.start("a")
    checkpoints.load()
    save(checkpoints, 1)
    machines.server.refuse(FULL, "PUT POST")
    with pytest.raises(CheckpointError, match=r"storage is full.*training pauses until it can") as told:
        save(checkpoints, 2)
    assert "free disk space" not in str(told.value)
    assert state(Checkpoints(machines.folder / "a", 2)) == {"n": 1}
    machines.server.relent()
    save(checkpoints, 2)
    assert state(machines.start("b")) == {"n": 2}


def test_what_a_trainer_uploaded_before_it_was_killed_is_removed_by_the_next_one(machines: Machines) -> None:
    checkpoints = machines.start("a")
    checkpoints.load()
    save(checkpoints, 1)
    before = machines.blobs()
    machines.server.refuse(FULL, "PUT POST", path=KEPT)  # as if it had ended there
    with pytest.raises(CheckpointError):
        save(checkpoints, 2)
    machines.server.relent()
    assert machines.blobs() > before
    assert state(machines.start("b")) == {"n": 1} and machines.blobs() == before


@pytest.mark.parametrize(("whose", "call"), [(Bucket, "listed"), (BucketCheckpoints, "_delete")])
def test_a_trainer_that_is_replaced_while_it_clears_up_takes_nothing_from_the_next_one(
    machines: Machines, monkeypatch: pytest.MonkeyPatch, whose: type, call: str
) -> None:
    """It sleeps right before the call; the other one meanwhile uploads what a third had left, and more."""
    left = machines.start("a")
    left.load()
    machines.server.refuse(FULL, "PUT POST", path=KEPT)
    with pytest.raises(CheckpointError):
        save(left, 1)
    machines.server.relent()
    held_up, next_one = machines.start("b"), machines.start("c")
    called, slept = getattr(whose, call), False

    def sleeps(*arguments: Any) -> Any:
        nonlocal slept
        if not slept:
            slept = True
            next_one.load()
            save(next_one, 1)
            save(next_one, 2)
        return called(*arguments)

    monkeypatch.setattr(whose, call, sleeps)
    held_up.load()
    assert state(machines.start("d")) == {"n": 2}


def test_a_trainer_killed_after_the_bucket_named_its_checkpoint_goes_on_from_it(
    machines: Machines, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints = machines.start("a")
    checkpoints.load()
    save(checkpoints, 1)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Checkpoints, "_commit", killed)
        save(checkpoints, 2)
    again = machines.start("a")
    assert state(again) == {"n": 2}
    save(again, 3)
    assert state(machines.start("b")) == {"n": 3}


def test_a_machine_that_comes_back_takes_what_others_saved_meanwhile(machines: Machines) -> None:
    first = machines.start("a", keep=3)
    first.load()
    for n in (1, 2):
        save(first, n)
    second = machines.start("b", keep=3)
    second.load()
    # What the first one had saved without the other's knowledge, as if from an older life.
    shutil.copytree(machines.folder / "a" / "000001", machines.folder / "a" / "000002")
    for n in (3, 4):
        save(second, n)
    assert state(machines.start("a", keep=3)) == {"n": 4}
    kept = {path.name for path in (machines.folder / "a").iterdir() if path.name.isdigit()}
    assert kept <= {"000001", "000002", "000003"}
    named = {each["number"]: each["files"] for each in machines.record()["kept"]}
    for number in kept:
        manifest = json.loads((machines.folder / "a" / number / "manifest.json").read_text())
        assert manifest["files"] == named[int(number)], "of another life"
    assert json.loads((machines.folder / "a" / "000003" / "state.json").read_text())["n"] == 4


def test_a_folder_that_went_on_without_the_bucket_is_refused(machines: Machines) -> None:
    checkpoints = machines.start("a")
    checkpoints.load()
    save(checkpoints, 1)
    alone = Checkpoints(machines.folder / "a", 2, Alone())
    alone.load()
    save(alone, 2)
    with pytest.raises(CheckpointError, match=r"is 1, and that in the bucket 0.*checkpoints/kept to go on"):
        machines.start("a").load()
    machines.bucket.delete([KEPT])
    with_it = machines.start("a")
    assert state(with_it) == {"n": 2}
    save(with_it, 3)
    assert state(machines.start("b")) == {"n": 3}


def damage(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    for parity in path.parent.glob("*.parity"):
        parity.unlink()


def test_a_damaged_file_is_fetched_anew_and_one_that_the_bucket_lost_costs_a_checkpoint(machines: Machines) -> None:
    checkpoints = machines.start("a")
    checkpoints.load()
    save(checkpoints, 1)
    save(checkpoints, 2)
    newest = machines.folder / "a" / "000001"
    damage(newest / "policy.safetensors")
    again = machines.start("a")
    assert state(again) == {"n": 2} and again.last is not None
    assert again.last.part("policy").tensors["w"].tolist() == [2.0, 2.0, 2.0]
    there = f"{BLOBS}/{again.last.files['policy.safetensors'].sha256}"
    machines.bucket.upload(there, newest / "state.json")
    assert state(machines.start("b")) == {"n": 1}, "what came is not what the manifest names"
    machines.bucket.delete([there])
    assert state(machines.start("c")) == {"n": 1}


def test_a_disk_too_full_to_fetch_a_checkpoint_is_waited_for_and_costs_none(
    machines: Machines, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints = machines.start("a")
    checkpoints.load()
    save(checkpoints, 1)
    save(checkpoints, 2)

    def full(_: BucketCheckpoints, sha256: str, path: Path) -> None:
        path.write_bytes(b"what had room")
        raise OSError(errno.ENOSPC, "No space left on device")

    elsewhere = machines.start("b")
    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space left"):
        patch.setattr(BucketCheckpoints, "fetch", full)
        elsewhere.load()
    assert not [path for path in (machines.folder / "b").rglob("*") if path.is_file()], "what was fetched takes no room"
    assert state(elsewhere) == {"n": 2}


def test_a_disk_that_is_full_costs_no_checkpoint_in_the_bucket(
    machines: Machines, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Were it named there first, each try would be one more, and the older ones, to go back to, would go."""
    checkpoints = machines.start("a")
    checkpoints.load()
    save(checkpoints, 1)
    save(checkpoints, 2)

    def full(path: Path, values: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    write = checkpoint.write_values
    with monkeypatch.context() as patch:
        patch.setattr(
            checkpoint, "write_values", lambda path, values: (full if "manifest" in path.name else write)(path, values)
        )
        for _ in range(3):
            with pytest.raises(CheckpointError, match="free disk space"):
                save(checkpoints, 3)
    assert [each["number"] for each in machines.record()["kept"]] == [0, 1]
    save(checkpoints, 3)
    assert state(machines.start("b")) == {"n": 3}


@pytest.mark.parametrize("name", ["../../elsewhere", "..", "/tmp/elsewhere"])
def test_a_record_that_names_files_elsewhere_writes_none(machines: Machines, name: str) -> None:
    checkpoints = machines.start("a")
    checkpoints.load()
    save(checkpoints, 1)
    found = machines.bucket.get(KEPT)
    assert found is not None
    values = json.loads(found.data)
    files = values["kept"][0]["files"]
    files[name] = files.pop("state.json")
    machines.bucket.put(KEPT, json.dumps(values).encode(), found)
    with pytest.raises(
        CheckpointError, match=r"none of the 1 checkpoints.*move it away and remove s3://.*checkpoints/kept to learn"
    ):
        machines.start("b").load()
    assert not list(machines.folder.glob("elsewhere")) and not (machines.folder / "b" / "elsewhere").exists()


@pytest.mark.parametrize("record", [b"\xff", b"[]", b'{"holder": "a", "kept": [{"number": 1}]}'])
def test_a_record_that_cannot_be_read_is_named_and_never_a_new_start(machines: Machines, record: bytes) -> None:
    machines.bucket.put(KEPT, record, None)
    with pytest.raises(CheckpointError, match=r"checkpoints/kept cannot be read .*bring back an earlier version"):
        machines.start("a").load()


def test_the_trainer_goes_on_on_another_machine_and_learns_nothing_twice(machines: Machines) -> None:
    versions = VersionsSettings(url=f"s3://{BUCKET}/{machines.folder.name}")
    with world(machines.folder / "w", versions=versions) as tiny:
        with tiny.trainer() as trainer:
            tiny.chat(20)
            assert trainer.run_once()
            taken, learned = trainer.parts.ledger.counts(), trainer.progress.policy_version
        assert taken["trained"] + taken["held_out"] == 20
        shutil.rmtree(tiny.state.checkpoints)  # the log and the versions are elsewhere; the trainer's disk is lost
        with tiny.trainer() as trainer:
            assert trainer.progress.policy_version == learned and trainer.parts.ledger.counts() == taken
            tiny.chat(20)
            assert trainer.run_once()
            assert (after := trainer.parts.ledger.counts())["trained"] + after["held_out"] == 40


def test_versions_in_a_folder_that_all_reach_leave_checkpoints_where_they_are(tmp_path: Path) -> None:
    versions = VersionsSettings(url=f"file:{tmp_path / 'shared'}")
    with world(tmp_path / "w", versions=versions) as tiny, tiny.trainer() as trainer:
        tiny.chat(20)
        assert trainer.run_once()
        assert (tiny.state.checkpoints / "000000" / "manifest.json").is_file()
        assert (tmp_path / "shared" / "live" / "policy").is_file()
