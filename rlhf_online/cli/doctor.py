"""`rlhf-online doctor [MODEL]`: what stands in the way of a model's folder, or of the whole installation?"""

import os
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from rlhf_online.cli.client import DEFAULT_STATE
from rlhf_online.errors import InvalidInput


def doctor(
    model: Annotated[Path | None, typer.Argument(help="Folder of a model, to look at that alone.")] = None,
    tuning: Annotated[Literal["lora", "full"] | None, typer.Option(help="What is to be trained (lora).")] = None,
    trunk: Annotated[
        bool, typer.Option("--trunk", help="The model is no policy, but what a reward model begins with.")
    ] = False,
    config: Annotated[
        list[Path] | None,
        typer.Option(
            "--config", help="Settings (TOML): of the service that the file is called after, chat.toml, or of `up`."
        ),
    ] = None,
    state: Annotated[Path | None, typer.Option(help=f"The state folder of `up` (default {DEFAULT_STATE}).")] = None,
    plan: Annotated[
        bool, typer.Option("--plan", help="How much memory training the model needs, and whether it fits here.")
    ] = False,
    memory: Annotated[float | None, typer.Option(help="GiB to plan for (what is here).", min=0.001)] = None,
    ranks: Annotated[
        int | None,
        typer.Option(help="Processes of a machine that train together, which share its memory (1).", min=1),
    ] = None,
    nodes: Annotated[int | None, typer.Option(help="Machines, each with as many of them (1).", min=1)] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs: one JSON object.")] = False,
) -> None:
    """Say what stands in the way, and what to do about it: of the installation, or of a model's folder.

    Without a model: the settings (by default those that the services of --state run with, or those in
    /etc/rlhf-online), packages, disks, ports, secrets, Kafka and its topics, the store of versions, clocks, the
    trainer's lease, a GPU where one is asked for. It tries things, and changes nothing; the services may run.

    Of a model it reads configuration, tokenizer and the headers of the weights: seconds; `up` looks for the same.
    With --plan it reckons how much memory trainer and reward service need for it, tuned fully or by adapters, in
    float32 or bfloat16, and by the settings of --config whether that fits, or which of them would have it fit. With
    --ranks it is what each of several processes needs that train together, one a GPU: whole models, or pieces where
    trainer.sharding is "full"; of a plan that is too large it says with how many of them it would fit.

    Exit code 1 if anything is in the way.
    """
    given = _words(("--ranks", ranks), ("--nodes", nodes), *(("--config", path) for path in config or ()))
    if plan:
        given += _words(("--tuning", tuning), ("--memory", memory))
        if model is None or trunk or state:
            raise InvalidInput(
                "--plan is of a model, by settings of --config: name its folder, without --trunk or --state"
            )
        command = ["services.doctor", "--plan", str(model), *given]
    elif memory is not None:
        raise InvalidInput("--memory is for a plan: add --plan")
    elif model is None:
        if tuning or trunk:
            raise InvalidInput("--tuning and --trunk are said of a model: name its folder")
        command = ["services.doctor", "--state", str(state or DEFAULT_STATE), *given]
    else:
        if given or state:
            said = "--config, --state, --ranks and --nodes"
            raise InvalidInput(f"{said} are of the installation: name no model beside them")
        command = ["rlhf_online.models.check", str(model), "--tuning", tuning or "lora", *["--trunk"] * trunk]
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-m", *command, *["--json"] * as_json])


def _words(*given: tuple[str, object]) -> list[str]:
    """Options that were given."""
    return [word for name, value in given if value is not None for word in (name, str(value))]
