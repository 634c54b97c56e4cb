"""`rlhf-online sft`: the first stage, before anybody votes."""

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError

from rlhf_online.config import Device, SftSettings
from rlhf_online.errors import InvalidInput


def _option(name: str, *flags: str) -> Any:
    return typer.Option(*flags, help=SftSettings.model_fields[name].description)


def sft(
    model: Annotated[Path, _option("model")],
    out: Annotated[Path, _option("out")],
    data: Annotated[Path | None, _option("data")] = None,
    log: Annotated[str, _option("log")] = "",
    config: Annotated[Path | None, _option("log_config", "--config")] = None,
    epochs: Annotated[float, _option("epochs")] = 3.0,
    batch: Annotated[int, _option("batch")] = 32,
    lr: Annotated[float, _option("lr")] = 2e-5,
    seed: Annotated[int, _option("seed")] = 0,
    held_out: Annotated[float, _option("held_out")] = 0.05,
    device: Annotated[Device, _option("device")] = "auto",
    threads: Annotated[int, _option("threads")] = 0,
) -> None:
    """Teach a model by demonstrations: conversations in a file, and corrections that people gave.

    A line of the file is {"messages": [{"role": "user", "content": "…"}, {"role": "assistant", "content": "…"}]}. Each
    of the assistant's messages is learned, unless it has "weight": 0; all that stands before it is context only.
    """
    try:
        settings = SftSettings.model_validate(
            {
                "model": model, "out": out, "data": data, "log": log, "log_config": config, "epochs": epochs,
                "batch": batch, "lr": lr, "seed": seed, "held_out": held_out, "device": device, "threads": threads,
            }
        )  # fmt: skip
    except ValidationError as error:
        wrong = error.errors()[0]
        raise InvalidInput(f"--{wrong['loc'][0]} {wrong['input']}: {wrong['msg']}") from error
    sys.stdout.flush()
    module = "rlhf_online.training.sft"
    os.execv(sys.executable, [sys.executable, "-m", module, settings.model_dump_json()])
