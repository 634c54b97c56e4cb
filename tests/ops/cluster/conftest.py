"""One simulated cluster for all tests of this folder; each has a namespace of its own, and a module one release."""

from collections.abc import Iterator

import pytest

from tests.ops.cluster.releases import Release, installed
from tests.support.simulated_cluster import Cluster


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with Cluster(tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def chat(cluster: Cluster, request: pytest.FixtureRequest) -> Iterator[Release]:
    """One release for all tests of a module, with the values that it calls VALUES, if it has such."""
    with installed(cluster, getattr(request.module, "VALUES", None)) as one:
        yield one
