"""The state folder keeps its secrets to its owner and replaces files whole."""

import json
import os
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
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


@pytest.mark.parametrize(
    ("variable", "file", "read"),
    [
        ("RLHF_OPERATOR_TOKEN", "operator.token", StateDir.operator_token),
        ("RLHF_PERSON_SALT", "person.salt", lambda state: state.person_hash().salt.decode()),
    ],
)
def test_services_that_share_no_folder_have_their_secrets_from_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str, file: str, read: Callable[[StateDir], str]
) -> None:
    own = read(StateDir(tmp_path / "with-a-file"))
    monkeypatch.setenv(variable, "0123456789abcdef\n")
    assert read(StateDir(tmp_path / "with-a-file")) == read(StateDir(tmp_path / "new")) == "0123456789abcdef" != own
    assert not (tmp_path / "new" / file).exists()
    monkeypatch.setenv(variable, "short")
    with pytest.raises(SecretLost, match=f"{variable} holds 5 characters, and a secret has at least 16"):
        read(StateDir(tmp_path / "new"))


def test_a_log_bears_the_mark_of_the_hash_that_names_people_in_it(tmp_path: Path) -> None:
    persons = StateDir(tmp_path).person_hash()
    persons.sign(tmp_path / "log")
    persons.sign(tmp_path / "log")
    [mark] = (tmp_path / "log").iterdir()
    assert mark.read_text() == persons.fingerprint


def test_hashes_are_the_same_for_good(tmp_path: Path) -> None:
    (tmp_path / "person.salt").write_text("a salt of some time ago\n")
    assert StateDir(tmp_path).person_hash()("ada") == "ba77bce2e2710419cd8f3d45bc948361"
    assert StateDir(tmp_path).person_hash().fingerprint == "a419021204557be7", "a log holds it"


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


# Who may read it


def modes(root: Path) -> dict[str, int]:
    """By name below `root`, what others may do."""
    return {str(path.relative_to(root)): path.stat().st_mode & 0o077 for path in (root, *root.rglob("*"))}


@pytest.fixture
def open_umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.mark.usefixtures("open_umask")
def test_others_may_read_nothing_neither_old_nor_new(tmp_path: Path) -> None:
    state = StateDir(tmp_path / "state")
    state.write_status("trainer", {"cycle": 1})
    (state.checkpoints / "0" / "answers").mkdir(parents=True)
    (state.checkpoints / "0" / "answers" / "a").write_text("a conversation")
    (state.root / "operator.token").write_text("a token of thirty characters at least")
    assert all(modes(state.root).values())
    state.close_to_others()
    (state.root / "new").mkdir()
    state.write_status("chat", {})
    assert set(modes(state.root).values()) == {0}
    assert (state.checkpoints / "0" / "answers" / "a").read_text() == "a conversation"


@pytest.mark.usefixtures("open_umask")
def test_a_folder_that_is_not_there_is_made_closed(tmp_path: Path) -> None:
    StateDir(tmp_path / "new" / "state").close_to_others()
    assert modes(tmp_path / "new" / "state") == {".": 0}


@pytest.mark.usefixtures("open_umask")
def test_nothing_is_closed_that_is_not_of_the_state(tmp_path: Path) -> None:
    """A state folder that is somebody's project folder; weights that are linked from elsewhere."""
    state = StateDir(tmp_path)
    model, code = tmp_path / "model.safetensors", tmp_path / "project" / "code.py"
    code.parent.mkdir()
    for path in (model, code):
        path.write_text("")
    version = state.versions / "policy-000000"
    version.mkdir(parents=True)
    os.link(model, version / "model.safetensors")
    (version / "link").symlink_to(code)
    state.close_to_others()
    assert modes(tmp_path / "project") == {".": 0o077, "code.py": 0o066}
    assert model.stat().st_mode & 0o077 == 0o066
    assert tmp_path.stat().st_mode & 0o077 == version.stat().st_mode & 0o077 == 0


@pytest.mark.skipif(os.getuid() != 0, reason="only root starts a process of another user")
@pytest.mark.parametrize(("mode", "owner"), [(0o700, 0), (0o755, 0), (0o777, 0), (0o755, 65534)])
def test_a_volume_of_another_user_is_refused_in_one_sentence(mode: int, owner: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        state = Path(folder, "state")
        state.mkdir()
        state.chmod(mode)
        os.chown(state, owner, owner)
        command = [sys.executable, "-m", "tests.support.other_user", "65534", str(state)]
        done = subprocess.run(command, capture_output=True, text=True)
        left = state.stat().st_mode & 0o777
    if owner:
        assert (done.returncode, left) == (0, 0o700)
    else:
        assert (done.returncode, left) == (1, mode)
        assert done.stderr.startswith(f"error: {state} cannot be closed to other users")
        assert f"this process runs as user 65534, and user 0 owns {state}): make it the same user" in done.stderr
