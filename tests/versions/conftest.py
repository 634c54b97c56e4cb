"""The stores that every test of this folder runs over; another store is another line."""

from collections.abc import Callable
from pathlib import Path

import pytest

from rlhf_online.versions.folder_store import FolderStore
from rlhf_online.versions.registry import Registry
from rlhf_online.versions.store import VersionStore
from tests.support.memory_store import MemoryStore

STORES: dict[str, Callable[[Path], VersionStore]] = {
    "folder": lambda folder: FolderStore(folder / "versions"),
    "memory": MemoryStore,
}


@pytest.fixture(params=STORES.values(), ids=list(STORES))
def store(request: pytest.FixtureRequest, tmp_path: Path) -> VersionStore:
    return request.param(tmp_path)


@pytest.fixture
def registry(store: VersionStore) -> Registry:
    return Registry(store)
