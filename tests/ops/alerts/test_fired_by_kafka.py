"""Alerts that fire for real: a chat service as a process that ships to a real Kafka broker, and a real Prometheus."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from rlhf_online.config import LogSettings
from tests.support.alerting import alerts
from tests.support.chat_process import ChatProcess, chat_process
from tests.support.kafka_broker import Broker, needed
from tests.support.prometheus import Target
from tests.support.waiting import eventually

pytestmark = [pytest.mark.ops, *needed()]
PREFIX = "people"


@asynccontextmanager
async def broker(folder: Path) -> AsyncIterator[Broker]:
    running = await asyncio.to_thread(Broker, folder / "kafka")
    try:
        await asyncio.to_thread(running.start)
        yield running
    finally:
        running.kill()


def shipping(folder: Path, to: Broker) -> AbstractAsyncContextManager[ChatProcess]:
    return chat_process(folder, log=LogSettings(url=f"kafka://{to.address}", topic_prefix=PREFIX))


def target(service: ChatProcess) -> list[Target]:
    return [Target("chat", service.url.removeprefix("http://"))]


async def test_kafka_away_and_back(tmp_path: Path) -> None:
    async with broker(tmp_path) as kafka, shipping(tmp_path, kafka) as service:
        await eventually(service.shipped)
        async with alerts(tmp_path, target(service)) as found:
            kafka.kill()
            await service.vote(await service.ask())
            await found.fires("RlhfSpoolOld", severity="warning", service="chat")
            await found.fires("RlhfForwarderStuck", severity="critical", service="chat")
            await asyncio.to_thread(kafka.start)
            await found.ends("RlhfForwarderStuck")
            await found.ends("RlhfSpoolOld")


def create(kafka: Broker, topic: str, **configs: int) -> None:
    """A topic of one partition, other than ours would be."""
    from kafka import KafkaAdminClient  # which warns, and may do so only within a test

    admin: Any = KafkaAdminClient(bootstrap_servers=kafka.address)
    admin.create_topics({topic: {"num_partitions": 1, "configs": configs}}, wait_for_metadata=True)
    admin.close()


async def test_a_topic_that_takes_smaller_events_than_ours(tmp_path: Path) -> None:
    async with broker(tmp_path) as kafka:
        await asyncio.to_thread(create, kafka, f"{PREFIX}.feedback", **{"max.message.bytes": 2000})
        async with shipping(tmp_path, kafka) as service, alerts(tmp_path, target(service)) as found:
            thumb = {"thumb": {"answer": {"completion_id": "chatcmpl-any"}, "up": True}, "reason": 8000 * "x"}
            async with service.session.post(service.url + "/v1/feedback", json=thumb) as response:
                assert response.status == 200
            await found.fires("RlhfEventsRefusedByKafka", severity="warning", service="chat")
