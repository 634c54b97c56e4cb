"""`rlhf-online backup …`: a copy of the state folder while the services run, and its way back."""

from pathlib import Path
from typing import Annotated

import typer

from rlhf_online.backup import Copied, backup, restore
from rlhf_online.cli.client import DEFAULT_STATE, StateOption
from rlhf_online.cli.gap import ConfigOption, log_settings
from rlhf_online.config import load_versions
from rlhf_online.config.explain import masked
from rlhf_online.eventlog import log_folder
from rlhf_online.state import StateDir

app = typer.Typer(help="A copy of the state folder, from which everything goes on.", no_args_is_help=True)


@app.command("make")
def make(
    target: Annotated[Path, typer.Argument(help="New folder for the copy, on another disk.")],
    state: StateOption = DEFAULT_STATE,
    config: ConfigOption = None,
) -> None:
    """Copy the state folder; the services may run. What is in a bucket or in Kafka is not copied, and said."""
    folder = StateDir(state)
    written = folder.run / "trainer.toml"
    file = config or (written if written.is_file() else None)
    log, versions = log_settings(folder, config), load_versions(file)
    in_kafka = log.url.startswith("kafka:")
    found = backup(folder, target, log=None if in_kafka else log_folder(log, folder.log), versions=not versions.url)
    if in_kafka:
        print(f"the log is in Kafka ({masked(log.url)}), and is not copied")
    if versions.url:
        print(f"the versions are in {masked(versions.url)}, and are not copied")
    _told(f"copied to {target}", found)


@app.command("restore")
def bring_back(
    source: Annotated[Path, typer.Argument(help="A copy that `backup make` has made.")],
    state: StateOption = DEFAULT_STATE,
) -> None:
    """Make a copy the state folder, which must be empty or not there; every file is compared with its SHA-256."""
    _told(f"restored to {state}", restore(source, StateDir(state)))


def _told(what: str, found: Copied) -> None:
    checkpoint = f"checkpoint {found.checkpoint:06d}" if found.checkpoint >= 0 else "no checkpoint yet"
    print(f"{what}: {found.files} files, {found.size / 1e6:.1f} MB, {checkpoint}")
