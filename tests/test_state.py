"""The state folder keeps its secrets to its owner and replaces files whole."""

import json
import stat
import threading
from pathlib import Path

from rlhf_online.state import StateDir, write_json


def test_the_operators_token_is_made_once_and_for_the_owner_alone(tmp_path: Path) -> None:
    state = StateDir(tmp_path / "state")
    token = state.operator_token()
    assert len(token) >= 32
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
    state, other = StateDir(tmp_path / "a"), StateDir(tmp_path / "b")
    assert state.person_hash("") == ""
    assert state.person_hash("ada") == state.person_hash("ada") != state.person_hash("bob")
    assert state.person_hash("ada") != other.person_hash("ada"), "the key belongs to the installation"
    assert len(state.person_hash("ada")) == 32


def test_status_is_replaced_whole(tmp_path: Path) -> None:
    state = StateDir(tmp_path)
    assert state.read_status("trainer") == {}
    state.write_status("trainer", {"cycle": 1})
    state.write_status("trainer", {"cycle": 2})
    assert state.read_status("trainer") == {"cycle": 2}
    write_json(tmp_path / "deep" / "file.json", [1])
    assert json.loads((tmp_path / "deep" / "file.json").read_text()) == [1]
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["file.json"], "nothing is left beside it"
