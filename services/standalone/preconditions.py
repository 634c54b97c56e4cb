"""What must hold before anything is started: the model, memory, disk, ports. Each failure says what to do about it."""

import errno
import json
import math
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import psutil

from rlhf_online.config import EngineSettings, RewardSettings
from rlhf_online.errors import ConfigError, InvalidInput, NotEnoughRoom, VersionCorrupt
from rlhf_online.gate.golden_prompts import read_golden
from rlhf_online.models.check import Finding, raise_refusals, told
from rlhf_online.models.check.folder import context, inspect_folder, read_config
from rlhf_online.models.tensor_headers import read_header
from rlhf_online.state import StateDir
from rlhf_online.training.settings import TrainerSettings
from rlhf_online.versions import open_registry
from rlhf_online.versions.registry import Registry
from rlhf_online.versions.weight_files import weight_files
from services.standalone.children import local_socket
from services.standalone.settings import StandaloneSettings

GIB = 1 << 30
FLOAT32 = 4
EXAMINE_TIMEOUT_S = 120.0
SOCKET_LIMIT = 107
PROCESSES_GIB = 3.5
"""Memory of all processes without any weights, shared pages counted once: measured, vLLM's three have most of it."""
LOGITS, ACTIVATIONS = 3, 16
"""Floats that the trainer keeps for a token: each logit (with its log-softmax and gradient) and, a layer, each hidden
unit. Measured: 3.6 GiB for 2,048 tokens of SmolLM2-135M."""


def check(settings: StandaloneSettings, *, available_bytes: int | None = None, free_bytes: int | None = None) -> None:
    """Raise the first thing that stands in the way of a start.

    `available_bytes` of memory and `free_bytes` of disk are measured where they are not given.
    """
    read_golden(settings.trainer.gate.golden.file)
    model = Path(settings.model)
    check_model(settings)
    count = parameters(model)
    if copies(settings):
        batch = settings.trainer.policy.micro_batch_tokens * token_bytes(model) if on_cpu(settings.trainer) else 0
        available = memory_available() if available_bytes is None else available_bytes
        check_memory(settings, count, batch, available)
    check_disk(settings.state_dir, count, disk_free(settings.state_dir) if free_bytes is None else free_bytes)
    check_port(settings.host, settings.chat.http_port, "chat.http_port (--port)")
    check_port(settings.host, settings.chat.grpc_port, "chat.grpc_port (--grpc-port)")
    check_socket(local_socket(settings))
    check_live_version(open_registry(StateDir(settings.state_dir).versions, settings=settings.versions))


def check_model(settings: StandaloneSettings) -> None:
    """Raises ConfigError for a folder of which files and configuration alone say that it cannot be served or learn.

    `full` may begin without weights.
    """
    model, engine = Path(settings.model), settings.chat.engine
    if not model.is_dir():
        raise ConfigError(f"no model folder at {model}: give one with --model (config.json, tokenizer, *.safetensors)")
    cpu = False if engine.mode == "external" or engine.device == "cuda" else None
    _refuse(model, inspect_folder(model, tuning=settings.tuning, cpu=cpu))
    most = context(read_config(model / "config.json"))
    if engine.mode == "managed" and 0 < most < engine.max_model_len:
        raise ConfigError(
            f"chat.engine.max_model_len is {engine.max_model_len}, and the model in {model} takes {most} tokens: "
            "set it to that or less"
        )
    if settings.trainer.reward.trunk:
        trunk = Path(settings.trainer.reward.trunk)
        _refuse(trunk, inspect_folder(trunk, tuning=settings.trainer.reward.tuning, served=False))


def _refuse(folder: Path, findings: Sequence[Finding]) -> None:
    try:
        raise_refusals(folder, findings)
    except InvalidInput as error:
        raise ConfigError(str(error)) from error


def examine_models(settings: StandaloneSettings) -> list[str]:
    """What transformers finds in the folders beyond `check_model`, in a process of its own, since this one loads no
    torch. Returns what people should know; raises ConfigError for what cannot work."""
    told = _examine(Path(settings.model), "--tuning", settings.tuning)
    if settings.trainer.reward.trunk:
        told += _examine(Path(settings.trainer.reward.trunk), "--tuning", settings.trainer.reward.tuning, "--trunk")
    return told


def _examine(model: Path, *options: str) -> list[str]:
    command = [sys.executable, "-m", "rlhf_online.models.check", str(model), "--json", *options]
    try:
        ended = subprocess.run(
            command, capture_output=True, text=True, timeout=EXAMINE_TIMEOUT_S, stdin=subprocess.DEVNULL
        )
        findings = [Finding(**values) for values in json.loads(ended.stdout.splitlines()[-1])["findings"]]
    except (subprocess.TimeoutExpired, ValueError, KeyError, IndexError, TypeError) as error:
        return [f"{model} could not be examined ({type(error).__name__}); `rlhf-online doctor {model}` says why"]
    _refuse(model, findings)
    return [told(model, finding) for finding in findings]


def parameters(model: Path) -> int:
    """Number of the model's weights, from the headers of their files; 0 if there are none. The files are whole."""
    return sum(math.prod(tensor.shape) for path in weight_files(model) for tensor in read_header(path).values())


