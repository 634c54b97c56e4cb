"""A disk that fails on demand, and a real Kafka broker for a module's tests, which have topics of their own."""

from collections.abc import Iterator

import pytest

from tests.support.kafka_broker import Broker, missing_tools
from tests.support.local_log import Disk


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    if reason := missing_tools():
        pytest.skip(reason)
    broker = Broker(tmp_path_factory.mktemp("kafka"))
    broker.start()
    yield broker
    broker.stop()


@pytest.fixture
def disk() -> Disk:
    return Disk()
