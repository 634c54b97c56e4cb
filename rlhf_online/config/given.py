"""Settings as they were given: each file, variable and option by itself, so that a message can name the place."""

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from rlhf_online.errors import ConfigError

Values = dict[str, Any]
Option = str | tuple[str, str]
"""`engine.model=…` as `--set` takes it; or an option of its own and what it stands for, `("--port", "http_port=1")`."""


SET = "--set"


@dataclass(frozen=True, slots=True)
class Given:
    """What one place gives: "chat.toml", "RLHF_CHAT__HOST", "--port"."""

    place: str
    values: Values
    is_file: bool = False


def from_environment(prefix: str) -> Iterator[Given]:
    """What variables such as `RLHF_UP__LOG__URL` give, where `prefix` is `RLHF_UP__`."""
    for name, text in sorted(os.environ.items()):
        if name.upper().startswith(prefix):
            yield Given(name, _nested(name[len(prefix) :].lower().split("__"), text))


def from_options(options: Iterable[Option]) -> Iterator[Given]:
    """What options give. Raises ConfigError for one that is none."""
    for option in options:
        flag, assignment = (SET, option) if isinstance(option, str) else option
        name, equals, text = assignment.partition("=")
        if not (name and equals):
            raise ConfigError(f"{flag} {assignment}: expected NAME=VALUE, such as tuning=lora")
        yield Given(flag, _nested(name.split("."), text))


def merged(given: Iterable[Given]) -> Values:
    """All together; what comes later wins."""
    values: Values = {}
    for one in given:
        merge(values, deepcopy(one.values))
    return values


def merge(values: Values, over: Values) -> None:
    """Put `over` into `values`, table by table."""
    for name, value in over.items():
        if isinstance(value, dict) and isinstance(values.get(name), dict):
            merge(values[name], value)
        else:
            values[name] = value


def place(given: Sequence[Given], names: Sequence[str]) -> str:
    """How a message about the setting of these names begins: with where it was given, where last if several times.

    A table is where its settings are; what was not given is missing in the file, which comes first.
    """
    found = [one for one in given if _at(one.values, names) is not None]
    if found and not isinstance(_at(found[-1].values, names), dict):
        found = found[-1:]
    places = dict.fromkeys(one.place for one in found or given[:1] if found or one.is_file)
    told = ", ".join(places)
    # A message begins with the setting's name, which for --set is the rest of the option.
    return told and (f"{told} " if told == SET else f"{told}: ")


def _at(values: Any, names: Sequence[str]) -> Any:
    """The setting of these names, or what stands in the place of a table above it; None if it is not given."""
    for name in names:
        if not isinstance(values, dict):
            break
        values = values.get(name)
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
