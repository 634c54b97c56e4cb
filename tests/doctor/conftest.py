from collections.abc import Iterator

import pytest

from tests.support.object_server import ObjectServer, environment, object_server


@pytest.fixture(scope="module")
def server() -> Iterator[ObjectServer]:
    """An S3 server that a module's tests share."""
    with object_server() as server:
        yield server


@pytest.fixture
def bucket(server: ObjectServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[ObjectServer]:
    """The server, where clients that are made in the test find it."""
    for name, value in environment(server.port).items():
        monkeypatch.setenv(name, value)
    yield server
    server.relent()
