"""Settings are read from a TOML file, over it from the environment, over both from options.

`RLHF_CHAT__ENGINE__MODEL=…` overrides `[engine] model` of the chat service's file, and so for `RLHF_REWARD__…` and
`RLHF_TRAINER__…`; `engine.model=…` as an option overrides both. Whatever is given is a setting or is refused.
"""

import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import TypeVar

import tomli_w

from rlhf_online.config.base import ProcessSettings
from rlhf_online.config.explain import explained
from rlhf_online.config.given import Given, Option, Values, from_environment, from_options, merged
from rlhf_online.durable import write_bytes
from rlhf_online.errors import ConfigError

Settings = TypeVar("Settings", bound=ProcessSettings)


def load(kind: type[Settings], path: Path | None, options: Iterable[Option] = ()) -> Settings:
    """The settings in the TOML file at `path`, over it those of the environment, over both the `options`.

    Raises ConfigError.
    """
    given = [*from_file(path), *from_environment(kind.variables), *from_options(options)]
    with explained(given, kind):
        return kind.model_validate(merged(given))


def dump(settings: ProcessSettings, path: Path) -> None:
    """Write what was given of `settings` as a file that `load` reads back."""
    values = settings.model_dump(mode="json", exclude_unset=True, exclude_none=True)
    for name in settings.moved:  # decided by others
        _remove(values, name.split("."))
    write_toml(values, path)


def _remove(values: Values, names: list[str]) -> None:
    *tables, last = names
    for table in tables:
        values = values.get(table, {})
    values.pop(last, None)


def from_file(path: Path | None) -> list[Given]:
    """What the TOML file at `path` gives; nothing without one. Raises ConfigError."""
    if path is None:
        return []
    if not path.is_file():
        raise ConfigError(f"no settings file at {path}: give the path of a TOML file with --config")
    try:
        return [Given(str(path), tomllib.loads(path.read_text()), is_file=True)]
    except ValueError as error:
        raise ConfigError(f"{path}: {error}") from error


def write_toml(values: Values, path: Path) -> None:
    """Write a settings file and the folders above it. Raises ConfigError where the disk, or the folder, takes none."""
    try:
        write_bytes(path, tomli_w.dumps(values).encode())  # whole or not at all: a full disk leaves the old one
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be written ({error.strerror or error}): make room, or name another folder"
        ) from error
