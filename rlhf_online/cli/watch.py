"""`rlhf-online watch`: what the monitors say of what goes wrong, and whom they name."""

import json
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from rlhf_online.cli.client import DEFAULT_STATE, StateOption
from rlhf_online.cli.versions import existing
from rlhf_online.watch.monitors import MONITORS


def watch(
    monitor: Annotated[str, typer.Argument(help=f"One of {', '.join(MONITORS)}; all of them by default.")] = "",
    state: StateOption = DEFAULT_STATE,
    as_json: Annotated[bool, typer.Option("--json", help="As the trainer wrote it.")] = False,
) -> None:
    """What the watch on what goes wrong says. It names people by their hash, and is for operators: read it where the
    trainer's state folder is."""
    told = existing(state).read_status("watch")
    if monitor and monitor not in MONITORS:
        raise typer.BadParameter(f"there is no monitor {monitor!r}: name one of {', '.join(MONITORS)}")
    monitors = told.get("monitors", {})
    if monitor:
        monitors = {name: reading for name, reading in monitors.items() if name == monitor}
        told = {**told, "monitors": monitors} if told else told
    if as_json:
        print(json.dumps(told))
        return
    console = Console(soft_wrap=True)
    if not monitors:
        console.print("the watch has said nothing yet: it speaks when the reward model has learned from votes")
    for name, reading in monitors.items():
        evidence = "unknown" if reading["evidence"] is None else f"evidence {reading['evidence']:.3g} of 1"
        console.print(f"{name:<18}{'ALARM' if reading['alarm'] else 'silent':<8}{evidence}: {reading['says']}")
        if rows := reading["rows"]:
            table = Table(*rows[0])
            for row in rows:
                table.add_row(*(str(value) for value in row.values()))
            console.print(table)
