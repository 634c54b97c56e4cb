"""The real service on versions in a bucket, behind a proxy that cuts it off and holds it up."""

import asyncio
from pathlib import Path

import pytest

from tests.support.chat_process import chat_process
from tests.support.object_server import BUCKET, environment, object_server
from tests.support.proxy import Proxy
from tests.support.waiting import eventually


async def test_people_chat_on_while_the_bucket_is_away_or_slow_and_what_was_promoted_then_is_served_when_it_is_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with object_server() as server, Proxy() as proxy:
        proxy.target = server.port
        for name, value in environment(proxy.port).items():
            monkeypatch.setenv(name, value)
        async with chat_process(tmp_path, versions={"url": f"s3://{BUCKET}/somewhere"}) as service:
            assert await service.serves("policy-000000")

            proxy.cut = True
            await eventually(lambda: "records/live/policy cannot be read now" in service.output.read_text())
            for _ in range(3):
                await service.vote(await service.ask())
            assert await service.ready() == 200, "what serves goes on"
            async with service.session.get(service.url + "/v1/versions") as response:
                assert response.status == 503
                assert (await response.json())["error"]["code"] == "versions_unavailable"

            proxy.cut, proxy.delay_s = False, 1.0
            await service.ask()
            proxy.delay_s = 0.0
            promoted = await asyncio.to_thread(service.promote)

            async def served() -> bool:
                return await service.serves(promoted)

            await eventually(served)
            await service.ask()
