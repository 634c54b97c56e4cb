"""`rlhf-online up`: settings for a real chat model on one machine, then the services in place of this process."""

import os
import sys
from copy import deepcopy
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from rlhf_online.cli.client import DEFAULT_STATE
from rlhf_online.config.files import write_toml
from rlhf_online.config.given import Option, from_environment, from_options, merged
from rlhf_online.errors import ConfigError, InvalidInput

BUNDLED = Path("build/models/smollm2")

REAL_MODEL: dict[str, Any] = {
    "tuning": "lora",
    "chat": {
        "engine": {
            "max_model_len": 1024,
            "max_num_seqs": 32,
            "kv_cache_gib": 1.0,
            # Where there is a GPU, trainer and reward service compute on it too.
            "gpu_memory_utilization": 0.4,
        },
        "limits": {"max_tokens": 512},
    },
    "trainer": {
        "threads": 2,
        "min_votes": 24,
        "cold_votes": 30,
        "reward": {
            "tuning": "lora",
            "lora_rank": 8,
            "lora_layers": 10,
            "readout": "mean",
            "lr": 1e-3,
            "batch": 8,
            "epochs": 1,
            "cold_epochs": 2,
            "reference_answers": 64,
            # One person's clicks would take days to prove a reward model; the KL and the gate hold all the same.
            "policy_accuracy": 0.0,
        },
        "policy": {
            "lr": 3e-4,
            "epochs": 2,
            "minibatches": 2,
            "micro_batch_tokens": 2048,
            "algorithm": {
                "name": "ppo",
                "value_lr": 1e-3,
                "kl_coef": 0.1,
                "kl_target": 3.0,
                "kl_horizon": 500.0,
                # At 48 tokens most answers are cut: a policy paid for being done by then learns to say little.
                "missing_eos_penalty": 0.0,
            },
        },
        "rollout": {"per_cycle": 64, "answers_per_prompt": 4, "max_tokens": 48},
        # Nor would they teach a second reward model anything, which takes a trunk of its own in memory.
        "gate": {"samples": 16, "win_rate": {"min": 0.4}, "kl": {"max": 6.0}, "held_back": {"share": 0.0}},
    },
}
"""Under these a real chat model of some hundred million weights learns from tens of votes on two cores."""
LORA = {"lora_rank": 8, "lora_layers": 10}
"""Of the policy's adapter."""


def up(
    model: Annotated[str, typer.Option(help="Folder of a chat model, or its id on the Hugging Face hub.")] = "",
    state: Annotated[Path | None, typer.Option(help=f"The state folder (default {DEFAULT_STATE}).")] = None,
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 opens it to those who have keys.")] = "",
    port: Annotated[int | None, typer.Option(help="Port of page and HTTP API (default 8000); 0: any.")] = None,
    grpc_port: Annotated[int | None, typer.Option(help="Port of gRPC (default 8001); 0: any.")] = None,
    tuning: Annotated[Literal["lora", "full"] | None, typer.Option(help="Train an adapter, or all weights.")] = None,
    kafka: Annotated[str, typer.Option(help="Ship the event log too: kafka://host:port,host:port.")] = "",
    settings: Annotated[Path | None, typer.Option("--config", help="Settings (TOML); options win over it.")] = None,
    others: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="Any setting, such as trainer.gate.kl.max=8."),
    ] = None,
) -> None:
    """Serve a chat model on this machine, and let it learn from the votes on its answers."""
    if kafka and not kafka.startswith("kafka://"):
        raise InvalidInput(f"--kafka {kafka} is no address: it looks like kafka://127.0.0.1:9092")
    given = {
        "--model": ("model", str(_folder(model)) if model or settings is None else None),
        "--state": ("state_dir", state),
        "--host": ("host", host or None),
        "--port": ("chat.http_port", port),
        "--grpc-port": ("chat.grpc_port", grpc_port),
        "--tuning": ("tuning", tuning),
        "--kafka": ("log.url", kafka or None),
    }
    named = [(flag, f"{name}={value}") for flag, (name, value) in given.items() if value is not None]
    options: list[Option] = [*named, *(others or [])]
    if settings is None:
        folder = Path(_chosen("state_dir", options) or DEFAULT_STATE)
        settings = folder / "run" / "up.toml"
        written = deepcopy({"state_dir": str(folder), **REAL_MODEL})
        policy = written["trainer"]["policy"]
        if (_chosen("tuning", options) or REAL_MODEL["tuning"]) == "lora":
            policy |= LORA
        if os.cpu_count() == 2:  # of which vLLM gives its worker one
            written["chat"]["engine"]["threads"] = 2
        if _chosen("trainer.policy.algorithm.name", options) not in (None, policy["algorithm"]["name"]):
            del policy["algorithm"]  # which holds settings that another algorithm does not have
        write_toml(written, settings)
    command = [sys.executable, "-m", "services.standalone", "--config", str(settings)]
    for flag, assignment in named:
        command += ["--option", flag.removeprefix("--"), assignment]
    command += [f"--set={assignment}" for assignment in others or []]
    sys.stdout.flush()
    os.execv(sys.executable, command)


def _chosen(name: str, options: list[Option]) -> Any:
    """What an option, or else the environment, sets; None if neither does."""
    value: Any = merged([*from_environment("RLHF_UP__"), *from_options(options)])
    for part in name.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def _folder(model: str) -> Path:
    """The model's folder: the bundled one by default, a path, or a hub id, which is downloaded into the hub's cache.

    Raises ConfigError.
    """
    if not model:
        if not BUNDLED.is_dir():
            raise ConfigError("no --model given, and the bundled one is not unpacked: give a folder, or run `make up`")
        return BUNDLED
    path = Path(model).expanduser()
    if path.exists() or model.startswith((".", "/", "~")) or model.count("/") != 1:
        if not path.is_dir():
            raise ConfigError(f"no model folder at {model}: give an existing folder, or a hub id such as org/name")
        return path
    return _download(model)


def _download(hub_id: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    wanted = ["*.json", "*.safetensors", "*.jinja", "tokenizer*", "*.txt"]
    print(f"fetching {hub_id} from the Hugging Face hub (or its cache)", flush=True)
    try:
        return Path(snapshot_download(hub_id, allow_patterns=wanted))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        why = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ConfigError(
            f"{hub_id} is no folder here and could not be fetched from the hub ({why}): check the name and the "
            "network, or give the path of a downloaded model"
        ) from error
