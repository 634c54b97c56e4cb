"""Whose page may vote: only the service's own, by whatever name it is reached, and no name that merely points here."""

from pathlib import Path

import orjson
import pytest

from services.chat.access.origins import Origins
from services.chat.api.operations import OPERATIONS
from services.chat.bodies.api_error import ApiError
from tests.support.chat_service import Service

EVERYWHERE, LOOPBACK = "0.0.0.0", "127.0.0.1"


def refused(listening: str, headers: dict[str, str], allowed: tuple[str, ...] = ()) -> bool:
    try:
        Origins(listening, allowed).check(headers)
    except ApiError as error:
        assert (error.status, error.code) == (403, "cross_origin")
        assert "chat.allowed_hosts" in str(error)
        return True
    return False


@pytest.mark.parametrize("listening", [LOOPBACK, "::1", EVERYWHERE, "10.1.2.3"])
@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("http://localhost:8000", "localhost:8000"),
        ("http://127.0.0.1:8000", "127.0.0.1:8000"),
        ("http://[::1]:8000", "[::1]:8000"),
        ("http://10.1.2.3", "10.1.2.3"),
        ("http://10.1.2.3", "10.1.2.3:80"),
        ("https://10.1.2.3", "10.1.2.3"),
    ],
)
def test_the_services_own_page_at_an_address(listening: str, origin: str, host: str) -> None:
    assert not refused(listening, {"origin": origin, "host": host})


@pytest.mark.parametrize("listening", [LOOPBACK, EVERYWHERE])
@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("http://evil.example", "localhost:8000"),
        ("http://evil.example:8000", "10.1.2.3:8000"),
        ("http://localhost:3000", "localhost:8000"),
        ("http://10.1.2.3:8000", "localhost:8000"),
        ("https://localhost", "localhost:80"),
        ("null", "localhost:8000"),
        ("", "localhost:8000"),
        ("file://", "localhost:8000"),
        ("chrome-extension://abcdef", "localhost:8000"),
        ("http://[", "localhost:8000"),
        ("http://localhost.evil.example", "localhost.evil.example"),
    ],
)
def test_another_sites_page(listening: str, origin: str, host: str) -> None:
    assert refused(listening, {"origin": origin, "host": host})


@pytest.mark.parametrize("listening", [LOOPBACK, EVERYWHERE])
def test_a_name_that_points_here_is_not_ours_before_it_is_allowed(listening: str) -> None:
    """DNS rebinding: for the browser it is the page's own origin."""
    page = {"origin": "http://chat.example.org:8000", "host": "chat.example.org:8000"}
    assert refused(listening, page)
    assert not refused(listening, page, ("chat.example.org",))
    assert not refused(listening, page, ("*.example.org",))
    assert refused(listening, page, ("*.example.com", "example.org"))


def test_a_proxy_may_end_tls_and_name_another_host() -> None:
    page = {"origin": "https://chat.example.org", "host": "rlhf-chat.default.svc:8000"}
    assert refused(EVERYWHERE, page)
    assert not refused(EVERYWHERE, page, ("chat.example.org",))


def test_what_the_browser_says_of_the_site_counts_too() -> None:
    own = {"origin": "http://localhost:8000", "host": "localhost:8000"}
    assert not refused(LOOPBACK, {**own, "sec-fetch-site": "same-origin"})
    for site in ("cross-site", "same-site"):
        assert refused(LOOPBACK, {**own, "sec-fetch-site": site})


@pytest.mark.parametrize("host", ["rlhf-chat.default.svc:8000", "chat.example.org", "10.1.2.3:8000", ""])
def test_clients_that_are_no_browser_may_use_any_name(host: str) -> None:
    assert not refused(EVERYWHERE, {"host": host})


def test_whoever_listens_on_the_loopback_interface_has_its_names_alone() -> None:
    for host in ("localhost", "localhost:8000", "127.0.0.1:8000", "[::1]:8000", ""):
        assert not refused(LOOPBACK, {"host": host})
    assert refused(LOOPBACK, {"host": "evil.example"})
    assert not refused(LOOPBACK, {"host": "chat.example.org"}, ("chat.example.org",))


async def test_every_route_that_changes_something_asks(service: Service) -> None:
    service.version(live=True)
    service.version(live=True)
    token = {"Authorization": f"Bearer {service.state.operator_token()}"}
    posts = [operation for operation in OPERATIONS if operation.method == "POST"]
    for operation in posts:
        url = service.url + operation.path.replace("{version}", "policy-000000")
        for headers in ({"Origin": "null"}, {"Origin": "http://evil.example"}, {"Host": "evil.example"}):
            async with service.session.post(url, data=b"{}", headers={**token, **headers}) as response:
                assert response.status == 403, (operation.name, headers)
                assert orjson.loads(await response.read())["error"]["code"] == "cross_origin"
    assert service.registry.live("policy") == "policy-000001"
    assert service.engine.requests == service.sink.records == []
    assert await service.metric('rlhf_chat_requests_total{outcome="cross_origin"}') == 3 * len(posts)


def test_a_setting_that_would_allow_all_is_refused(tmp_path: Path) -> None:
    from pydantic import ValidationError

    from rlhf_online.config import ChatSettings

    for name in ("*", "https://chat.example.org", "chat.example.org:8000", "Chat.Example.org", "a.*.org", ""):
        with pytest.raises(ValidationError, match="allowed_hosts"):
            ChatSettings(state_dir=tmp_path, allowed_hosts=(name,))
