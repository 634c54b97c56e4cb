"""Alerts that fire for real: versions that cannot be served, pods that lag, a store that is away."""

import asyncio
from pathlib import Path

import pytest

from rlhf_online.simulation.tiny_model import write_tiny_model
from rlhf_online.versions import open_registry
from tests.engine.test_host import live, publish
from tests.services.chat.test_many_pods import fleet
from tests.support.alerting import alerts
from tests.support.chat_process import ChatProcess, chat_process
from tests.support.object_server import BUCKET, environment, object_server
from tests.support.prometheus import Target
from tests.support.proxy import Proxy

pytestmark = pytest.mark.ops


def target(service: ChatProcess) -> list[Target]:
    return [Target("chat", service.url.removeprefix("http://"))]


async def test_a_version_whose_bytes_have_changed(tmp_path: Path) -> None:
    write_tiny_model(tmp_path / "base", weights_seed=1)
    good = live(open_registry(tmp_path / "state" / "versions"))
    async with chat_process(tmp_path, tuning="full") as service, alerts(tmp_path, target(service)) as found:
        corrupt = await asyncio.to_thread(publish, service.registry, 3)
        weights = service.registry.path(corrupt) / "model.safetensors"
        data = bytearray(weights.read_bytes())
        data[-1] ^= 1
        weights.chmod(0o600)
        weights.write_bytes(data)
        await asyncio.to_thread(service.registry.promote, corrupt)
        await found.fires("RlhfSwapsFail", severity="warning", service="engine", job="chat")
        assert await service.serves(good)


async def test_a_pod_that_cannot_serve_what_the_others_serve(tmp_path: Path) -> None:
    async with fleet(tmp_path) as pods:
        version = publish(pods.registry, 3)
        pods.engines[2].refuse_load.add(version)
        addresses = [service.url.removeprefix("http://") for service in pods.services]
        targets = [Target(f"chat-{number}", address) for number, address in enumerate(addresses)]
        async with alerts(tmp_path, targets) as found:
            await asyncio.to_thread(pods.registry.promote, version)
            await found.fires("RlhfVersionSkew", severity="warning", service="engine", job="chat-2")
            assert not [each for each in await found.firing() if each["job"] != "chat-2"]
            pods.engines[2].refuse_load.clear()
            await found.ends("RlhfVersionSkew")


async def test_a_store_that_does_not_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with object_server() as server, Proxy() as proxy:
        proxy.target = server.port
        for name, value in environment(proxy.port).items():
            monkeypatch.setenv(name, value)
        async with chat_process(tmp_path, versions={"url": f"s3://{BUCKET}/somewhere"}) as service:
            async with alerts(tmp_path, target(service)) as found:
                proxy.cut = True
                await found.fires("RlhfVersionStoreAway", severity="warning", service="store")
                proxy.cut = False
                await found.ends("RlhfVersionStoreAway")
