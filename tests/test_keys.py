"""The file of API keys: what it holds, who may read it, and what is said of one that is damaged."""

import json
import os
import stat
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from rlhf_online import keys
from rlhf_online.errors import FileDamaged, InvalidInput


def test_a_key_is_kept_nowhere_and_known_again(tmp_path: Path) -> None:
    path = tmp_path / "state" / "keys.json"
    key, token = keys.make("ann", ["chat", "chat", "read"])
    assert keys.add(path, key), "the file is new"
    assert keys.read(path) == (key,)
    assert (key.roles, key.owner) == (("chat", "read"), "ann")
    assert token not in path.read_text() and token.rpartition("_")[2] not in path.read_text()
    assert keys.id_of(token) == key.id
    assert key.is_of(token)
    assert not key.is_of(token[:-1] + ("a" if token[-1] != "a" else "b"))
    assert len(token) == len("rlhf_") + 8 + 1 + 43, "32 random bytes"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


@pytest.mark.parametrize("token", ["", "rlhf_", "rlhf_12345678", "rlhf_12345678_", "sk-1_2", "12345678_x"])
def test_what_is_no_key_has_no_id(token: str) -> None:
    assert keys.id_of(token) == ""


def test_secrets_are_not_shown() -> None:
    key, _ = keys.make("shop", ["chat"], signs=True)
    assert len(key.signing_secret) == 43
    assert key.signing_secret not in repr(key) and key.sha256 not in repr(key)


@pytest.mark.parametrize(
    ("owner", "roles", "message"),
    [
        ("", ["chat"], "owner: expected 1 to 256 printable characters"),
        ("a\nb", ["chat"], "owner: expected"),
        ("x" * 257, ["chat"], "owner: expected"),
        ("ann", ["king"], r"roles\[0\]: .*'operator'"),
        ("ann", [], "roles: "),
    ],
)
def test_a_key_that_cannot_be(owner: str, roles: list[str], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        keys.make(owner, roles)


def test_it_ends_at_its_time() -> None:
    key, _ = keys.make("ann", ["chat"], expires=datetime(2026, 1, 1, tzinfo=UTC))
    assert key.expired(datetime(2026, 1, 1, tzinfo=UTC))
    assert not key.expired(datetime(2026, 1, 1, tzinfo=UTC) - timedelta(seconds=1))


def test_a_revoked_key_stays_in_the_file_and_keeps_its_first_time(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    made = [keys.make("ann", ["chat"]) for _ in range(3)]
    for key, _ in made:
        keys.add(path, key)
    revoked = keys.revoke(path, made[1][0].id)
    assert revoked.revoked is not None
    assert keys.revoke(path, made[1][1]) == revoked, "also by the key itself"
    assert keys.read(path) == (made[0][0], revoked, made[2][0])
    with pytest.raises(InvalidInput, match="no key 'x'"):
        keys.revoke(path, "x")
    with pytest.raises(InvalidInput, match="no keys in"):
        keys.revoke(tmp_path / "other.json", "x")
    assert list(tmp_path.glob("other*")) == []


def test_many_that_write_at_once_lose_no_key(tmp_path: Path) -> None:
    path, made = tmp_path / "keys.json", [keys.make("ann", ["chat"])[0] for _ in range(16)]
    threads = [threading.Thread(target=keys.add, args=(path, key), daemon=True) for key in made]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {key.id for key in keys.read(path) or ()} == {key.id for key in made}


@pytest.mark.parametrize("mode", [0o604, 0o644, 0o620, 0o602])
def test_a_file_that_others_may_read_or_change_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "keys.json"
    keys.add(path, keys.make("ann", ["chat"])[0])
    path.chmod(mode)
    with pytest.raises(FileDamaged, match=f"by others.*chmod 600 {path}"):
        keys.read(path)


def test_its_group_may_be_let_read_and_remains_so(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    keys.add(path, keys.make("ann", ["chat"])[0])
    path.chmod(0o640)
    umask = os.umask(0)
    try:
        keys.add(path, keys.make("bob", ["chat"])[0])
    finally:
        os.umask(umask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert len(keys.read(path) or ()) == 2


def test_a_file_of_some_time_ago_is_read() -> None:
    text = """{"keys": [{"id": "3f9a2c1e", "roles": ["chat"], "owner": "ann", "created": "2026-11-28T00:00:00Z",
        "sha256": "832b9c4d1a1c8a92bffd0edabc3c4206acfd829a0ecf2a30ff8b953946fd2da9"}]}"""
    [key] = keys.parse(text, "keys.json")
    assert key.is_of("rlhf_3f9a2c1e_secret of some time ago")
    assert (key.expires, key.revoked, key.signing_secret) == (None, None, "")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sha256": "secret words"}, r"keys\[0\].sha256"),
        ({"roles": ["king"]}, r"keys\[0\].roles\[0\]"),
        ({"expires": "2026-11-28T00:00:00"}, r"keys\[0\].expires: .*timezone"),
        ({"signing_secret": "secret words"}, r"keys\[0\].signing_secret"),
        ({"king": "secret words"}, r"keys\[0\].king"),
        ({"id": ""}, r"keys\[0\].id"),
    ],
)
def test_a_mistake_is_named_without_its_value(change: dict[str, object], message: str) -> None:
    key = json.loads(keys.make("ann", ["chat"])[0].model_dump_json())
    with pytest.raises(FileDamaged, match=message) as refused:
        keys.parse(json.dumps({"keys": [key | change]}), "RLHF_KEYS")
    assert "RLHF_KEYS holds no keys" in str(refused.value)
    assert "secret words" not in str(refused.value)


def test_two_keys_of_one_id_are_refused() -> None:
    key = json.loads(keys.make("ann", ["chat"])[0].model_dump_json())
    with pytest.raises(FileDamaged, match="two keys of one id"):
        keys.parse(json.dumps({"keys": [key, key]}), "keys.json")
