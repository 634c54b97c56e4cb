"""The keys that hold while a service runs: what is made or revoked holds at once, and a bad file changes nothing."""

import json
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from rlhf_online import keys
from rlhf_online.errors import SecretLost
from rlhf_online.keys import Key
from services.chat.access.keys import Keys
from services.chat.bodies.api_error import ApiError
from tests.support.api_keys import ENTRIES, TOKENS, write
from tests.support.chat_service import Service, running
from tests.support.waiting import eventually

VOTE = {"thumb": {"answer": {"completion_id": "a"}, "up": True}}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write(tmp_path)


@pytest.fixture
async def keyed(tmp_path: Path) -> AsyncIterator[Service]:
    write(tmp_path / "state")
    async with running(tmp_path) as service:
        yield service


def code(held: Keys, token: str) -> str | None:
    try:
        held.find(token)
    except ApiError as error:
        assert error.status == 401
        assert not token or token not in str(error)
        return error.code
    return None


def test_a_key_that_does_not_hold_says_why(path: Path) -> None:
    held = Keys(path)
    assert held.find(TOKENS["chat"]) == ENTRIES["chat"]
    assert code(held, "") == "missing_api_key"
    assert code(held, TOKENS["unknown"]) == "invalid_api_key"
    assert code(held, TOKENS["chat"] + "x") == "invalid_api_key"
    assert code(held, TOKENS["expired"]) == "expired_api_key"
    assert code(held, TOKENS["revoked"]) == "revoked_api_key"
    for name in ("expired", "revoked"):
        with pytest.raises(ApiError, match=f"key {ENTRIES[name].id} .*2026-01-02"):
            held.find(TOKENS[name])
    forged = TOKENS["revoked"].rpartition("_")[0] + "_" + "x" * 43
    assert code(held, forged) == "invalid_api_key", "only who has the key learns that it was revoked"


def test_of_ten_thousand_keys_one_is_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, token = keys.make("ann", ["chat"])
    entry = json.loads(ENTRIES["chat"].model_dump_json())
    many = [entry | {"id": f"{number:08x}"} for number in range(10_000)]
    path = tmp_path / "keys.json"
    path.write_text(json.dumps({"keys": many}))
    path.chmod(0o600)
    asked: list[str] = []
    is_of = Key.is_of
    monkeypatch.setattr(Key, "is_of", lambda key, token: asked.append(key.id) or is_of(key, token))
    held = Keys(path)
    assert code(held, f"rlhf_{9_999:08x}_{token.rpartition('_')[2]}") == "invalid_api_key"
    assert asked == [f"{9_999:08x}"]


def test_what_is_made_and_revoked_holds_without_a_restart(path: Path) -> None:
    held = Keys(path)
    key, token = keys.make("bob", ["read"])
    assert code(held, token) == "invalid_api_key"
    keys.add(path, key)
    held.refresh()
    assert code(held, token) is None
    keys.revoke(path, key.id)
    held.refresh()
    assert code(held, token) == "revoked_api_key"
    assert held.trouble == ""


async def test_a_service_follows_its_file_by_itself(keyed: Service) -> None:
    assert (await keyed.post("/v1/feedback", VOTE, TOKENS["feedback"]))[0] == 200
    assert [vote.key_id for vote in keyed.sink.feedback] == [ENTRIES["feedback"].id], "a vote says which it came with"
    keys.revoke(keyed.state.keys, ENTRIES["feedback"].id)

    async def refused() -> bool:
        return (await keyed.post("/v1/feedback", VOTE, TOKENS["feedback"]))[0] == 401

    await eventually(refused, 30.0, "a revoked key to be refused")


@pytest.mark.parametrize("damage", ["cut", "emptied", "no json", "open to others", "removed"])
def test_a_bad_file_keeps_the_last_good_one_and_says_so(path: Path, damage: str) -> None:
    held, whole = Keys(path), path.read_text()
    match damage:
        case "cut":
            path.write_text(whole[: len(whole) // 2])
        case "emptied":
            path.write_text("")
        case "no json":
            path.write_text("keys")
        case "open to others":
            path.chmod(0o644)
        case _:
            path.unlink()
    held.refresh()
    assert code(held, TOKENS["chat"]) is None
    assert code(held, "") == "missing_api_key"
    assert str(path) in held.trouble and "the keys that were read before hold" in held.trouble
    path.unlink(missing_ok=True)
    keys.add(path, ENTRIES["read"])
    held.refresh()
    assert held.trouble == ""
    assert code(held, TOKENS["chat"]) == "invalid_api_key", "the new file holds no such key"
    assert code(held, TOKENS["read"]) is None


def test_half_of_the_file_is_never_taken_for_all_of_it(path: Path) -> None:
    held, whole = Keys(path), path.read_bytes()
    for length in range(0, len(whole), 97):
        path.write_bytes(whole[:length])
        held.refresh()
        assert held.trouble
        assert code(held, TOKENS["chat"]) is None


def test_while_many_are_made_no_key_is_lost(path: Path) -> None:
    held = Keys(path)
    made = [keys.make("ann", ["chat"]) for _ in range(40)]

    def add() -> None:
        for key, _ in made:
            keys.add(path, key)

    thread = threading.Thread(target=add, daemon=True)
    thread.start()
    while thread.is_alive():
        held.refresh()
        assert held.trouble == ""
        assert code(held, TOKENS["chat"]) is None
    held.refresh()
    assert {code(held, token) for _, token in made} == {None}


async def test_what_is_wrong_with_the_file_is_told_as_of_the_other_secrets(keyed: Service) -> None:
    assert (await keyed.get("/readyz"))[1]["secrets"] == "ok"
    keyed.state.keys.unlink()
    keyed.chat.keys.refresh()
    assert f"{keyed.state.keys} is gone" in (await keyed.get("/readyz"))[1]["secrets"]
    assert await keyed.metric("rlhf_chat_secrets_intact") == 0


def test_a_start_with_a_bad_file_is_refused(path: Path) -> None:
    path.write_text(path.read_text()[:-3])
    with pytest.raises(SecretLost, match=f"{path} holds no keys"):
        Keys(path)


def test_a_file_without_keys_lets_nobody_in(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    assert not Keys(path).required
    path.write_text('{"keys": []}')
    path.chmod(0o600)
    assert Keys(path).required


def test_keys_of_the_environment_hold_beside_those_of_the_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key, token = keys.make("ann", ["chat"])
    monkeypatch.setenv("RLHF_KEYS", json.dumps({"keys": [json.loads(key.model_dump_json())]}))
    held = Keys(path)
    assert code(held, token) is code(held, TOKENS["chat"]) is None
    keys.revoke(path, ENTRIES["chat"].id)
    held.refresh()
    assert code(held, token) is None
    assert code(Keys(path.with_name("none.json")), token) is None
    monkeypatch.setenv("RLHF_KEYS", "{")
    with pytest.raises(SecretLost, match="RLHF_KEYS holds no keys"):
        Keys(path)
