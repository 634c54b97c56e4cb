"""What the registry relies on, whatever holds the versions: `rlhf_online.versions.store.VersionStore`."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from rlhf_online.errors import UnknownVersion
from rlhf_online.versions.store import VersionStore

MANIFEST = b'{"version": "policy-000000"}'


def put(store: VersionStore, version: str = "policy-000000", content: str = "weights") -> None:
    folder = store.stage(version)
    (folder / "sub").mkdir()
    (folder / "model.safetensors").write_text(content)
    (folder / "sub" / "config.json").write_text("{}")
    store.put(version, folder, lambda _: MANIFEST)


def contents(folder: Path) -> dict[str, str]:
    paths = [path for path in folder.rglob("*") if path.is_file() and path.name != "manifest.json"]
    return {str(path.relative_to(folder)): path.read_text() for path in paths}


def test_an_empty_store_has_neither_versions_nor_records(store: VersionStore) -> None:
    assert store.versions() == []
    assert not store.contains("policy-000000")
    assert store.read("live/policy") is None
    for ask in (store.manifest, store.files, store.materialise, store.discard_files):
        with pytest.raises(UnknownVersion, match="no version 'policy-000000'"):
            ask("policy-000000")


def test_what_was_put_is_there_byte_by_byte(store: VersionStore) -> None:
    put(store)
    assert store.versions() == ["policy-000000"]
    assert store.contains("policy-000000")
    assert store.manifest("policy-000000") == MANIFEST
    assert store.files("policy-000000") == {"model.safetensors", "sub/config.json"}
    assert contents(store.materialise("policy-000000")) == {"model.safetensors": "weights", "sub/config.json": "{}"}


def test_a_version_without_files_is_one(store: VersionStore) -> None:
    store.put("policy-000000", store.stage("policy-000000"), lambda _: MANIFEST)
    assert store.contains("policy-000000")
    assert store.files("policy-000000") == frozenset()
    assert contents(store.materialise("policy-000000")) == {}


def test_what_is_staged_is_no_version_yet_and_staging_again_begins_anew(store: VersionStore) -> None:
    (store.stage("policy-000000") / "half").write_text("half")
    assert store.versions() == []
    assert contents(store.stage("policy-000000")) == {}


def test_the_first_to_put_a_name_has_it_for_good(store: VersionStore) -> None:
    put(store)
    folder = store.stage("policy-000000")
    (folder / "model.safetensors").write_text("other weights")
    store.put("policy-000000", folder, lambda _: b"{}")
    assert store.manifest("policy-000000") == MANIFEST
    assert contents(store.materialise("policy-000000"))["model.safetensors"] == "weights"


def test_discarded_files_leave_the_manifest(store: VersionStore) -> None:
    put(store)
    put(store, "policy-000001")
    for _ in range(2):
        store.discard_files("policy-000000")
    assert store.manifest("policy-000000") == MANIFEST
    assert store.files("policy-000000") == frozenset()
    assert store.files("policy-000001") == {"model.safetensors", "sub/config.json"}


@pytest.mark.parametrize("name", ["../policy-000000", "policy-000000/sub", ".staging-policy-000000", ""])
def test_a_name_cannot_leave_the_store(store: VersionStore, name: str) -> None:
    put(store)
    assert not store.contains(name)
    with pytest.raises(UnknownVersion):
        store.materialise(name)


def test_a_record_is_replaced_only_by_who_knows_it(store: VersionStore) -> None:
    assert not store.replace("live/policy", "policy-000001", expected="policy-000000")
    assert store.read("live/policy") is None
    assert store.replace("live/policy", "policy-000000", expected=None)
    assert not store.replace("live/policy", "policy-000001", expected=None)
    assert store.replace("live/policy", "policy-000001", expected="policy-000000")
    assert not store.replace("live/policy", "policy-000002", expected="policy-000000")
    assert store.read("live/policy") == "policy-000001"
    assert store.read("live/reward") is None


def test_of_many_writers_each_change_is_made_once(store: VersionStore) -> None:
    def add(times: int) -> None:
        for _ in range(times):
            while True:
                before = store.read("next/policy")
                if store.replace("next/policy", str(int(before or 0) + 1), expected=before):
                    break

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(add, [25] * 4))
    assert store.read("next/policy") == "100"
