"""Supervised fine-tuning as a process of its own: `rlhf-online sft`, and the first stage of the demo.

    python -m rlhf_online.training.sft '{"model": "base", "data": "demonstrations.jsonl", "out": "tuned"}'

The argument is `config.SftSettings` in JSON. Progress is a bar; a child says it as one JSON object a line instead:
`{"step": 40, "steps": 1600, "loss": 1.53}`. With `python -m rlhf_online.training.distributed.launch --nproc-per-node 8
-m` instead of `python -m`, 8 processes share each step (`distributed`), a GPU each where there are GPUs; rank 0 reports
and writes.
"""

import json
import math
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rlhf_online import process
from rlhf_online.config import SftSettings, load_keystore, load_log
from rlhf_online.durable import fsync_tree
from rlhf_online.errors import InvalidInput, RlhfError
from rlhf_online.eventlog import open_source
from rlhf_online.keystore import open_keyring
from rlhf_online.models.check import raise_refusals, told
from rlhf_online.models.check.folder import inspect_folder
from rlhf_online.state import StateDir
from rlhf_online.training.sft import demonstrations
from rlhf_online.training.sft.demonstrations import Demonstration

Tell = Callable[[int, int, float], None]
TELL_EVERY = 10


def main() -> int:
    settings = SftSettings.model_validate_json(sys.argv[1])
    if settings.child:
        process.die_with_parent()
    try:
        run(settings)
    except RlhfError as error:
        return process.report_error(error)
    except KeyboardInterrupt:
        return 130
    return 0


def run(settings: SftSettings) -> None:
    """Write the fine-tuned model to `settings.out`. Raises InvalidInput, LogUnavailable."""
    first = os.environ.get("RANK", "0") == "0"
    say = print if first and not settings.child else (lambda text: None)
    shown = gather(settings, say)
    if settings.out.exists() and (not settings.out.is_dir() or any(settings.out.iterdir())):
        raise InvalidInput(f"{settings.out} exists and is not empty: name a new folder with --out")
    raise_refusals(settings.model, inspect_folder(settings.model, tuning="full", served=False))
    # Imported here, so that a mistake in the data or the folder is told at once.
    import torch

    from rlhf_online.models.check.contents import inspect
    from rlhf_online.models.trunk import pick_device
    from rlhf_online.training import distributed
    from rlhf_online.training.sft.fine_tuning import Passes, fine_tune

    findings = inspect(settings.model, tuning="full", served=False)
    raise_refusals(settings.model, findings)
    for finding in findings:
        say(told(settings.model, finding))
    if settings.threads:
        torch.set_num_threads(settings.threads)
    tells = _silent() if not first else _as_lines() if settings.child else _as_bar()
    with tells as tell, distributed.process_group(pick_device(settings.device)) as device:
        prepared = fine_tune(
            settings.model,
            shown,
            settings.out,
            Passes(
                steps=settings.steps or math.ceil(settings.epochs * len(shown) / settings.batch),
                batch=settings.batch,
                lr=settings.lr,
                seed=settings.seed,
                sharding=settings.sharding,
            ),
            progress=tell,
            device=device,
            dtype=settings.dtype,
            recompute=settings.recompute,
        )
    if first:
        fsync_tree(settings.out)
    if prepared.left_out:
        say(f"{len(prepared.left_out)} demonstrations were left out:{demonstrations.listed(prepared.left_out)}")
    if prepared.rendered:
        say(
            f"{prepared.rendered} corrected answers were written by a model with another tokenizer: their prompts are "
            "learned as this model's chat template renders them"
        )
    say(f"the fine-tuned model is in {settings.out}: `rlhf-online up --model {settings.out}` serves it")


def gather(settings: SftSettings, say: Callable[[str], None]) -> list[Demonstration]:
    """The demonstrations of the file and of the log. Raises InvalidInput, LogUnavailable."""
    shown: list[Demonstration] = []
    if settings.data is not None:
        file = demonstrations.read_file(settings.data)
        shown += file.found
        say(f"{len(shown)} demonstrations in {settings.data}")
        if file.wrong:
            say(f"{len(file.wrong)} of its lines cannot be used:{demonstrations.listed(file.wrong)}")
    if settings.log:
        found = _corrections(settings)
        shown += found.demonstrations
        say(
            f"{len(found.demonstrations)} corrections in {settings.log}; besides them {found.held_out} held out, "
            f"{found.unusable} unusable, {found.unreadable} records unreadable"
        )
    if not shown:
        raise InvalidInput("there is nothing to learn from: give --data FILE.jsonl, or --log with corrections in it")
    return shown


def _corrections(settings: SftSettings) -> demonstrations.Corrections:
    if ":" in settings.log:
        url, folder = settings.log, Path()
    else:
        url, folder = "file:", StateDir(Path(settings.log)).log
        if not folder.is_dir():
            raise InvalidInput(f"no event log at {folder}: --log takes a state folder, or an address")
    source = open_source(load_log(settings.log_config, [("--log", f"log.url={url}")]), folder)
    try:
        keys = open_keyring(load_keystore(settings.log_config), folder.parent)
        return demonstrations.corrections(source, held_out=settings.held_out, keys=keys)
    finally:
        source.close()


@contextmanager
def _silent() -> Iterator[Tell]:
    yield lambda step, steps, loss: None


@contextmanager
def _as_lines() -> Iterator[Tell]:
    def tell(step: int, steps: int, loss: float) -> None:
        if step % TELL_EVERY == 0 or step == steps:
            print(json.dumps({"step": step, "steps": steps, "loss": round(loss, 4)}), flush=True)

    yield tell


@contextmanager
def _as_bar() -> Iterator[Tell]:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("fine-tuning"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, TextColumn("{task.fields[loss]}")) as bar:
        task = bar.add_task("", total=None, loss="")

        def tell(step: int, steps: int, loss: float) -> None:
            bar.update(task, completed=step, total=steps, loss=f"loss {loss:.3f}")

        yield tell


if __name__ == "__main__":
    sys.exit(main())
