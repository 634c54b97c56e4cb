"""A real Kafka broker for a module's tests, which have topics of their own."""

from collections.abc import Iterator

import pytest

from tests.support.kafka_broker import Broker, missing_tools


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    if reason := missing_tools():
        pytest.skip(reason)
    broker = Broker(tmp_path_factory.mktemp("kafka"))
    broker.start()
    yield broker
    broker.stop()
