"""Versions of one machine go into a bucket: all of them, what is recorded of them, and which are live."""

from pathlib import Path

import pytest

from rlhf_online.errors import InvalidInput, StoreUnavailable
from rlhf_online.rewards import weights
from rlhf_online.state import StateDir
from rlhf_online.versions import copying, pins
from rlhf_online.versions.bucket import Bucket
from rlhf_online.versions.folder_store import FolderStore
from rlhf_online.versions.manifest import Manifest
from rlhf_online.versions.object_store import ObjectStore
from rlhf_online.versions.registry import Registry
from tests.support.object_server import BUCKET, FULL, ObjectServer


def publish(registry: Registry, kind: str = "policy") -> str:
    version = registry.reserve("policy" if kind == "policy" else "reward")
    folder = registry.stage(version)
    (folder / "inner").mkdir()
    (folder / "inner" / "config.json").write_text("the same for all")
    (folder / "model.safetensors").write_text(f"weights of {version}")
    registry.publish(Manifest(version=version, tuning="full"))
    return version


@pytest.fixture
def folder(tmp_path: Path) -> FolderStore:
    """Five policies, of which the first has no weights any more, and two reward models."""
    store = FolderStore(tmp_path / "versions")
    registry = Registry(store)
    for _ in range(5):
        registry.promote(publish(registry))
    registry.mark(publish(registry), "rejected", reason="KL 9 is above 8")
    pins.pin(store, "policy-000001")
    store.discard_files("policy-000000")
    publish(registry, "reward")
    registry.promote(publish(registry, "reward"))
    store.replace("votes/3", "what became of a vote", expected=None)
    (store.root / "states" / ".policy-000001.json.4711").write_text("the remains of a write that was killed")
    weights.change(store, StateDir(tmp_path), {"helpful": 2.0}, ["helpful"])
    return store


def bucket_of(tmp_path: Path, at: str = "staged") -> ObjectStore:
    return ObjectStore(Bucket(f"s3://{BUCKET}/{tmp_path.name}"), tmp_path / at, 1 << 30)


def told(registry: Registry) -> dict[str, object]:
    return {
        "live": [registry.live("policy"), registry.live("reward")],
        "next": registry.fallbacks("policy"),
        "pinned": pins.read(registry.store),
        "references": registry.references(),
        **{
            version: (registry.manifest(version), registry.status(version), registry.store.files(version))
            for version in registry.versions()
        },
    }


def test_all_that_the_folder_tells_the_bucket_tells(folder: FolderStore, bucket: ObjectServer, tmp_path: Path) -> None:
    there = bucket_of(tmp_path)
    assert list(copying.copy(folder, there)) == Registry(folder).versions()
    elsewhere = Registry(bucket_of(tmp_path, at="elsewhere"))
    assert told(elsewhere) == told(Registry(folder))
    assert elsewhere.verify("policy-000004").version == "policy-000004"
    assert elsewhere.store.read("votes/3") == "what became of a vote"
    assert elsewhere.store.read("states/.policy-000001.json.4711") is None
    assert weights.read(elsewhere.store, StateDir(tmp_path)) == {"helpful": 2.0}
    assert elsewhere.reserve("policy") == Registry(folder).reserve("policy") == "policy-000006"
    assert folder.files("policy-000003"), "the folder keeps what it had"


def test_cut_short_nothing_is_live_there_and_done_again_it_goes_on(
    folder: FolderStore, bucket: ObjectServer, tmp_path: Path
) -> None:
    there = bucket_of(tmp_path)
    first = next(copying.copy(folder, there))
    bucket.refuse(FULL, "PUT POST")
    with pytest.raises(StoreUnavailable):
        list(copying.copy(folder, there))
    bucket.relent()
    assert Registry(there).live("policy") is None
    assert first not in list(copying.copy(folder, there))
    assert told(Registry(there)) == told(Registry(folder))
    assert list(copying.copy(folder, there)) == []


def test_a_bucket_with_other_versions_is_refused_and_stays_as_it_is(
    folder: FolderStore, bucket: ObjectServer, tmp_path: Path
) -> None:
    there = bucket_of(tmp_path)
    other = Registry(there)
    other.reserve("policy")
    theirs = publish(other)
    other.promote(theirs)
    before = told(other)
    with pytest.raises(InvalidInput, match=f"{theirs} in s3://.* is not the one of .*versions: name another prefix"):
        list(copying.copy(folder, there))
    assert told(other) == before
