"""The layout in a folder, written and read; and what is found to be damaged there."""

import json
from pathlib import Path

import pytest

from rlhf_online.config import VersionsSettings
from rlhf_online.errors import VersionCorrupt
from rlhf_online.versions import open_registry
from rlhf_online.versions.folder_store import FolderStore
from rlhf_online.versions.manifest import Manifest, Status
from rlhf_online.versions.registry import Registry
from rlhf_online.versions.summary import summaries

FILE = {"path": "w", "sha256": "2ab1de49d36e8af8104b9e1cd09ec4a56f2a5bbb4a4d5a0d9bb2ee9c6a6c49ee", "size": 1}


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return open_registry(tmp_path)


def publish(registry: Registry) -> str:
    version = registry.reserve("policy")
    (registry.stage(version) / "model.safetensors").write_text("weights")
    registry.publish(Manifest(version=version, tuning="full", kl=0.5))
    return version


def test_a_folder_that_all_reach_is_named_by_its_address(tmp_path: Path) -> None:
    shared, own = tmp_path / "shared", tmp_path / "state" / "versions"
    registry = open_registry(own, settings=VersionsSettings(url=f"file:{shared}"))
    registry.promote(version := publish(registry))
    assert (shared / version / "model.safetensors").exists()
    assert not own.exists()
    other = open_registry(tmp_path / "other", settings=VersionsSettings(url=f"file:{shared}"))
    assert other.live("policy") == version


def layout(root: Path) -> dict[str, str]:
    return {str(path.relative_to(root)): path.read_text() for path in sorted(root.rglob("*")) if path.is_file()}


def test_the_layout(registry: Registry, tmp_path: Path) -> None:
    first, second = publish(registry), publish(registry)
    registry.promote(first, reason="the base model")
    registry.promote(second, gate={"kl": 1.5})
    registry.refresh_reference(second)
    found = layout(tmp_path)
    assert set(found) == {
        "live/policy",
        "lock",
        "next/policy",
        "policy-000000/manifest.json",
        "policy-000000/model.safetensors",
        "policy-000001/manifest.json",
        "policy-000001/model.safetensors",
        "references",
        "states/policy-000000.json",
        "states/policy-000001.json",
    }
    assert found["live/policy"] == "policy-000001"
    assert found["next/policy"] == "2"
    assert found["references"] == '["policy-000000", "policy-000001"]'
    state = json.loads(found["states/policy-000001.json"])
    assert state.pop("changed_ms") == state.pop("first_live_ms") > 0
    assert state == {"state": "live", "reason": "", "gate": {"kl": 1.5}, "by": ""}


def test_a_folder_that_people_or_an_earlier_release_wrote_is_read(registry: Registry, tmp_path: Path) -> None:
    for number, state in ((0, "retired"), (1, "live")):
        version = f"policy-00000{number}"
        (tmp_path / version).mkdir()
        (tmp_path / version / "w").write_text("w")
        values = {"version": version, "tuning": "full", "files": [FILE], "probe": [], "created_ms": 1}
        (tmp_path / version / "manifest.json").write_text(json.dumps(values))
        (tmp_path / "states").mkdir(exist_ok=True)
        status = {"state": state, "reason": "r", "gate": {}, "changed_ms": number}
        (tmp_path / "states" / f"{version}.json").write_text(json.dumps(status))
    (tmp_path / "live").mkdir()
    (tmp_path / "live" / "policy").write_text("policy-000001\n")
    (tmp_path / "next").mkdir()
    (tmp_path / "next" / "policy").write_text("2")
    (tmp_path / "lock").touch()
    assert registry.live("policy") == "policy-000001"
    assert registry.references() == ["policy-000000"]
    assert registry.status("policy-000001") == Status(state="live", reason="r", changed_ms=1)
    assert registry.rollback("policy", reason="worse").version == "policy-000000"
    assert registry.live("policy") == "policy-000000"
    assert registry.reserve("policy") == "policy-000002"


@pytest.mark.parametrize("damage", ["change", "truncate", "remove"])
def test_a_damaged_file_is_found(registry: Registry, damage: str) -> None:
    version = publish(registry)
    path = registry.path(version) / "model.safetensors"
    match damage:
        case "change":
            path.write_text("weightz")
        case "truncate":
            path.write_text("weigh")
        case "remove":
            path.unlink()
    with pytest.raises(VersionCorrupt, match=r"model\.safetensors"):
        registry.verify(version)


