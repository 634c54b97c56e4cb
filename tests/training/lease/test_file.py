"""Two trainers: the second is kept out; where it comes in all the same, the one with the lower epoch is fenced off."""

import fcntl
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from itertools import groupby
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from safetensors import SafetensorError

from rlhf_online.config import dump
from rlhf_online.errors import CheckpointError, Fenced
from rlhf_online.eventlog.gap import Place
from rlhf_online.training.checkpoint import CheckpointPart, Checkpoints
from rlhf_online.training.lease import file as module
from rlhf_online.training.lease.file import Fence, FileLease
from rlhf_online.training.progress import JudgedVersion, Progress
from rlhf_online.training.publication import Publisher
from rlhf_online.versions import open_registry
from rlhf_online.versions.manifest import Manifest
from rlhf_online.versions.registry import Registry
from tests.faults import auditor
from tests.support.trainer_world import world
from tests.support.waiting import until

ROOT = Path(__file__).resolve().parents[3]
HOLDER = (
    "import sys\nfrom pathlib import Path\nfrom rlhf_online.training.lease import FileLease\n"
    "with FileLease.take(Path(sys.argv[1])) as lease:\n    print(lease.epoch, file=sys.stderr)\n    sys.stdin.read()"
)


@contextmanager
def holder(folder: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A process that takes the lease, with what it says: its epoch, or why not. It is killed in the end."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder)],
        cwd=ROOT,
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    try:
        assert process.stderr is not None
        line = process.stderr.readline()
        yield process, line if line.strip().isdigit() else line + process.stderr.read()
    finally:
        process.kill()
        process.communicate()


@contextmanager
def usurper(folder: Path) -> Iterator[FileLease]:
    """The lease of a trainer that came in past the lock, as a pod on another node would."""
    (folder / "lock").unlink()
    with FileLease.take(folder) as lease:
        yield lease


def save(checkpoints: Checkpoints, number: int) -> None:
    checkpoints.save(
        {"n": number}, {"intake": CheckpointPart({}, {"n": number})}, {}, Place("a log", {"local": number})
    )


def content(root: Path) -> dict[str, bytes]:
    """Every file, but what is only staged."""
    files = [path for path in root.rglob("*") if path.is_file() and ".staging" not in str(path)]
    return {str(path.relative_to(root)): path.read_bytes() for path in files if path.name != "lock"}


# Taking it


def test_a_second_trainer_is_kept_out_by_name(tmp_path: Path) -> None:
    with FileLease.take(tmp_path) as lease:
        with holder(tmp_path) as (_, said):
            assert (
                f"CheckpointError: another trainer (process {os.getpid()}) works on {tmp_path}: stop it first" in said
            )
        lease.check()
    with holder(tmp_path) as (_, said):
        assert said == "2\n"


def test_epochs_rise_over_restarts_and_kills(tmp_path: Path) -> None:
    for epoch in (1, 2, 3):
        with holder(tmp_path) as (process, said):
            assert said == f"{epoch}\n"
            if epoch != 2:
                process.send_signal(signal.SIGKILL)
            process.communicate("")
    with FileLease.take(tmp_path) as lease:
        assert lease.epoch == 4


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"epoch": "x", "holder": ""}', None])
def test_a_lost_epoch_file_does_not_turn_the_epoch_back(tmp_path: Path, damage: str | None) -> None:
    for number in range(3):
        with FileLease.take(tmp_path) as lease:
            save(Checkpoints(tmp_path, 2, lease), number)
    file = tmp_path / "epoch.json"
    with FileLease.take(tmp_path) as lease:  # epoch 4, without a checkpoint
        file.unlink() if damage is None else file.write_text(damage)
        with pytest.raises(Fenced, match=r"holds epoch 4 of .* no more: epoch\.json is missing or damaged"):
            lease.check()
        with usurper(tmp_path) as successor:
            assert successor.epoch == 4
            successor.check()
            with pytest.raises(Fenced, match="epoch 4 was taken"):
                lease.check()
    with FileLease.take(tmp_path) as lease:
        save(Checkpoints(tmp_path, 2, lease), 3)
    assert [json.loads(path.read_text())["epoch"] for path in sorted(tmp_path.glob("*/manifest.json"))] == [3, 5]


def test_an_epoch_below_that_of_a_checkpoint_is_fenced(tmp_path: Path) -> None:
    with FileLease.take(tmp_path) as first:
        before = (tmp_path / "epoch.json").read_bytes()
        with usurper(tmp_path) as second:
            save(Checkpoints(tmp_path, 2, second), 1)
        (tmp_path / "epoch.json").write_bytes(before)  # as from a backup
        with pytest.raises(Fenced):
            first.check()


