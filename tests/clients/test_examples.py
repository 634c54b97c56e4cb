"""Each program of examples/ runs as it is, in a process of its own, against the service, and its votes are logged.

What a client's own runtime needs is installed by `make clients`; without it that client's tests are skipped.
"""

import asyncio
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from rlhf_online.events import Correction, Pairwise, Thumb, Withdrawal
from tests.support.chat_service import Service

ROOT = Path(__file__).resolve().parents[2]
CLIENTS = ROOT / "build" / "clients"
PYTHON = CLIENTS / "bin" / "python"
NODE = shutil.which("node") or ""
GRPCURL = shutil.which("grpcurl", path=f"{CLIENTS / 'bin'}{os.pathsep}{os.environ['PATH']}") or ""
MESSAGES = [
    {"type": "message", "ts": "1.1", "user": "ann", "text": "What is a gate?"},
    {"type": "reaction_added", "user": "ann", "reaction": "+1", "item": {"ts": "1.1"}},
    {"type": "reaction_added", "user": "bob", "reaction": "-1", "item": {"ts": "1.1"}},
    {"type": "reaction_added", "user": "bob", "reaction": "tada", "item": {"ts": "1.1"}},
    {"type": "reaction_removed", "user": "bob", "reaction": "-1", "item": {"ts": "1.1"}},
]


async def run(service: Service, command: list[str], fed: str = "") -> str:
    """What the program wrote; it must end well."""
    own = {"OPENAI_BASE_URL": service.url + "/v1", "OPENAI_API_KEY": "none", "RLHF_GRPC": service.grpc}
    environment = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=ROOT,
        env={**environment, "PYTHONPATH": str(ROOT), "LITELLM_LOCAL_MODEL_COST_MAP": "True", **own},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    written, errors = await process.communicate(fed.encode())
    assert process.returncode == 0, (errors + written).decode()
    return written.decode()


def kinds(service: Service) -> list[Any]:
    """The votes' kinds in the log's order; each vote is about an answer of the log."""
    asked = {completion.completion_id for completion in service.sink.completions}
    votes = service.sink.feedback
    assert all(ref.completion_id in asked for vote in votes for ref in vote.answers())
    return [type(vote.kind) for vote in votes]


async def test_openai_python(service: Service) -> None:
    assert "hello there" in await run(service, [sys.executable, "examples/openai_python.py"])
    assert kinds(service) == [Thumb, Thumb, Correction, Withdrawal]
    first, second, correction, withdrawal = service.sink.feedback
    assert first.answers() != second.answers() == correction.answers() == withdrawal.answers()


async def test_openai_async(service: Service) -> None:
    await run(service, [sys.executable, "examples/openai_async.py"])
    assert kinds(service) == [Pairwise]


async def test_grpcio(service: Service) -> None:
    assert "hello there" in await run(service, [sys.executable, "examples/grpcio_chat.py"])
    assert kinds(service) == [Thumb]


@pytest.mark.parametrize(
    "real", [pytest.param(True, marks=pytest.mark.skipif(not GRPCURL, reason="make clients, with Go")), False]
)
async def test_grpcurl(service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, real: bool) -> None:
    """By grpcurl itself, and everywhere by what does the same calls in Python: reflection tells both all they know."""
    if not real:
        program = tmp_path / "grpcurl"
        program.write_text(f'#!/bin/sh\nexec {sys.executable} -m tests.support.grpcurl "$@"\n')
        program.chmod(0o700)
    monkeypatch.setenv("PATH", str(Path(GRPCURL).parent if real else tmp_path), prepend=os.pathsep)
    written = await run(service, ["sh", "examples/grpcurl.sh"])
    assert written.count("hello there") == 2 and "event_id" in written
    assert kinds(service) == [Thumb] and len(service.sink.completions) == 2


async def test_a_bots_thumbs(service: Service) -> None:
    fed = "".join(json.dumps(event) + "\n" for event in MESSAGES)
    assert await run(service, [sys.executable, "examples/slack_thumbs.py"], fed) == "hello there\n"
    assert kinds(service) == [Thumb, Thumb, Withdrawal]
    assert [vote.source for vote in service.sink.feedback] == ["slack"] * 3
    assert len({vote.person for vote in service.sink.feedback}) == 2


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")
async def test_curl(service: Service) -> None:
    for _ in range(2):
        assert "event_id" in await run(service, ["sh", "examples/curl.sh"])
    assert kinds(service) == [Thumb, Thumb]


@pytest.mark.skipif(not PYTHON.exists(), reason="make clients installs LangChain, LiteLLM and llm")
async def test_langchain(service: Service) -> None:
    assert "hello there" in await run(service, [str(PYTHON), "examples/langchain_chat.py"])
    assert kinds(service) == [Thumb]


@pytest.mark.skipif(not PYTHON.exists(), reason="make clients installs LangChain, LiteLLM and llm")
async def test_litellm(service: Service) -> None:
    program = """
import os, litellm
from rlhf_online.client import Feedback
said = {"model": "openai/rlhf-online", "messages": [{"role": "user", "content": "hi"}],
        "api_base": os.environ["OPENAI_BASE_URL"]}
answer = litellm.completion(**said)
print(answer.choices[0].message.content)
print("".join(chunk.choices[0].delta.content or "" for chunk in litellm.completion(**said, stream=True)))
try:
    litellm.completion(**{**said, "model": "openai/gpt-4"})
except litellm.NotFoundError as error:
    print("no such model")
Feedback(os.environ["OPENAI_BASE_URL"]).thumb(answer, up=True)
"""
    written = await run(service, [str(PYTHON), "-c", program])
    said = [line for line in written.splitlines() if "litellm" not in line.lower() and line]  # it talks of itself
    assert said[:2] == ["hello there"] * 2 and said[-1] == "no such model"
    assert kinds(service) == [Thumb]


@pytest.mark.skipif(not PYTHON.exists(), reason="make clients installs LangChain, LiteLLM and llm")
async def test_llm_from_the_command_line(service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLM_USER_PATH", str(tmp_path))
    model = f"- model_id: here\n  model_name: rlhf-online\n  api_base: {service.url}/v1\n"
    (tmp_path / "extra-openai-models.yaml").write_text(model)
    for flags in ([], ["--no-stream"]):
        command = [str(PYTHON), "-m", "llm", "prompt", "-m", "here", "--key", "none", *flags, "hi"]
        assert (await run(service, command)).strip() == "hello there"


@pytest.mark.skipif(not NODE or not (CLIENTS / "node_modules" / "openai").exists(), reason="make clients, with Node")
async def test_openai_node(service: Service) -> None:
    copy = CLIENTS / "openai_node.mjs"  # Node looks for packages beside the program
    copy.write_text((ROOT / "examples" / "openai_node.mjs").read_text())
    assert (await run(service, [NODE, str(copy)])).startswith("hello there\n")
    assert kinds(service) == [Thumb]


def test_every_example_is_run() -> None:
    here = Path(__file__).read_text()
    for example in (ROOT / "examples").iterdir():
        assert f"examples/{example.name}" in here or f'"{example.name}"' in here
