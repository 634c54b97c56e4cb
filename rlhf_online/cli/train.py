"""`rlhf-online train --offline`: learn from a file or a log at once, without serving."""

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from rlhf_online.cli.trace import person_hash
from rlhf_online.config import Device, Tuning
from rlhf_online.config.explain import explained
from rlhf_online.config.given import Given
from rlhf_online.config.offline import Algorithm, OfflineSettings
from rlhf_online.errors import InvalidInput
from rlhf_online.state import StateDir


def _option(name: str, *flags: str) -> Any:
    field = OfflineSettings.model_fields[name]
    default = str(field.default) if field.default and not field.is_required() else False
    return typer.Option(*flags, help=field.description, show_default=default)


def train(
    model: Annotated[Path, _option("model")],
    out: Annotated[Path, _option("out")],
    offline: Annotated[bool, typer.Option("--offline", help="From what there is: `up` is what learns live.")] = False,
    data: Annotated[str | None, _option("data")] = None,
    form: Annotated[str | None, _option("format", "--format")] = None,
    log: Annotated[str | None, _option("log")] = None,
    config: Annotated[Path | None, _option("log_config", "--config")] = None,
    without: Annotated[list[str] | None, _option("without")] = None,
    algorithm: Annotated[Algorithm | None, _option("algorithm")] = None,
    objectives: Annotated[list[str] | None, _option("objectives", "--objective")] = None,
    held_out: Annotated[float | None, _option("held_out")] = None,
    minutes: Annotated[float | None, _option("minutes")] = None,
    epochs: Annotated[int | None, _option("epochs")] = None,
    batch: Annotated[int | None, _option("batch")] = None,
    lr: Annotated[float | None, _option("lr")] = None,
    beta: Annotated[float | None, _option("beta")] = None,
    tuning: Annotated[Tuning | None, _option("tuning")] = None,
    lora_rank: Annotated[int | None, _option("lora_rank")] = None,
    lora_layers: Annotated[int | None, _option("lora_layers")] = None,
    heads: Annotated[int | None, _option("heads")] = None,
    readout: Annotated[str | None, _option("readout")] = None,
    seed: Annotated[int | None, _option("seed")] = None,
    device: Annotated[Device | None, _option("device")] = None,
    threads: Annotated[int | None, _option("threads")] = None,
) -> None:
    """Learn a reward model, or a policy, from a file of votes or from a log, and measure it on held-out conversations.

    What was learned is written to --out with report.json beside it: a reward model (its adapter and heads), or a
    complete model folder that `rlhf-online up --model` serves.
    """
    if not offline:
        raise InvalidInput("give --offline: it learns from what there is; `rlhf-online up` learns while it serves")
    options = {
        "model": model, "out": out, "data": data, "format": form, "log": log, "log_config": config,
        "without": [person_hash(StateDir(Path(log or "")), name) for name in without or ()] or None,
        "algorithm": algorithm, "objectives": objectives or None, "held_out": held_out, "minutes": minutes,
        "epochs": epochs, "batch": batch, "lr": lr, "beta": beta, "tuning": tuning, "lora_rank": lora_rank,
        "lora_layers": lora_layers,
        "heads": heads, "readout": readout, "seed": seed, "device": device, "threads": threads,
    }  # fmt: skip
    values = {name: value for name, value in options.items() if value is not None}
    flags = {"log_config": "--config", "objectives": "--objective"}
    given = [Given(flags.get(name, f"--{name.replace('_', '-')}"), {name: value}) for name, value in values.items()]
    with explained(given, OfflineSettings):
        settings = OfflineSettings.model_validate(values)
    sys.stdout.flush()
    module = "rlhf_online.training.offline"
    os.execv(sys.executable, [sys.executable, "-m", module, settings.model_dump_json(exclude_unset=True)])
