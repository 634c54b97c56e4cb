"""Settings are read from a TOML file, over it from the environment, over both from options.

`RLHF_CHAT__ENGINE__MODEL=…` overrides `[engine] model` of the chat service's file, and so for `RLHF_REWARD__…` and
`RLHF_TRAINER__…`; `engine.model=…` as an option overrides both. Whatever is given is a setting or is refused.
"""

import json
import os
import tomllib
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import tomli_w

from rlhf_online.config.base import ServiceSettings
from rlhf_online.config.explain import explained
from rlhf_online.durable import write_bytes
from rlhf_online.errors import ConfigError

Settings = TypeVar("Settings", bound=ServiceSettings)
Values = dict[str, Any]


def load(kind: type[Settings], path: Path | None, options: Iterable[str] = ()) -> Settings:
    """The settings in the TOML file at `path`, over it those of the environment, over both the `options`.

    An option is `engine.model=…`. Raises ConfigError.
    """
    with explained(path, kind):
        values = read_toml(path) if path else {}
        merge(values, from_environment(kind.variables))
        merge(values, from_options(options))
        return kind.model_validate(values)


def dump(settings: ServiceSettings, path: Path) -> None:
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


def read_toml(path: Path) -> Values:
    """Raises ConfigError where there is no file, ValueError where it is no TOML."""
    if not path.is_file():
        raise ConfigError(f"no settings file at {path}: give the path of a TOML file with --config")
    return tomllib.loads(path.read_text())


def write_toml(values: Values, path: Path) -> None:
    """Write a settings file and the folders above it. Raises ConfigError where the disk, or the folder, takes none."""
    try:
        write_bytes(path, tomli_w.dumps(values).encode())  # whole or not at all: a full disk leaves the old one
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be written ({error.strerror or error}): make room, or name another folder"
        ) from error


def merge(values: Values, over: Values) -> None:
    """Put `over` into `values`, table by table."""
    for name, value in over.items():
        if isinstance(value, dict) and isinstance(values.get(name), dict):
            merge(values[name], value)
        else:
            values[name] = value


def from_options(options: Iterable[str]) -> Values:
    """The tables that options such as `engine.model=…` stand for. Raises ConfigError."""
    values: Values = {}
    for option in options:
        name, equals, text = option.partition("=")
        if not (name and equals):
            raise ConfigError(f"--set {option}: expected NAME=VALUE, such as tuning=lora")
        merge(values, _nested(name.split("."), text))
    return values


def from_environment(prefix: str) -> Values:
    """The tables that variables such as `RLHF_UP__LOG__URL` stand for, where `prefix` is `RLHF_UP__`."""
    values: Values = {}
    for name, text in sorted(os.environ.items()):
        if name.upper().startswith(prefix):
            merge(values, _nested(name[len(prefix) :].lower().split("__"), text))
    return values


def _nested(names: list[str], text: str) -> Values:
    """Text is what pydantic makes of it; a list or a table is written as JSON."""
    value: Any = text
    if text.startswith(("[", "{")):
        with suppress(ValueError):
            value = json.loads(text)
    for name in reversed(names):
        value = {name: value}
    return value