def test_no_epoch_is_taken_during_a_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STEP_WITHIN_S", 0)
    with FileLease.take(tmp_path) as lease:
        with (
            lease.guard(),
            pytest.raises(CheckpointError, match=r"in the middle of a commit.*fuser .*epoch\.lock"),
            usurper(tmp_path),
        ):
            pytest.fail("the step might be its own")
        lease.check()
        with usurper(tmp_path), pytest.raises(Fenced), lease.guard():
            pytest.fail("it was replaced")


# Checkpoints


def test_the_lower_epoch_saves_nothing(tmp_path: Path) -> None:
    with FileLease.take(tmp_path) as first:
        checkpoints = Checkpoints(tmp_path, 2, first)
        save(checkpoints, 1)
        with usurper(tmp_path) as second:
            before = content(tmp_path)
            with pytest.raises(
                Fenced, match=r"holds epoch 1 .* epoch 2 was taken .* stop the other one and start this"
            ):
                save(checkpoints, 2)
            assert content(tmp_path) == before
            successor = Checkpoints(tmp_path, 2, second)
            assert successor.load() is not None
            save(successor, 3)
    assert json.loads((tmp_path / "000001" / "manifest.json").read_text())["epoch"] == 2


class TakeOver:
    """The lease of a trainer that is replaced at the `moment`-th fsync or guard: the successor loads, saves, stays."""

    def __init__(self, lease: FileLease, moment: int, stack: ExitStack, fsync: Callable[[int], None]) -> None:
        self.epoch = lease.epoch
        self.moments = 0
        self.loaded: int | None = None
        self.files: dict[str, bytes] = {}
        self._lease, self._moment, self._stack, self._fsync = lease, moment, stack, fsync

    def check(self) -> None:
        self._lease.check()

    def guard(self) -> AbstractContextManager[None]:
        self._count()
        return self._lease.guard()

    def fsync(self, descriptor: int) -> None:
        self._fsync(descriptor)
        self._count()

    def _count(self) -> None:
        self.moments += 1
        if self.moments != self._moment:
            return
        with suppress(CheckpointError):  # kept out, in the middle of a step
            folder = self._lease.folder
            successor = Checkpoints(folder, 1, self._stack.enter_context(usurper(folder)))
            newest = successor.load()
            assert newest is not None
            self.loaded = newest.state["n"]
            save(successor, 3)
            self.files = content(folder)


def test_replaced_at_any_moment_of_a_save_it_leaves_what_its_successor_committed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "STEP_WITHIN_S", 0)
    outcomes: list[int | None] = []
    for moment in range(1, 40):
        folder = tmp_path / str(moment)
        with FileLease.take(folder) as lease, ExitStack() as stack, monkeypatch.context() as patch:
            save(Checkpoints(folder, 1, lease), 1)
            replaced = TakeOver(lease, moment, stack, os.fsync)
            patch.setattr(os, "fsync", replaced.fsync)
            fenced = False
            try:
                save(Checkpoints(folder, 1, replaced), 2)
            except Fenced:
                fenced = True
            if replaced.moments < moment:
                break
            assert fenced == (replaced.loaded is not None)
            if fenced:
                assert content(folder) == replaced.files
            outcomes.append(replaced.loaded)
    # Until the rename nothing was committed; in that step nobody takes over; after it the successor builds on it.
    assert [state for state, _ in groupby(outcomes)] == [1, None, 2]


# Versions


@pytest.fixture
def two(tmp_path: Path) -> Iterator[tuple[Registry, Callable[[], FileLease]]]:
    """The registry of a trainer that holds the lease, and what takes the lease from it."""
    with ExitStack() as stack:
        lease = stack.enter_context(FileLease.take(tmp_path / "checkpoints"))
        registry = open_registry(tmp_path / "versions", lease.guard)
        version = registry.reserve("policy")
        write(registry.stage(version))
        registry.publish(Manifest(version=version, tuning="full"))
        registry.promote(version)
        yield registry, lambda: stack.enter_context(usurper(tmp_path / "checkpoints"))


def write(folder: Path) -> None:
    (folder / "weights").write_text("weights")


def manifest(version: str) -> Manifest:
    return Manifest(version=version, tuning="full")


