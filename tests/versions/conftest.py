"""The stores that every test of this folder runs over; another store is another line."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rlhf_online.versions.bucket import Bucket
from rlhf_online.versions.folder_store import FolderStore
from rlhf_online.versions.object_store import ObjectStore
from rlhf_online.versions.registry import Registry
from rlhf_online.versions.store import VersionStore
from tests.support.memory_store import MemoryStore
from tests.support.object_server import BUCKET, ObjectServer, environment, object_server


def in_a_bucket(folder: Path) -> ObjectStore:
    """Under a prefix of its own."""
    return ObjectStore(Bucket(f"s3://{BUCKET}/{folder.name}"), folder / "copies", 1 << 30)


STORES: dict[str, Callable[[Path], VersionStore]] = {
    "folder": lambda folder: FolderStore(folder / "versions"),
    "memory": MemoryStore,
    "bucket": in_a_bucket,
}


@pytest.fixture(scope="session")
def server() -> Iterator[ObjectServer]:
    """An S3 server that the tests of this session share."""
    with object_server() as server:
        yield server


@pytest.fixture
def bucket(server: ObjectServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[ObjectServer]:
    """The server, where clients that are made in the test find it."""
    for name, value in environment(server.port).items():
        monkeypatch.setenv(name, value)
    server.requests()
    yield server
    server.relent()


@pytest.fixture(params=STORES.values(), ids=list(STORES))
def store(request: pytest.FixtureRequest, tmp_path: Path) -> VersionStore:
    if request.param is in_a_bucket:
        request.getfixturevalue("bucket")
    return request.param(tmp_path)


@pytest.fixture
def registry(store: VersionStore) -> Registry:
    return Registry(store)
