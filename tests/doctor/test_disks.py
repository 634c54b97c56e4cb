"""Disks on which nothing can be kept are named: read-only, full, somebody else's, gone with the container."""

import errno
import os
import subprocess
from pathlib import Path

import pytest

from rlhf_online.doctor import disks
from rlhf_online.doctor.finding import Finding
from tests.support.small_disk import cannot_mount, small_disk


@pytest.fixture
def mounted(tmp_path: Path) -> Path:
    if reason := cannot_mount(tmp_path / "probe"):
        pytest.skip(reason)
    return tmp_path / "disk"


def refused(found: list[Finding]) -> list[str]:
    return [f"{finding.about} {finding.what}" for finding in found if finding.severity == "refuse"]


def test_a_good_disk_is_measured_and_left_as_it_was(tmp_path: Path) -> None:
    (finding,) = [each for each in disks.disk(tmp_path, 0) if "fsync" in each.what]
    assert finding.severity == "ok" and "MB/s" in finding.what
    assert list(tmp_path.iterdir()) == []


def test_a_read_only_volume_is_named(mounted: Path) -> None:
    with small_disk(mounted, 8):
        subprocess.run(["mount", "-o", "remount,ro", str(mounted)], check=True)
        assert refused(disks.disk(mounted, 0)) == [f"disk of {mounted} is read-only"]
        below = mounted / "checkpoints"
        assert refused(disks.disk(below, 0)) == [f"disk of {below} is not there and cannot be made in {mounted}"]


def test_a_full_volume_is_named_and_how_much_it_should_have(mounted: Path) -> None:
    with small_disk(mounted, 8) as disk:
        disk.fill()
        found = refused(disks.disk(mounted, 1 << 30))
        assert found == [
            f"disk of {mounted} has 0.00 GiB free, and 1.0 are needed to go on for a while",
            f"disk of {mounted} is full",
        ]
        disk.free()
        assert refused(disks.disk(mounted, 1)) == []


def test_what_goes_with_the_container_is_told(mounted: Path) -> None:
    with small_disk(mounted, 32):
        (finding,) = [each for each in disks.disk(mounted, 0) if "memory" in each.what]
        assert finding.severity == "warn" and "PersistentVolumeClaim" in finding.todo


def test_a_folder_that_this_user_may_not_write_is_named(tmp_path: Path) -> None:
    """In a process of another user: root may write everywhere."""
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    folder = tmp_path / "closed"
    folder.mkdir(mode=0o755)
    for above in (tmp_path, *tmp_path.parents):
        if above != Path("/") and above.stat().st_uid == 0:
            above.chmod(above.stat().st_mode | 0o055)
    reader, writer = os.pipe()
    if (child := os.fork()) == 0:
        os.setgid(4711)
        os.setuid(4711)
        os.write(writer, "\n".join(refused(disks.disk(folder, 0))).encode())
        os._exit(0)
    os.close(writer)
    os.waitpid(child, 0)
    with os.fdopen(reader) as told:
        assert told.read() == f"disk of {folder} may not be written by user 4711"


def test_a_file_in_the_place_of_the_state_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("")
    assert refused(disks.disk(tmp_path / "state", 0)) == [
        f"disk of {tmp_path / 'state'} {tmp_path / 'state'} is no folder"
    ]


def test_each_disk_is_measured_once_and_each_folder_of_it_tried(mounted: Path, tmp_path: Path) -> None:
    state = tmp_path / "state"
    (state / "log").mkdir(parents=True)
    with small_disk(state / "checkpoints", 8) as disk:
        disk.fill()
        found = disks.folders([state, state / "log", state / "checkpoints", state / "versions"], 0)
        assert refused(found) == [f"disk of {state / 'checkpoints'} is full"]
        assert len([each for each in found if "fsync" in each.what]) == 1


def test_a_disk_on_which_people_wait_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disks, "SLOW_FSYNC_S", 0.0)
    assert any("each vote waits for an fsync" in each.what for each in disks.disk(tmp_path, 0))


def test_another_error_of_the_disk_is_told_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(descriptor: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", broken)
    assert refused(disks.disk(tmp_path, 0)) == [f"disk of {tmp_path} cannot be written (Input/output error)"]
