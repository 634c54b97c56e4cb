"""`rlhf-online doctor MODEL`: is this model fit to be served here and to learn?"""

import os
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer


def doctor(
    model: Annotated[Path, typer.Argument(help="Folder of the model.")],
    tuning: Annotated[Literal["lora", "full"], typer.Option(help="What is to be trained.")] = "lora",
    trunk: Annotated[
        bool, typer.Option("--trunk", help="It is no policy, but what a reward model begins with.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="For programs: one JSON object.")] = False,
) -> None:
    """Say what stands in the way of a model folder, and what to do about it; `up` looks for the same.

    Reads configuration, tokenizer and the headers of the weights, not the weights: seconds. Exit code 1 if `up` would
    refuse the model.
    """
    options = [*(["--trunk"] if trunk else []), *(["--json"] if as_json else [])]
    sys.stdout.flush()
    module = "rlhf_online.models.check"
    os.execv(sys.executable, [sys.executable, "-m", module, str(model), "--tuning", tuning, *options])
