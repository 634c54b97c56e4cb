"""Who a caller is: whom votes and answers belong to, with keys and without."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from rlhf_online.end_users import sign
from rlhf_online.errors import ConfigError
from rlhf_online.state import PersonHash
from services.chat.access.authorization import Authorization
from services.chat.access.caller import Caller
from services.chat.access.keys import Keys
from services.chat.bodies.api_error import ApiError
from tests.support.api_keys import ENTRIES, SECRETS, TOKENS, write
from tests.support.chat_service import ASK, Service, running

OPERATOR = "the operator's own token"
VOTE = {"thumb": {"answer": {"completion_id": "a"}, "up": True}}


HASH = PersonHash(b"a salt")


def authorization(folder: Path) -> Authorization:
    return Authorization(Keys(folder / "keys.json"), OPERATOR, HASH)


@pytest.fixture
def keyed(tmp_path: Path) -> Authorization:
    write(tmp_path)
    return authorization(tmp_path)


def said(key: str, end_user: str = "") -> dict[str, str]:
    headers = {"authorization": f"Bearer {TOKENS.get(key, key)}"}
    return headers | ({"x-end-user": end_user} if end_user else {})


def test_a_key_speaks_for_its_owner(keyed: Authorization) -> None:
    assert keyed.admit("chat", said("chat")) == Caller(
        roles=frozenset({"chat"}), key_id=ENTRIES["chat"].id, owner="owner of chat", person=HASH("owner of chat")
    )


def test_a_backends_key_speaks_for_whom_it_signs(keyed: Authorization) -> None:
    people = [
        keyed.admit("chat", said(key, sign(SECRETS[key], name))).person
        for key, name in (("backend", "ann"), ("backend", "bob"), ("another shop", "ann"))
    ]
    assert people == [HASH("shop\nann"), HASH("shop\nbob"), HASH("other shop\nann")]


@pytest.mark.parametrize(
    ("key", "end_user", "code"),
    [
        ("backend", "", "missing_signature"),
        ("backend", "ann", "invalid_signature"),
        ("backend", sign(SECRETS["another shop"], "ann"), "invalid_signature"),
        ("backend", sign(SECRETS["backend"], "ann", lifetime_s=-3600), "expired_signature"),
        ("backend", sign(SECRETS["backend"], "ann", lifetime_s=200_000), "invalid_signature"),
        ("chat", sign(SECRETS["backend"], "ann"), "invalid_signature"),
        (OPERATOR, sign(SECRETS["backend"], "ann"), "invalid_signature"),
    ],
    ids=[
        "none",
        "a name",
        "another key's",
        "expired",
        "for too long",
        "by a key that signs nothing",
        "by the operator",
    ],
)
def test_a_name_that_was_not_signed_by_this_key_is_refused(
    keyed: Authorization, key: str, end_user: str, code: str
) -> None:
    with pytest.raises(ApiError) as refused:
        keyed.admit("chat", said(key, end_user))
    assert (refused.value.status, refused.value.code) == (401, code)


def test_a_key_of_another_role_is_told_which_is_needed(keyed: Authorization) -> None:
    with pytest.raises(ApiError, match=f"key {ENTRIES['chat'].id} has the roles chat, .* the role feedback") as refused:
        keyed.admit("feedback", said("chat"))
    assert (refused.value.status, refused.value.code) == (403, "role_needed")


def test_what_is_public_asks_nobody(keyed: Authorization) -> None:
    assert keyed.admit("public", said("unknown")).person == ""


@pytest.mark.parametrize("header", ["{}", "Basic {}", "Bearer", "Bearer {} {}", ""])
def test_a_key_is_a_bearers(keyed: Authorization, header: str) -> None:
    with pytest.raises(ApiError) as refused:
        keyed.admit("chat", {"authorization": header.replace("{}", TOKENS["chat"])})
    assert refused.value.status == 401


@pytest.mark.parametrize("header", ["bearer {}", "BEARER  {} "])
def test_its_scheme_is_written_in_any_case(keyed: Authorization, header: str) -> None:
    assert keyed.admit("chat", {"authorization": header.format(TOKENS["chat"])}).owner == "owner of chat"


def test_without_keys_anybody_speaks_under_any_name(tmp_path: Path) -> None:
    """Clients of OpenAI's API always send some key."""
    for key in ("", "sk-anything"):
        caller = authorization(tmp_path).admit("feedback", said(key))
        assert (caller.person, caller.names_itself, caller.may("operator")) == ("", True, False)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "192.0.2.1", "chat.example.org"])
def test_without_keys_only_this_machine_is_served(tmp_path: Path, host: str) -> None:
    with pytest.raises(ConfigError, match=r"there are no keys: .* `rlhf-online keys create .* 127\.0\.0\.1"):
        authorization(tmp_path).check_host(host)
    write(tmp_path)
    authorization(tmp_path).check_host(host)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_on_this_machine_no_keys_are_needed(tmp_path: Path, host: str) -> None:
    authorization(tmp_path).check_host(host)


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[Service]:
    write(tmp_path / "state")
    async with running(tmp_path) as service:
        yield service


async def asked(service: Service, path: str, body: dict[str, Any], key: str, end_user: str = "") -> int:
    headers = {name.title(): value for name, value in said(key, end_user).items()}
    async with service.session.post(service.url + path, json=body, headers=headers) as response:
        return response.status


async def test_the_name_in_a_body_is_taken_and_not_believed(service: Service) -> None:
    """Votes and answers are the person's who proved to be it, whoever `user` says; streams too."""
    signed = sign(SECRETS["backend"], "ann")
    for path, body in (
        ("/v1/chat/completions", {**ASK, "user": "bob"}),
        ("/v1/chat/completions", {**ASK, "user": "bob", "stream": True}),
        ("/v1/feedback", {**VOTE, "user": "bob"}),
    ):
        assert await asked(service, path, body, "backend", signed) == 200
    logged = [envelope.event for envelope in service.sink.envelopes]
    assert [getattr(event, "person", None) for event in logged] == [service.state.person_hash()("shop\nann")] * 3


async def test_nobody_changes_the_vote_of_another_person(service: Service) -> None:
    headers = [said("backend", sign(SECRETS["backend"], name)) for name in ("ann", "bob")]
    async with service.session.post(service.url + "/v1/feedback", json=VOTE, headers=headers[0]) as response:
        vote = (await response.json())["event_id"]
    change = {**VOTE, "user": "ann", "replaces": vote}
    for header, status in ((headers[1], 403), (headers[0], 200)):
        async with service.session.post(service.url + "/v1/feedback", json=change, headers=header) as response:
            assert response.status == status


async def test_a_caller_is_told_who_it_is(service: Service) -> None:
    """So that a page can say beforehand what a key is not for."""
    for role in ("read", "operator"):
        async with service.session.get(service.url + "/v1/caller", headers=said(role)) as response:
            told = await response.json()
        assert told == {"roles": [role], "key_id": ENTRIES[role].id, "owner": f"owner of {role}"}
