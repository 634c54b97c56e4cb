"""The switch of learning: a record beside the live version."""

from collections.abc import Callable
from pathlib import Path

import pytest

from rlhf_online import learning
from rlhf_online.cli import main
from rlhf_online.learning import Switch
from rlhf_online.state import StateDir
from rlhf_online.versions import open_registry
from rlhf_online.versions.folder_store import FolderStore
from rlhf_online.versions.store import VersionStore
from tests.support.memory_store import MemoryStore


@pytest.fixture(params=["folder", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> VersionStore:
    return FolderStore(tmp_path / "versions") if request.param == "folder" else MemoryStore(tmp_path)


def test_learning_goes_on_until_it_is_paused_and_then_until_it_is_resumed(store: VersionStore) -> None:
    assert learning.read(store) == Switch() == learning.resume(store)
    paused = learning.pause(store, "odd votes")
    assert learning.read(store) == paused and paused.paused and paused.reason == "odd votes"
    assert learning.pause(store, "another reason") == paused, "it is paused already"
    resumed = learning.resume(store)
    assert learning.read(store) == resumed == learning.resume(store) and not resumed.paused
    assert resumed.changed_ms >= paused.changed_ms > 0


@pytest.mark.parametrize(
    "recorded", ["", "{", "[]", '{"paused": 1}', '{"paused":"no","reason":"","changed_ms":1}', "null"]
)
@pytest.mark.parametrize("change", [learning.pause, learning.resume])
def test_a_damaged_record_counts_as_paused_and_is_written_anew(
    store: VersionStore, recorded: str, change: Callable[[VersionStore], Switch]
) -> None:
    assert store.replace("learning", recorded, expected=None)
    found = learning.read(store)
    assert found.paused and "learning resume" in found.reason
    assert learning.read(store) == found
    change(store)
    assert learning.read(store) == Switch(
        paused=change is learning.pause, reason="", changed_ms=learning.read(store).changed_ms
    )


def test_a_later_release_may_say_more(store: VersionStore) -> None:
    said = '{"paused": false, "reason": "", "changed_ms": 7, "until_ms": 9}'
    assert store.replace("learning", said, expected=None)
    assert learning.read(store) == Switch(changed_ms=7)


def test_it_is_paused_and_resumed_by_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = ["--state", str(tmp_path)]
    registry = open_registry(StateDir(tmp_path).versions)
    assert main(["learning", "status", *folder]) == 0
    assert capsys.readouterr().out == "the models learn\n"
    assert main(["learning", "pause", "--reason", "odd votes", *folder]) == 0
    assert learning.read(registry.store).paused
    assert capsys.readouterr().out.startswith("paused since 20") and learning.read(registry.store).reason == "odd votes"
    assert main(["learning", "resume", *folder]) == 0
    assert not learning.read(registry.store).paused
    assert main(["learning", "pause", "--state", str(tmp_path / "none")]) == 2, "no folder is made for a mistyped path"
