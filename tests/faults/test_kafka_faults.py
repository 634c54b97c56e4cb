"""Kafka not there at first, far away, cut off, resetting, losing replies: nothing is lost, order holds, twice is once.

A real broker, mostly behind a proxy that misbehaves; the auditor counts in the end (FAULTS 10, 11, 16–18).
"""

import asyncio
import gc
from collections.abc import Iterator
from pathlib import Path

import pytest

from rlhf_online.config import LogSettings
from tests.faults.auditor import audit
from tests.support.chat_process import chat_process
from tests.support.kafka_broker import Broker, needed
from tests.support.kafka_chat import Chat
from tests.support.proxy import Proxy
from tests.support.waiting import eventually, until

pytestmark = needed()


@pytest.fixture(autouse=True)
def collect() -> Iterator[None]:
    """Sockets that kafka-python leaves are closed within the test that left them."""
    yield
    gc.collect()


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    """The line to the broker."""
    with Proxy() as proxy:
        broker = Broker(tmp_path_factory.mktemp("kafka"), advertised=proxy.port)
        proxy.target = broker.port
        broker.start()
        yield proxy
        broker.stop()


@pytest.fixture
def chat(line: Proxy, tmp_path: Path) -> Iterator[Chat]:
    chat = Chat(line.address, tmp_path)
    yield chat
    line.cut, line.delay_s, line.reset_after, line.lose_replies = False, 0.0, 0, 0
    chat.sink.close()


def test_a_line_that_is_cut_fills_the_spool_and_empties_it_later(chat: Chat, line: Proxy) -> None:
    chat.log(20)
    chat.arrived()
    line.cut = True
    chat.log(500)
    until(lambda: chat.sink.shipping().failures > 0, 60, "the forwarder to notice")
    assert chat.sink.shipping().backlog == 500
    report = audit(chat.state, chat.acknowledged)
    assert report.lost == set(), "the spool has what Kafka has not"
    line.cut = False
    chat.arrived()
    chat.check()


def test_a_line_of_two_seconds_delays_no_acknowledgement(chat: Chat, line: Proxy) -> None:
    line.delay_s = 2.0
    chat.log(200)
    assert chat.shipped == 0, "acknowledged by the disk, while Kafka has not even greeted"
    until(lambda: chat.shipped == 200, 240, "everything to be shipped")
    line.delay_s = 0.0
    assert chat.check() == 0


def test_a_line_that_is_reset_every_megabyte_completes(chat: Chat, line: Proxy) -> None:
    line.reset_after = 1 << 20
    chat.log(6000)
    chat.arrived()
    assert line.resets >= 2
    line.reset_after = 0
    chat.check()


def test_lost_replies_make_records_come_twice_and_count_once(chat: Chat, line: Proxy) -> None:
    chat.log(10)
    chat.arrived()
    line.lose_replies = 3
    chat.log(2000)
    chat.arrived()
    assert line.lose_replies == 0
    chat.check()


async def test_down_at_the_start_chat_serves_and_later_kafka_gets_everything(tmp_path: Path) -> None:
    broker = Broker(tmp_path / "kafka")
    log = LogSettings(url=f"kafka://{broker.address}")
    try:
        async with chat_process(tmp_path, log=log) as service:
            for _ in range(20):
                await service.vote(await service.ask())
            assert await service.answers()
            assert await service.backlog() == len(service.logged()) == 41
            await asyncio.to_thread(broker.start)
            await eventually(service.shipped)
            report = await asyncio.to_thread(audit, service.state.root, service.acknowledged, kafka=broker.address)
            assert report.problems == []
            assert (report.in_kafka, report.spooled) == (40, 0)
    finally:
        broker.kill()
