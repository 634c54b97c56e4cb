"""What an answer's headers tell: which request it was, which version wrote it, whether it is on disk."""

import asyncio
from typing import Any

import orjson
import pytest

from tests.support.chat_service import ASK, Service
from tests.support.events import events

TEXT = {"prompt": "Once upon a time"}
ROUTES = pytest.mark.parametrize(("path", "body"), [("/v1/chat/completions", ASK), ("/v1/completions", TEXT)])


def told(headers: Any) -> dict[str, str]:
    prefix = "x-rlhf-"
    return {name.lower().removeprefix(prefix): headers[name] for name in headers if name.lower().startswith(prefix)}


@ROUTES
async def test_a_whole_answer_tells_all(service: Service, path: str, body: dict[str, Any]) -> None:
    async with service.session.post(service.url + path, data=orjson.dumps(body)) as response:
        assert told(response.headers) == {
            "completion-id": (await response.json())["id"],
            "first-version": "policy-000000",
            "last-version": "policy-000000",
            "logged": "true",
        }


@ROUTES
async def test_a_stream_tells_what_is_known_as_it_begins(service: Service, path: str, body: dict[str, Any]) -> None:
    async with service.session.post(service.url + path, data=orjson.dumps({**body, "stream": True})) as response:
        said = told(response.headers)
        last = events(await response.read())[-1]
    assert said == {"completion-id": last["id"], "first-version": "policy-000000"}
    assert last["rlhf"]["completion_id"] == last["id"]


@pytest.mark.parametrize("stream", [False, True])
async def test_what_is_not_stored_says_so(service: Service, stream: bool) -> None:
    body = orjson.dumps({**ASK, "stream": stream, "store": False})
    async with service.session.post(service.url + "/v1/chat/completions", data=body) as response:
        assert told(response.headers)["logged"] == "false"


async def test_versions_across_a_swap(service: Service) -> None:
    """The first token of all answers is the old version's, the latest the new one's."""
    await service.engine.hold()
    asking = asyncio.create_task(service.session.post(service.url + "/v1/chat/completions", data=orjson.dumps(ASK)))
    await service.engine.asked.wait()
    await service.engine.allow(1)
    await service.host.swap("policy-000001")
    await service.engine.release()
    async with await asking as response:
        said = told(response.headers)
    assert (said["first-version"], said["last-version"]) == ("policy-000000", "policy-000001")


async def test_every_answer_names_its_request(service: Service) -> None:
    named = set()
    for path in ("/healthz", "/v1/models", "/nothing", "/v1/models/nobody"):
        async with service.session.get(service.url + path) as response:
            named.add(response.headers["x-request-id"])
    async with service.session.post(service.url + "/v1/chat/completions", data=b"{}") as response:
        named.add(response.headers["x-request-id"])
    assert len(named) == 5 and all(name.startswith("req_") for name in named)


async def test_a_defect_is_logged_under_the_request(
    service: Service, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise KeyError

    monkeypatch.setattr(service.chat.gateway, "models", fail)
    async with service.session.get(service.url + "/v1/models") as response:
        assert response.status == 500
        name = response.headers["x-request-id"]
        assert name in (await response.json())["error"]["message"]
    assert name in capsys.readouterr().out
