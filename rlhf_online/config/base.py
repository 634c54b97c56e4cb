"""What every service's settings are made of, and how they are read: a TOML file, and over it the environment.

`RLHF_CHAT__ENGINE__MODEL=…` overrides `[engine] model` of the chat service's file, and so for `RLHF_REWARD__…` and
`RLHF_TRAINER__…`. An unknown name or a wrong value raises ConfigError naming the field, the expectation and the value.
"""

import json
import os
import tomllib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar

import tomli_w
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from rlhf_online.errors import ConfigError


def _different(names: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(names)) < len(names):
        raise ValueError("a name stands there twice")
    return names


Port = Annotated[int, Field(ge=0, le=65535)]
Positive = Annotated[int, Field(gt=0)]
Tuning = Literal["full", "lora"]
Device = Literal["auto", "cpu", "cuda"]
ObjectiveName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,31}$")]
Objectives = Annotated[tuple[ObjectiveName, ...], Field(min_length=1), AfterValidator(_different)]
"""What answers are judged by; the first is that of a vote which names none."""


class Section(BaseModel):
    """A table of a settings file."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ServiceSettings(Section):
    """What the services have in common. Variables of the environment that begin with `variables` are settings too."""

    variables: ClassVar[str]

    state_dir: Path = Field(description="Folder that holds the log, the versions, the checkpoints and the secrets.")
    host: str = Field(default="127.0.0.1", description="Address to listen on.")
    ready_file: Path | None = Field(
        default=None, description="Written, as JSON with the real ports, once the ports are open."
    )
    die_with_parent: bool = Field(default=False, description="End when the process that started this one ends (Linux).")
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Least severe line shown."
    )


Settings = TypeVar("Settings", bound=ServiceSettings)
Values = dict[str, Any]


def load(kind: type[Settings], path: Path | None, options: Iterable[str] = ()) -> Settings:
    """The settings in the TOML file at `path`, over it those of the environment, over both the `options`.

    An option is `engine.model=…`. Raises ConfigError.
    """
    with explained(path):
        values = read_toml(path) if path else {}
        merge(values, _environment(kind.variables))
        merge(values, from_options(options))
        return kind.model_validate(values)


def dump(settings: ServiceSettings, path: Path) -> None:
    """Write `settings` as a file that `load` reads back."""
    write_toml(settings.model_dump(mode="json", exclude_none=True), path)


def read_toml(path: Path) -> Values:
    """Raises ConfigError where there is no file, ValueError where it is no TOML."""
    if not path.is_file():
        raise ConfigError(f"no settings file at {path}: give the path of a TOML file with --config")
    return tomllib.loads(path.read_text())


def write_toml(values: Values, path: Path) -> None:
    """Write a settings file and the folders above it. Raises ConfigError where the disk, or the folder, takes none."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(tomli_w.dumps(values))
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
            raise ConfigError(f"--set {option}: expected NAME=VALUE, such as engine.max_num_seqs=64")
        merge(values, _nested(name.split("."), text))
    return values


def _environment(prefix: str) -> Values:
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


@contextmanager
def explained(path: Path | None) -> Iterator[None]:
    """Turns what pydantic and the TOML parser raise into ConfigErrors that name field and file."""
    try:
        yield
    except ValidationError as error:
        where = f"{path}: " if path else ""
        lines = [f"{where}{_explain(dict(item))}" for item in error.errors()]
        raise ConfigError("\n".join(lines)) from error
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(f"{path or 'environment'}: {error}") from error


def _explain(error: dict[str, Any]) -> str:
    field = ".".join(str(part) for part in error["loc"])
    match error["type"]:
        case "extra_forbidden":
            return f"{field} is no setting: check its spelling"
        case "missing":
            return f"{field} is missing and has no default"
        case _:
            return f"{field}: {error['msg']} (got {error['input']!r})"
