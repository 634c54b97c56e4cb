"""`rlhf-online sft`: the first stage, before anybody votes."""

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from rlhf_online.config import Device, Dtype, SftSettings
from rlhf_online.config.explain import explained
from rlhf_online.config.given import Given


def _option(name: str, *flags: str) -> Any:
    field = SftSettings.model_fields[name]
    default = str(field.default) if field.default and not field.is_required() else False
    return typer.Option(*flags, help=field.description, show_default=default)


def sft(
    model: Annotated[Path, _option("model")],
    out: Annotated[Path, _option("out")],
    data: Annotated[Path | None, _option("data")] = None,
    log: Annotated[str | None, _option("log")] = None,
    config: Annotated[Path | None, _option("log_config", "--config")] = None,
    epochs: Annotated[float | None, _option("epochs")] = None,
    batch: Annotated[int | None, _option("batch")] = None,
    lr: Annotated[float | None, _option("lr")] = None,
    seed: Annotated[int | None, _option("seed")] = None,
    held_out: Annotated[float | None, _option("held_out")] = None,
    device: Annotated[Device | None, _option("device")] = None,
    dtype: Annotated[Dtype | None, _option("dtype")] = None,
    recompute: Annotated[bool | None, _option("recompute", "--recompute")] = None,
    threads: Annotated[int | None, _option("threads")] = None,
) -> None:
    """Teach a model by demonstrations: conversations in a file, and corrections that people gave.

    A line of the file is {"messages": [{"role": "user", "content": "…"}, {"role": "assistant", "content": "…"}]}. Each
    of the assistant's messages is learned, unless it has "weight": 0; all that stands before it is context only.
    """
    options = {
        "model": model, "out": out, "data": data, "log": log, "log_config": config, "epochs": epochs, "batch": batch,
        "lr": lr, "seed": seed, "held_out": held_out, "device": device, "dtype": dtype, "recompute": recompute,
        "threads": threads,
    }  # fmt: skip
    values = {name: value for name, value in options.items() if value is not None}
    flags = {"log_config": "--config"}
    given = [Given(flags.get(name, f"--{name.replace('_', '-')}"), {name: value}) for name, value in values.items()]
    with explained(given, SftSettings):
        settings = SftSettings.model_validate(values)
    sys.stdout.flush()
    module = "rlhf_online.training.sft"
    os.execv(sys.executable, [sys.executable, "-m", module, settings.model_dump_json(exclude_unset=True)])