def test_an_unreadable_or_foreign_manifest_is_corrupt(registry: Registry) -> None:
    version = publish(registry)
    path = registry.path(version) / "manifest.json"
    values = json.loads(path.read_text())
    path.write_text(json.dumps(values | {"version": "policy-000009"}))
    with pytest.raises(VersionCorrupt, match="names 'policy-000009'"):
        registry.verify(version)
    path.write_text("{")
    with pytest.raises(VersionCorrupt, match="cannot be read"):
        registry.verify(version)


def test_a_damaged_version_is_a_row_that_says_so_and_the_others_are_listed(registry: Registry, tmp_path: Path) -> None:
    names = [publish(registry) for _ in range(3)]
    registry.promote(names[2], reason="better")
    (tmp_path / names[0] / "manifest.json").write_bytes(b"\xff")
    registry.mark(names[1], "rejected", reason="too long")
    (tmp_path / "states" / f"{names[1]}.json").write_text("{")
    rows = [row.to_json() for row in summaries(open_registry(tmp_path))]
    assert [(row["version"], row["state"]) for row in rows] == [
        (names[0], "candidate"),
        (names[1], "failed"),
        (names[2], "live"),
    ]
    assert "its manifest cannot be read" in rows[0]["reason"]
    assert f"states/{names[1]}.json cannot be read" in rows[1]["reason"]
    assert (rows[2]["reason"], rows[2]["kl"]) == ("better", 0.5)


def test_what_cannot_be_cleared_away_keeps_no_version_from_being_staged(registry: Registry, tmp_path: Path) -> None:
    """Another process may be clearing it away at the same time, or somebody has put a file there."""
    version = registry.reserve("policy")
    (tmp_path / f".staging-{version}-0").write_text("no folder")
    (registry.stage(version) / "model.safetensors").write_text("weights")
    registry.publish(Manifest(version=version, tuning="full"))
    assert registry.versions("policy") == [version]


def test_a_record_that_is_damaged_is_told_by_its_name_until_it_is_good_again(
    registry: Registry, tmp_path: Path
) -> None:
    """Whether it holds nonsense, or is no file at all."""
    version = publish(registry)
    key, record = f"states/{version}.json", tmp_path / "states" / f"{version}.json"
    registry.mark(version, "rejected", reason="why")
    good = record.read_text()
    record.write_text("{")
    registry.status(version)
    assert list(registry.damaged) == [key] and f"{record} cannot be read" in registry.damaged[key]
    record.unlink()
    record.mkdir()
    registry.status(version)
    assert list(registry.damaged) == [key] and f"{record} cannot be read (Is a directory)" in registry.damaged[key]
    record.rmdir()
    record.write_text(good)
    assert registry.status(version).state == "rejected" and registry.damaged == {}


def test_a_pointer_that_was_lost_is_told(registry: Registry, tmp_path: Path) -> None:
    version = publish(registry)
    assert registry.live("policy") is None and registry.damaged == {}, "none was promoted: nothing is lost"
    registry.promote(version)
    (tmp_path / "live" / "policy").unlink()
    assert registry.live("policy") == version
    assert registry.damaged == {
        "live/policy": f"{tmp_path}/live/policy names no version that is there: {version} counts as live"
    }


def test_what_is_staged_or_lies_within_a_version_is_none_though_it_has_a_manifest(tmp_path: Path) -> None:
    """A process may be killed just before it would have renamed it."""
    store = FolderStore(tmp_path)
    staged = store.stage("policy-000000")
    (staged / "inside").mkdir()
    for folder in (staged, staged / "inside"):
        (folder / "manifest.json").write_text("{}")
    assert store.versions() == [] and not store.contains(staged.name)
    store.put("policy-000000", staged, lambda _: b"{}")
    assert store.versions() == ["policy-000000"] and not store.contains("policy-000000/inside")


def test_a_manifest_names_the_files_in_their_order(registry: Registry) -> None:
    version = registry.reserve("policy")
    folder = registry.stage(version)
    names = [f"{number:02d}" for number in range(30)]
    for name in reversed(names):
        (folder / name).write_text(name)
    manifest = registry.publish(Manifest(version=version, tuning="full"))
    assert [item.path for item in manifest.files] == names
