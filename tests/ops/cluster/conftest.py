"""One simulated cluster for all tests of this folder; each has a namespace of its own."""

from collections.abc import Iterator

import pytest

from tests.support.simulated_cluster import Cluster


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with Cluster(tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster
