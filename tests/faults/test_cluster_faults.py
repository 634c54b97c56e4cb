"""A cluster of three loses one broker, two, has one that hangs, and leaders that move (FAULTS 12–15).

Real brokers; topics have three replicas, of which two must confirm. The auditor counts in the end.
"""

import asyncio
import gc
from collections.abc import Iterator
from pathlib import Path

import pytest

from rlhf_online.config import KafkaSettings, LogSettings
from rlhf_online.eventlog import kafka_cluster
from tests.faults.auditor import audit
from tests.support.chat_process import chat_process
from tests.support.kafka_broker import needed
from tests.support.kafka_chat import Chat
from tests.support.kafka_cluster import NODES, Cluster
from tests.support.waiting import eventually

pytestmark = needed()

REPLICATED = KafkaSettings(partitions=3, replication=3, min_insync=2)


@pytest.fixture(autouse=True)
def collect() -> Iterator[None]:
    """Sockets that kafka-python leaves are closed within the test that left them."""
    yield
    gc.collect()


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with Cluster(tmp_path_factory.mktemp("kafka")) as cluster:
        yield cluster


@pytest.fixture
def cluster(nodes: Cluster) -> Cluster:
    """All three nodes run, whatever the test before has left."""
    nodes.restore()
    return nodes


@pytest.fixture
def chat(cluster: Cluster, tmp_path: Path) -> Iterator[Chat]:
    """A log that has shipped something, so that its topics are there, with a leader on each node."""
    chat = Chat(cluster.address, tmp_path, talks=30, kafka=REPLICATED)
    chat.log(300)
    chat.arrived()
    cluster.in_sync(completions(chat))
    assert set(cluster.leaders(completions(chat))) == set(NODES)
    yield chat
    chat.sink.close()


def completions(chat: Chat) -> str:
    return f"{chat.prefix}.completions"


def test_the_topics_are_kept_three_times_and_confirmed_twice(cluster: Cluster, chat: Chat) -> None:
    from rlhf_online.eventlog.kafka import topics

    found = kafka_cluster(chat.settings)
    assert found is not None
    assert topics.check(found) == []


def test_without_one_of_three_brokers_shipping_goes_on(cluster: Cluster, chat: Chat) -> None:
    """The worst one: it leads a partition, and the other controllers."""
    chat.log(1000)
    cluster.kill(cluster.controller())
    chat.log(1000)
    chat.arrived()
    chat.check()


async def test_without_two_of_three_brokers_chat_serves_and_the_spool_waits(cluster: Cluster, tmp_path: Path) -> None:
    log = LogSettings(url=f"kafka://{cluster.address}", topic_prefix="two", kafka=REPLICATED)
    async with chat_process(tmp_path, log=log) as service:
        await service.vote(await service.ask())
        await eventually(service.shipped)
        cluster.in_sync("two.feedback")
        cluster.kill(1, 2)
        for _ in range(50):
            await service.vote(await service.ask())
        assert await service.answers()
        await eventually(service.failed_deliveries)
        assert await service.backlog() == 100, "one replica is not two"
        assert audit(service.state.root, service.acknowledged).lost == set(), "the spool has what Kafka has not"
        await asyncio.to_thread(cluster.restore)
        await eventually(service.shipped)
        report = await asyncio.to_thread(
            audit, service.state.root, service.acknowledged, kafka=cluster.address, prefix="two"
        )
        assert report.problems == []
        assert (report.in_kafka, report.spooled) == (102, 0)


def test_what_a_broker_that_hangs_never_confirmed_is_sent_to_another(cluster: Cluster, chat: Chat) -> None:
    cluster.pause(cluster.leaders(completions(chat))[0])
    chat.log(1000)
    chat.arrived()
    cluster.restore()
    cluster.in_sync(completions(chat))
    chat.check()


def test_while_leaders_move_everything_arrives_in_order(cluster: Cluster, chat: Chat) -> None:
    """A producer learns of a move by the refusal of what it has sent to the leader of before."""
    for node in (*NODES, *NODES):
        chat.log(1000)
        cluster.lead(completions(chat), node)
        chat.log(1000)
    chat.arrived()
    chat.check()