CHANGES: dict[str, Callable[[Registry], object]] = {
    "reserve": lambda registry: registry.reserve("policy"),
    "stage": lambda registry: registry.stage("policy-000005"),
    "publish": lambda registry: registry.publish(manifest("policy-000004")),
    "promote": lambda registry: registry.promote("policy-000002"),
    "reject": lambda registry: registry.mark("policy-000002", "rejected", reason="too long"),
    "rollback": lambda registry: registry.rollback("policy", reason="worse"),
    "prune": lambda registry: registry.prune("policy", 0),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_the_lower_epoch_changes_no_version(
    two: tuple[Registry, Callable[[], FileLease]], change: Callable[[Registry], object], tmp_path: Path
) -> None:
    registry, take_over = two
    live, candidate, rejected, staged = (registry.reserve("policy") for _ in range(4))
    for version in (live, candidate, rejected, staged):
        write(registry.stage(version))
        if version != staged:
            registry.publish(manifest(version))
    registry.promote(live)
    registry.mark(rejected, "rejected", reason="too long")
    take_over()
    before = content(tmp_path / "versions")
    with pytest.raises(Fenced):
        change(registry)
    assert content(tmp_path / "versions") == before
    # Operators and the chat service hold no lease, and go on.
    open_registry(tmp_path / "versions").promote("policy-000002")


@pytest.mark.parametrize("passed", [True, False])
def test_the_lower_epoch_cannot_publish_what_it_committed_and_its_successor_can(
    two: tuple[Registry, Callable[[], FileLease]], passed: bool, tmp_path: Path
) -> None:
    registry, take_over = two
    learners: Any = SimpleNamespace(write_policy=write, write_reward=write)
    publisher = Publisher(registry, learners, "full", 2)
    item = JudgedVersion(
        version=registry.reserve("policy"), tuning="full", parent="policy-000000", reward_version="reward-000000",
        kl=0.5, position={}, probe=(), passed=passed, reasons=(), figures={},
    )  # fmt: skip
    progress = Progress(log_identity="", policy_version="policy-000000", reward_version=registry.reserve("reward"))
    publisher.stage_weights(item)
    successor = take_over()
    before = content(tmp_path / "versions")
    with pytest.raises(Fenced):
        publisher.publish_policy(item, staged=not passed)
    with pytest.raises(Fenced):
        publisher.publish_reward(progress)
    assert content(tmp_path / "versions") == before

    publisher = Publisher(open_registry(tmp_path / "versions", successor.guard), learners, "full", 2)
    publisher.stage_weights(item)
    assert publisher.publish_policy(item, staged=not passed) == ("live" if passed else "rejected")
    assert publisher.publish_reward(progress)
    assert not list((tmp_path / "versions").glob(".staging-*")), "what the other one staged is gone, too"


# Real trainers


def test_a_trainer_that_stood_still_and_was_replaced_ends_when_it_wakes_up(tmp_path: Path) -> None:
    """A is stopped in the middle of a cycle, B takes over and commits, A wakes up: the books are right."""
    with world(tmp_path) as tiny:
        config = tmp_path / "trainer.toml"
        dump(tiny.settings.model_copy(update={"reward_address": tiny.service.address}), config)
        tiny.chat(40)
        checkpoints = tiny.state.checkpoints
        with trainer(config) as a:
            until(lambda: (checkpoints / "000000" / "manifest.json").exists() or a.poll(), 120, "a commit of A")
            stop_between_steps(a, checkpoints)
            (checkpoints / "lock").unlink()
            with trainer(config) as b:
                tiny.chat(20)
                until(lambda: 2 in epochs(checkpoints) or b.poll() is not None, 120, "a commit of B")
                a.send_signal(signal.SIGCONT)
                said = a.communicate(timeout=120)[1]
                assert a.returncode == 1
                assert f"holds epoch 1 of {checkpoints} no more: epoch 2 was taken" in said
                assert "stop the other one and start this one again" in said
                assert b.poll() is None, "B goes on"
        with tiny.trainer() as successor:
            while successor.run_once():
                pass
        report = auditor.audit(tiny.state.root, tiny.accepted)
        assert (report.twice, report.lost, report.problems) == (0, set(), [])
        assert report.fate["trained"] + report.fate["held_out"] + report.fate["pending"] == len(tiny.accepted) == 60


def test_whatever_fails_after_a_takeover_the_reason_is_the_takeover(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The successor removes what the other one was writing, so that one's next step may fail in any way."""

    def fail() -> bool:
        raise SafetensorError("No such file or directory")

    with world(tmp_path) as tiny, tiny.trainer() as trainer:
        monkeypatch.setattr(trainer, "run_once", fail)
        with pytest.raises(SafetensorError):
            trainer.run()
        Fence.begin(tiny.state.checkpoints, "the other")
        with pytest.raises(Fenced, match="epoch 2 was taken"):
            trainer.run()


def epochs(checkpoints: Path) -> set[int]:
    found: set[int] = set()
    for path in checkpoints.glob("*/manifest.json"):
        try:
            found.add(json.loads(path.read_text())["epoch"])
        except FileNotFoundError:  # pruned meanwhile
            continue
    return found


@contextmanager
def trainer(config: Path) -> Iterator[subprocess.Popen[str]]:
    """A trainer's process, killed in the end."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.support.trainer_process", str(config)],
        cwd=ROOT,
        text=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def stop_between_steps(process: subprocess.Popen[str], checkpoints: Path) -> None:
    """SIGSTOP, but not within a step that keeps every other trainer out."""

    def stopped() -> bool:
        process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
        with (checkpoints / "epoch.lock").open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return True
            except BlockingIOError:
                process.send_signal(signal.SIGCONT)
                return False

    until(stopped, 60, "a moment between two steps")
    assert process.poll() is None
