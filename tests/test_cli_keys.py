"""`rlhf-online keys`: a key is printed once and alone, for scripts; every mistake is one sentence."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from rlhf_online import keys
from rlhf_online.cli import main
from rlhf_online.keys import Key
from rlhf_online.state import StateDir

Captured = pytest.CaptureFixture[str]


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


def create(state: Path, *options: str) -> int:
    return main(["keys", "create", "--owner", "ann", "--state", str(state), *options])


def only(state: Path) -> Key:
    found = keys.read(StateDir(state).keys)
    assert found is not None and len(found) == 1
    return found[0]


def test_a_key_is_all_that_a_script_reads(state: Path, capsys: Captured) -> None:
    assert create(state) == 0
    said = capsys.readouterr()
    [token] = said.out.splitlines()
    key = only(state)
    assert key.is_of(token)
    assert (key.owner, key.roles, key.expires) == ("ann", ("chat", "feedback"), None)
    assert f"key {key.id} of ann may chat, feedback, for good" in said.err
    assert "from now on every call needs a key" in said.err
    assert create(state) == 0
    assert "every call" not in capsys.readouterr().err


def test_a_backends_secret_follows_its_key(state: Path, capsys: Captured) -> None:
    assert create(state, "--signs", "--role", "read", "--role", "chat") == 0
    token, secret = capsys.readouterr().out.splitlines()
    key = only(state)
    assert key.is_of(token) and key.signing_secret == secret
    assert key.roles == ("read", "chat")


@pytest.mark.parametrize(("given", "lasts"), [("90d", timedelta(days=90)), ("12h", timedelta(hours=12))])
def test_a_key_may_end(state: Path, given: str, lasts: timedelta) -> None:
    before = datetime.now(UTC).replace(microsecond=0)
    assert create(state, "--expires", given) == 0
    key = only(state)
    assert key.expires is not None and before + lasts <= key.expires <= datetime.now(UTC) + lasts


def test_a_day_means_its_end(state: Path) -> None:
    assert create(state, "--expires", "2999-01-31") == 0
    key = only(state)
    assert key.expires == datetime(2999, 2, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--expires", "soon"], "--expires soon: expected 90d, 12h or a day"),
        (["--expires", "9999999d"], "--expires 9999999d: "),
        (["--expires", "9999-12-31"], "--expires 9999-12-31: "),
        (["--expires", "2020-01-01"], "--expires 2020-01-01 is over"),
        (["--expires", "0h"], "--expires 0h is over"),
        (["--role", "king"], "roles[0]: "),
        (["--owner", ""], "owner: expected 1 to 256 printable characters"),
    ],
)
def test_a_mistake_makes_no_key(state: Path, capsys: Captured, options: list[str], message: str) -> None:
    assert create(state, *options) == 2
    said = capsys.readouterr()
    assert message in said.err and said.out == ""
    assert not state.exists()


def test_they_are_listed_with_what_became_of_them(state: Path, capsys: Captured) -> None:
    assert main(["keys", "list", "--state", str(state)]) == 0
    assert "no keys in" in capsys.readouterr().err
    path = StateDir(state).keys
    made = [
        keys.make("ann", ["chat"]),
        keys.make("late", ["read"], expires=datetime(2026, 1, 2, 3, 4, tzinfo=UTC)),
        keys.make("shop", ["feedback"], signs=True),
    ]
    for key, _ in made:
        keys.add(path, key)
    assert main(["keys", "revoke", made[0][0].id, "--state", str(state)]) == 0
    assert f"key {made[0][0].id} of ann is revoked" in capsys.readouterr().out
    assert main(["keys", "list", "--file", str(path)]) == 0
    said = capsys.readouterr().out
    rows = [line.split(maxsplit=2) for line in said.splitlines()[1:]]
    assert [row[:2] for row in rows] == [[key.id, key.owner] for key, _ in made]
    assert " revoked " in rows[0][2]
    assert "2026-01-02 03:04Z expired" in rows[1][2]
    assert rows[2][2].endswith("valid, for end users")
    for key, token in made:
        assert token not in said and key.sha256 not in said
        assert not key.signing_secret or key.signing_secret not in said


def test_what_is_not_there_is_not_revoked(state: Path, capsys: Captured) -> None:
    assert main(["keys", "revoke", "3f9a2c1e", "--state", str(state)]) == 2
    assert "no keys in" in capsys.readouterr().err and not state.exists()
    keys.add(StateDir(state).keys, keys.make("ann", ["chat"])[0])
    assert main(["keys", "revoke", "3f9a2c1e", "--state", str(state)]) == 2
    assert "no key '3f9a2c1e'" in capsys.readouterr().err


def test_a_damaged_file_is_not_written_over(state: Path, capsys: Captured) -> None:
    path = StateDir(state).keys
    keys.add(path, keys.make("ann", ["chat"])[0])
    half = path.read_text()[:-9]
    path.write_text(half)
    assert create(state) == 1
    assert f"{path} holds no keys" in capsys.readouterr().err
    assert path.read_text() == half


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path, capsys: Captured) -> None:
    (tmp_path / "file").write_text("")
    assert create(tmp_path / "file" / "state") == 2
    assert f"{tmp_path}/file/state/keys.json cannot be written (Not a directory)" in capsys.readouterr().err
