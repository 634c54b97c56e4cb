"""What serves is told as it changes, over HTTP and gRPC alike."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import grpc
import orjson
import pytest
from google.protobuf.json_format import MessageToDict

from rlhf_online.proto.rlhf.v1 import admin_pb2, admin_pb2_grpc
from services.chat import version_watch
from services.chat.bodies.api_error import ApiError
from services.chat.version_watch import VersionWatch
from tests.support.chat_service import Service, running
from tests.support.waiting import eventually


class Engine:
    serving = "policy-000007"


async def over_http(service: Service) -> AsyncGenerator[dict[str, Any], None]:
    async with service.session.get(service.url + "/v1/versions/watch") as response:
        assert (response.status, response.content_type) == (200, "text/event-stream")
        async for line in response.content:
            if line.startswith(b"data: {"):
                yield orjson.loads(line[6:])


async def over_grpc(service: Service) -> AsyncGenerator[dict[str, Any], None]:
    async with grpc.aio.insecure_channel(service.grpc) as channel:
        watch = admin_pb2_grpc.AdminServiceStub(channel).WatchVersions(admin_pb2.WatchVersionsRequest())
        async for notice in watch:
            yield MessageToDict(notice, preserving_proto_field_name=True)


def without_time(notice: dict[str, Any]) -> dict[str, Any]:
    change = {name: value for name, value in notice["change"].items() if value and name != "changed_ms"}
    assert int(notice["change"]["changed_ms"]) > 1.7e12
    return {**notice, "change": change}


@pytest.mark.parametrize("watch", [over_http, over_grpc])
async def test_what_serves_is_told_at_first_and_whenever_it_changes(tmp_path: Path, watch: Any) -> None:
    async with running(tmp_path) as service, aclosing(watch(service)) as notices:
        assert await anext(notices) == {"serving": "policy-000000"}
        await service.host.swap("policy-000001")
        await service.host.swap("policy-000002", ok=False)
        live = {"version": "policy-000001", "state": "live", "previous": "policy-000000"}
        assert without_time(await anext(notices)) == {"serving": "policy-000001", "change": live}
        failed = {"version": "policy-000002", "state": "failed", "previous": "policy-000001"}
        assert without_time(await anext(notices)) == {"serving": "policy-000001", "change": failed}


@pytest.mark.parametrize("watch", [over_http, over_grpc])
async def test_a_watch_ends_with_the_service_after_what_was_to_be_told(tmp_path: Path, watch: Any) -> None:
    async with running(tmp_path) as service, aclosing(watch(service)) as notices:
        await anext(notices)
        await service.host.swap("policy-000001")
        service.stop.set()
        assert [notice["serving"] async for notice in notices] == ["policy-000001"]


@pytest.mark.parametrize("watch", [over_http, over_grpc])
async def test_who_goes_away_is_no_longer_told(tmp_path: Path, watch: Any) -> None:
    async with running(tmp_path) as service:
        async with aclosing(watch(service)) as staying:
            await anext(staying)
            async with aclosing(watch(service)) as leaving:
                await anext(leaving)
                assert len(service.chat.watch) == 2
            await eventually(lambda: len(service.chat.watch) == 1, 30, "one watcher left")
            await service.host.swap("policy-000001")
            assert (await anext(staying))["serving"] == "policy-000001"


async def test_watchers_beyond_the_most_are_refused_and_places_become_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(version_watch, "MOST", 1)
    async with running(tmp_path) as service:
        async with aclosing(over_grpc(service)) as notices:
            await anext(notices)
            status, refused = await service.get("/v1/versions/watch")
            assert (status, refused["error"]["code"]) == (429, "too_many_watchers")
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await anext(over_grpc(service))
            assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        await eventually(lambda: len(service.chat.watch) == 0, 30, "no watcher left")
        async with aclosing(over_http(service)) as notices:
            assert await anext(notices) == {"serving": "policy-000000"}


async def test_silence_is_told_too_so_that_proxies_keep_the_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(version_watch, "QUIET_S", 0.01)
    async with running(tmp_path) as service:
        async with service.session.get(service.url + "/v1/versions/watch") as response:
            lines = [await response.content.readline() for _ in range(6)]
        assert lines[0].startswith(b"data: ") and lines[2:5:2] == [b": nothing has changed\n"] * 2


async def test_a_service_that_stops_takes_no_more_watchers() -> None:
    watch = VersionWatch(Engine())
    watch.close()
    assert [notice async for notice in watch.notices()] == [{"serving": "policy-000007"}]
    assert len(watch) == 0


async def test_too_many_are_refused_by_the_watch_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(version_watch, "MOST", 0)
    with pytest.raises(ApiError, match="ask /v1/versions now and then"):
        await anext(VersionWatch(Engine()).notices())
