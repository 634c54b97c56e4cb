"""Learning from a file or a log, as a process of its own: `rlhf-online train --offline`.

The argument is `config.offline.OfflineSettings` in JSON. What was learned, from how much, and how good it is on
conversations that were held out is printed, and written to report.json in the folder of what was learned.
"""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlhf_online import logs, process
from rlhf_online.config.offline import OfflineSettings
from rlhf_online.data.formats import format_named
from rlhf_online.durable import fsync_tree, write_json
from rlhf_online.errors import InvalidInput, RlhfError
from rlhf_online.models.check import raise_refusals, told
from rlhf_online.models.check.folder import inspect_folder

if TYPE_CHECKING:
    from rlhf_online.training.optimiser import OnStep

REPORT = "report.json"


def main() -> int:
    began = time.monotonic()
    settings = OfflineSettings.model_validate_json(sys.argv[1])
    logs.configure("offline", "error")  # of each vote that cannot be used; the report counts them
    try:
        run(settings, began)
    except RlhfError as error:
        return process.report_error(error)
    except KeyboardInterrupt:
        return 130
    return 0


def run(settings: OfflineSettings, began: float) -> None:
    """Write what was learned to `settings.out`. Raises InvalidInput, LogUnavailable."""
    if settings.data:
        format_named(settings.format)
        if not Path(settings.data).is_file():
            raise InvalidInput(f"there is no file {settings.data}: --data takes one")
    if settings.out.exists() and (not settings.out.is_dir() or any(settings.out.iterdir())):
        raise InvalidInput(f"{settings.out} exists and is not empty: name a new folder with --out")
    raise_refusals(settings.model, inspect_folder(settings.model, tuning=settings.tuning, served=False))
    # Imported here, so that a mistake in the options is told at once.
    import torch

    from rlhf_online.models import trunk
    from rlhf_online.models.check.contents import inspect
    from rlhf_online.models.tokens import ChatTokenizer
    from rlhf_online.training.offline import ilql, policy, reward
    from rlhf_online.training.offline.votes import gather

    findings = inspect(settings.model, tuning=settings.tuning, served=False)
    raise_refusals(settings.model, findings)
    for finding in findings:
        print(told(settings.model, finding))
    if settings.threads:
        torch.set_num_threads(settings.threads)
    tokenizer = ChatTokenizer(settings.model)
    limits = trunk.limits(trunk.read_config(settings.model))
    gathered = gather(settings, tokenizer, limits, print)
    device = trunk.pick_device(settings.device)
    print(f"{len(gathered.learned)} votes to learn from, {len(gathered.held_out)} held out")
    left = 60 * settings.minutes - (time.monotonic() - began)
    learn = {"reward": reward.learn, "ilql": ilql.learn}.get(settings.algorithm, policy.learn)
    with _bar(settings.algorithm) as on_step:
        found = learn(settings, gathered, device, left, on_step)
    report = {
        "algorithm": settings.algorithm,
        **found,
        "left_out": dict(gathered.left_out),
        "seconds": round(time.monotonic() - began, 1),
        "settings": settings.model_dump(mode="json"),
    }
    write_json(settings.out / REPORT, report)
    fsync_tree(settings.out)
    print("\n".join(_table(report)))
    print(f"in {settings.out}, with {REPORT}")


@contextmanager
def _bar(title: str) -> "Iterator[OnStep]":
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn(title), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns) as bar:
        task = bar.add_task("", total=None)
        yield lambda done, of: bar.update(task, completed=done, total=of)


def _table(report: dict[str, Any]) -> Iterator[str]:
    for name, value in report.items():
        if name == "settings":
            continue
        if isinstance(value, dict):
            value = ", ".join(f"{key} {count}" for key, count in value.items()) or "nothing"
        yield f"{name:28}{f'{value:.4g}' if isinstance(value, float) else value}"


if __name__ == "__main__":
    sys.exit(main())
