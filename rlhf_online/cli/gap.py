"""`rlhf-online gap …`: events that the trainer has not read and the log has no more."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rlhf_online.cli.client import DEFAULT_STATE, StateOption
from rlhf_online.config import KeystoreSettings, LogSettings, load_keystore, load_log
from rlhf_online.errors import LogError
from rlhf_online.eventlog import gap, open_source
from rlhf_online.eventlog.gap import Place
from rlhf_online.state import StateDir

if TYPE_CHECKING:
    from rlhf_online.keystore.keyring import Keyring

app = typer.Typer(help="Events that the trainer has not read and the log has no more.", no_args_is_help=True)

ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", help="Settings (TOML) whose table log is read (default: the trainer's)."),
]


@app.command("check")
def check(state: StateOption = DEFAULT_STATE, config: ConfigOption = None) -> None:
    """Say what the trainer's checkpoint needs and the log lacks; exit code 1 if there is anything."""
    _, missing = _missing(StateDir(state), config)
    if missing:
        raise LogError("events are missing:\n" + "\n".join(f"  {line}" for line in missing))
    print("nothing is missing: the trainer can go on where it stands")


@app.command("accept")
def accept(state: StateOption = DEFAULT_STATE, config: ConfigOption = None) -> None:
    """Let the trainer go on without what is missing now: when it starts next, and from where it stands, once."""
    folder = StateDir(state)
    place, missing = _missing(folder, config)
    if not missing:
        print("nothing is missing: there is nothing to accept")
        return
    gap.accept(folder.checkpoints, place)
    for line in missing:
        print(line)
    print("accepted: the trainer goes on without it when it is started next (`rlhf-online up` does within a minute)")


def log_settings(state: StateDir, config: Path | None) -> LogSettings:
    """Those of `config`, else those that the trainer was started with. Raises ConfigError."""
    written = state.run / "trainer.toml"
    return load_log(config or (written if written.is_file() else None))


def content_keys(state: StateDir, config: Path | None) -> "Keyring | None":
    """Those of `config`, else those that the trainer was started with. Raises ConfigError, SecretLost."""
    from rlhf_online.keystore import open_keyring

    return open_keyring(keystore_settings(state, config), state.root)


def keystore_settings(state: StateDir, config: Path | None) -> KeystoreSettings:
    """Likewise. Raises ConfigError."""
    written = state.run / "trainer.toml"
    return load_keystore(config or (written if written.is_file() else None))


def _missing(state: StateDir, config: Path | None) -> tuple[Place, list[str]]:
    """Raises InvalidInput without a checkpoint, LogUnavailable."""
    place = gap.standing(state.checkpoints)
    source = open_source(log_settings(state, config), state.log)
    try:
        return place, source.resume_position(place.identity, place.position)[1]
    finally:
        source.close()
