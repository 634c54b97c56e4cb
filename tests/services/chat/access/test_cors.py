"""Pages of other sites: what a browser is told before and after it asks in their name."""

from pathlib import Path

import orjson
import pytest

from rlhf_online.config import ChatSettings
from tests.support.chat_service import ASK, Service, running

APP, OTHER = "https://app.example.org", "https://other.example.org"
CHAT = "/v1/chat/completions"


async def preflight(service: Service, origin: str) -> tuple[int, dict[str, str]]:
    asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,content-type"}
    async with service.session.options(service.url + CHAT, headers={"Origin": origin, **asked}) as response:
        return response.status, {name.lower(): value for name, value in response.headers.items()}


async def ask(service: Service, origin: str) -> tuple[int, dict[str, str]]:
    headers = {"Origin": origin, "Sec-Fetch-Site": "cross-site"}
    async with service.session.post(service.url + CHAT, data=orjson.dumps(ASK), headers=headers) as response:
        return response.status, {name.lower(): value for name, value in response.headers.items()}


async def test_by_default_no_other_site_is_answered(service: Service) -> None:
    status, headers = await preflight(service, APP)
    assert status == 405
    assert not any(name.startswith("access-control-") for name in headers)
    status, headers = await ask(service, APP)
    assert status == 403
    assert "access-control-allow-origin" not in headers


async def test_a_site_that_is_named_may_ask_and_read(tmp_path: Path) -> None:
    async with running(tmp_path, allowed_origins=[APP]) as service:
        status, headers = await preflight(service, APP)
        assert status == 200
        assert headers["access-control-allow-origin"] == APP
        assert "POST" in headers["access-control-allow-methods"]
        assert headers["access-control-allow-headers"] == "authorization,content-type"
        assert "access-control-allow-credentials" not in headers
        status, headers = await ask(service, APP)
        assert (status, headers["access-control-allow-origin"]) == (200, APP)
        assert "x-ratelimit-limit-requests" in headers
        assert "origin" in headers["vary"].lower()


@pytest.mark.parametrize("origin", [OTHER, "http://app.example.org", f"{APP}:8443", f"{APP}.evil.org", "null"])
async def test_any_other_is_refused(tmp_path: Path, origin: str) -> None:
    async with running(tmp_path, allowed_origins=[APP]) as service:
        status, headers = await preflight(service, origin)
        assert status == 400
        assert "access-control-allow-origin" not in headers
        status, headers = await ask(service, origin)
        assert status == 403
        assert "access-control-allow-origin" not in headers
        assert service.engine.requests == []


@pytest.mark.parametrize("origin", ["*", "https://*", "app.example.org", f"{APP}/", "https://App.example.org"])
def test_what_is_no_origin_cannot_be_named(origin: str) -> None:
    with pytest.raises(ValueError, match="expected an origin in lower case"):
        ChatSettings.model_validate({"state_dir": "s", "allowed_origins": [origin]})