def token_bytes(model: Path) -> int:
    """Memory that the trainer needs for each token of a batch, by config.json. Raises ConfigError."""
    path = model / "config.json"
    try:
        values = json.loads(path.read_text())
        values = {**values.get("text_config", {}), **values}
        vocabulary, layers, hidden = (
            next((int(values[name]) for name in names if values.get(name)), 0)
            for names in (("vocab_size",), ("num_hidden_layers", "n_layer"), ("hidden_size", "n_embd"))
        )
    except (ValueError, AttributeError, TypeError) as error:
        raise ConfigError(f"{path} is no model's configuration ({error}): fetch the model again") from error
    return FLOAT32 * (LOGITS * vocabulary + ACTIVATIONS * layers * hidden)


def copies(settings: StandaloneSettings) -> int:
    """How often the weights stand in main memory at once, in float32, optimiser state included.

    Engine 1. Policy: all weights trained 5 (weights, reference, gradients, two Adam moments), an adapter 1. Reward
    model in the trainer: 4 or 1. Reward service: 1. Those that compute on a GPU take none.
    """
    policy = 5 if settings.tuning == "full" else 1
    reward = 4 if settings.trainer.reward.tuning == "full" else 1
    counted = (
        (engine_on_cpu(settings), 1),
        (on_cpu(settings.trainer), policy + reward),
        (on_cpu(settings.reward), 1),
    )
    return sum(count for on, count in counted if on)


def engine_on_cpu(settings: StandaloneSettings) -> bool:
    """True if an engine is started here, and computes on the CPU."""
    return settings.chat.engine.mode == "managed" and on_cpu(settings.chat.engine)


def on_cpu(settings: EngineSettings | RewardSettings | TrainerSettings) -> bool:
    """True if weights stand in main memory, as far as one can tell without torch."""
    return settings.device == "cpu" or (settings.device == "auto" and not Path("/proc/driver/nvidia/version").exists())


def check_memory(settings: StandaloneSettings, count: int, batch: int, available: int) -> None:
    """Raises NotEnoughRoom. `count` weights; `batch` (of the trainer) and `available` in bytes."""
    weights = copies(settings) * count * FLOAT32
    cache = settings.chat.engine.kv_cache_gib if engine_on_cpu(settings) else 0.0
    needed = weights + batch + (cache + PROCESSES_GIB) * GIB
    if needed > available:
        raise NotEnoughRoom(
            f"about {needed / GIB:.1f} GiB of memory are needed and {available / GIB:.1f} are available: "
            f"{count / 1e6:.0f} M weights stand in memory {copies(settings)} times ({weights / GIB:.1f} GiB), a batch "
            f"takes {batch / GIB:.1f}, the cache {cache:g}, the processes {PROCESSES_GIB:g}. "
            "Take a smaller model, --tuning lora, less chat.engine.kv_cache_gib or trainer.policy.micro_batch_tokens, "
            "or more memory"
        )


def memory_available() -> int:
    """Bytes that could be used without swapping, a container's limit considered."""
    available = psutil.virtual_memory().available
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text().strip()
        used = int(Path("/sys/fs/cgroup/memory.current").read_text())
    except (OSError, ValueError):
        return available
    return available if limit == "max" else min(available, int(limit) - used)


def check_disk(folder: Path, count: int, free: int) -> None:
    """Raises NotEnoughRoom unless four copies of the weights and half a GiB of log fit."""
    needed = 4 * count * FLOAT32 + GIB // 2
    if free < needed:
        raise NotEnoughRoom(
            f"{folder} has {free / GIB:.1f} GiB free, and versions, checkpoints and log need about "
            f"{needed / GIB:.1f}: make room, or put the state elsewhere with --state"
        )


def disk_free(folder: Path) -> int:
    """Bytes free on the disk where `folder` is, or will be."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return shutil.disk_usage(folder).free


def check_port(host: str, port: int, option: str) -> None:
    """Raises ConfigError if the port cannot be listened on. 0 always can."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            probe.listen(1)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                why = f"port {port} is in use: stop what listens there, or give another with"
            elif error.errno == errno.EACCES:
                why = f"port {port} may not be opened by user {os.getuid()}: give one above 1023 with"
            else:
                why = f"{host}:{port} cannot be listened on ({error}): mend host (--host) or"
            raise ConfigError(f"{why} {option}") from error
        except OverflowError as error:
            raise ConfigError(f"{port} is no port: give one from 0 to 65535 with {option}") from error


def check_socket(path: Path | None) -> None:
    """Raises ConfigError for a socket whose path the system would not take."""
    if path is not None and (length := len(os.fsencode(path))) > SOCKET_LIMIT:
        raise ConfigError(
            f"with chat.tls the state folder holds a socket whose path is {length} bytes long, and Linux takes "
            f"{SOCKET_LIMIT}: put the state elsewhere with --state"
        )


def check_live_version(registry: Registry) -> None:
    """Raises VersionCorrupt if the live policy is damaged and there is none before it that could serve instead.

    Only names and sizes are compared here; the engine compares the hashes before it loads anything.
    """
    live = registry.live("policy")
    if live is None:
        return
    try:
        folder, manifest = registry.path(live), registry.manifest(live)
        for item in manifest.files:
            path = folder / item.path
            if not path.is_file() or path.stat().st_size != item.size:
                raise VersionCorrupt(f"{live}: {item.path} is missing or not {item.size} bytes long")
    except (VersionCorrupt, InvalidInput) as error:
        if not registry.fallbacks("policy"):
            raise VersionCorrupt(
                f"the live version is damaged and there is no good one before it ({error}): restore "
                f"the folder versions/{live} from a copy, or begin anew with another --state"
            ) from error
