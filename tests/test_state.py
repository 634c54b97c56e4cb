"""The state folder keeps its secrets to its owner and replaces files whole."""

import json
import stat
import threading
from pathlib import Path

import pytest

from rlhf_online.durable import write_json
from rlhf_online.errors import SecretLost
from rlhf_online.state import StateDir


def test_the_operators_token_is_made_once_and_for_the_owner_alone(tmp_path: Path) -> None:
    state = StateDir(tmp_path / "state")
    token = state.operator_token()
    assert len(token) == 43, "32 random bytes"
    assert StateDir(tmp_path / "state").operator_token() == token
    assert stat.S_IMODE((tmp_path / "state" / "operator.token").stat().st_mode) == 0o600


def test_of_many_that_ask_first_all_get_one_token(tmp_path: Path) -> None:
    tokens: list[str] = []
    threads = [
        threading.Thread(target=lambda: tokens.append(StateDir(tmp_path).operator_token()), daemon=True)
        for _ in range(2)
    ]
    tokens.append(StateDir(tmp_path).operator_token())
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(tokens) == 3
    assert len(set(tokens)) == 1


def test_a_person_is_a_keyed_hash(tmp_path: Path) -> None:
    hashed, other = StateDir(tmp_path / "a").person_hash(), StateDir(tmp_path / "b").person_hash()
    assert hashed("") == ""
    assert hashed("ada") == StateDir(tmp_path / "a").person_hash()("ada") != hashed("bob")
    assert hashed("ada") != other("ada"), "the key belongs to the installation"
    assert len(hashed("ada")) == 32
    assert stat.S_IMODE((tmp_path / "a" / "person.salt").stat().st_mode) == 0o600
    assert (tmp_path / "a" / "person.salt").read_text() not in repr(hashed)


def test_hashes_are_the_same_for_good(tmp_path: Path) -> None:
    (tmp_path / "person.salt").write_text("a salt of some time ago\n")
    assert StateDir(tmp_path).person_hash()("ada") == "ba77bce2e2710419cd8f3d45bc948361"


@pytest.mark.parametrize("content", ["", "\n", "short", 15 * "x"])
def test_a_secret_that_was_emptied_or_cut_is_refused(tmp_path: Path, content: str) -> None:
    state = StateDir(tmp_path)
    for name, read in (("operator.token", state.operator_token), ("person.salt", state.person_hash)):
        (tmp_path / name).write_text(content)
        with pytest.raises(SecretLost, match=name):
            read()


def test_a_secret_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "operator.token").mkdir()
    (tmp_path / "person.salt").write_bytes(b"\xff" * 32)
    with pytest.raises(SecretLost, match=r"operator.token cannot be read .*backup"):
        StateDir(tmp_path).operator_token()
    with pytest.raises(SecretLost, match=r"person.salt cannot be read .*backup"):
        StateDir(tmp_path).person_hash()


def test_a_secret_of_16_characters_is_long_enough(tmp_path: Path) -> None:
    (tmp_path / "operator.token").write_text(16 * "x" + "\n")
    assert StateDir(tmp_path).operator_token() == 16 * "x"


def test_status_is_replaced_whole(tmp_path: Path) -> None:
    state = StateDir(tmp_path)
    assert state.read_status("trainer") == {}
    state.write_status("trainer", {"cycle": 1})
    state.write_status("trainer", {"cycle": 2})
    assert state.read_status("trainer") == {"cycle": 2}
    write_json(tmp_path / "deep" / "file.json", [1])
    assert json.loads((tmp_path / "deep" / "file.json").read_text()) == [1]
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["file.json"], "nothing is left beside it"
