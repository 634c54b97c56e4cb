"""The process: what it imports, what it says to bad settings, how it starts and stops."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from rlhf_online.config import ChatSettings, EngineSettings, LogSettings, dump
from rlhf_online.errors import RlhfError
from rlhf_online.eventlog import open_source
from rlhf_online.eventlog.local import LocalLog
from rlhf_online.events import AnswerRef, Envelope, Feedback, Thumb
from rlhf_online.state import StateDir
from rlhf_online.wire import decode, encode
from services.chat.__main__ import main

ROOT = Path(__file__).resolve().parents[3]


def run(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *args], cwd=ROOT, capture_output=True, text=True, timeout=120)


def test_it_imports_neither_torch_nor_transformers_nor_vllm() -> None:
    code = (
        "import sys, services.chat.__main__, services.chat.service\n"
        "print([m for m in ('torch', 'transformers', 'vllm', 'kafka', 'peft') if m in sys.modules])"
    )
    result = run("-c", code)
    assert result.stdout.strip() == "[]", result.stderr


def test_a_missing_settings_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--config", str(tmp_path / "none.toml")]) == 2
    assert "no settings file" in capsys.readouterr().err


def test_a_misspelt_setting(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "chat.toml"
    path.write_text(f'state_dir = "{tmp_path}"\nhttp_prot = 5\n')
    assert main(["--config", str(path)]) == 2
    assert "http_prot" in capsys.readouterr().err


def settings(folder: Path, **fields: object) -> Path:
    path = folder / "chat.toml"
    engine = EngineSettings.model_validate({"mode": "external", "url": f"unix:{folder}/none.sock"})
    values = {"state_dir": folder / "state", "http_port": 0, "grpc_port": 0, "engine": engine, **fields}
    dump(ChatSettings.model_validate({**values, "engine": engine.model_dump(exclude_unset=True)}), path)
    return path


def test_a_port_in_use(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        result = run("-m", "services.chat", "--config", str(settings(tmp_path, http_port=port)))
    assert result.returncode == 1
    assert str(port) in result.stderr
    assert "in use" in result.stderr
    assert "Traceback" not in result.stderr


def test_without_keys_it_is_not_opened_to_others(tmp_path: Path) -> None:
    result = run("-m", "services.chat", "--config", str(settings(tmp_path, host="0.0.0.0")))
    assert result.returncode == 2, "starting it again would not help"
    assert "'0.0.0.0' opens the service to others, and there are no keys" in result.stderr
    assert "rlhf-online keys create" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_salt_that_is_gone(tmp_path: Path) -> None:
    """Exit code 2: starting it again would not help."""
    with LocalLog(tmp_path / "state" / "log") as log:
        thumb = Thumb(answer=AnswerRef(completion_id="a"), up=True)
        event = Feedback(conversation_id="c", person="0123456789abcdef", kind=thumb)
        log.append(encode(Envelope(event_id="1", event=event))).result()
    result = run("-m", "services.chat", "--config", str(settings(tmp_path)))
    assert result.returncode == 2
    assert "person.salt is gone" in result.stderr
    assert "Traceback" not in result.stderr


def test_it_takes_feedback_without_an_engine_and_ends_on_sigterm(tmp_path: Path) -> None:
    """No engine answers; votes are on disk all the same, and SIGTERM ends the process with code 0."""
    ready, state = tmp_path / "ready.json", StateDir(tmp_path / "state")
    path = settings(tmp_path, ready_file=ready)
    process = subprocess.Popen(
        [sys.executable, "-m", "services.chat", "--config", str(path)], cwd=ROOT, stderr=subprocess.PIPE, text=True
    )
    try:
        while not ready.exists():
            assert process.poll() is None, process.communicate()[1]
        ports = json.loads(ready.read_text())
        assert ports["pid"] == process.pid
        assert ports["grpc"] > 0
        url = f"http://127.0.0.1:{ports['http']}"
        body = {"thumb": {"answer": {"completion_id": "a"}, "up": True}}
        reply = httpx.post(f"{url}/v1/feedback", json=body, timeout=30).raise_for_status()
        assert reply.json()["position"] == {"local": 1}
        assert httpx.get(f"{url}/readyz", timeout=30).status_code == 503
        assert {path for path in (state.root, *state.root.rglob("*")) if path.stat().st_mode & 0o077} == set()
        os.kill(process.pid, signal.SIGTERM)
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
        assert "Traceback" not in errors
    finally:
        process.kill()
        process.communicate()
    source = open_source(LogSettings.model_validate({}), state.log)
    records, _ = source.read({}, 10)
    source.close()
    (event,) = [decode(record.payload).event for record in records]
    assert isinstance(event, Feedback)


def test_an_address_of_another_machine() -> None:
    from services.chat.service import listen

    with pytest.raises(RlhfError, match="http_port"):
        listen("192.0.2.1", 0)
