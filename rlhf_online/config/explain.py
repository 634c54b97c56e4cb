"""What is wrong with settings, in words: file and field, what was expected and what was given, what to give instead."""

import difflib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_args

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from rlhf_online.config.base import Section
from rlhf_online.errors import ConfigError


@contextmanager
def explained(path: Path | None, kind: type[Section]) -> Iterator[None]:
    """Turns what pydantic and the TOML parser raise into ConfigErrors that name file and field."""
    try:
        yield
    except ValidationError as error:
        where = f"{path}: " if path else ""
        lines = [f"{where}{line}" for item in error.errors() for line in _explain(item, kind).splitlines()]
        raise ConfigError("\n".join(dict.fromkeys(lines))) from error
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(f"{path or 'environment'}: {error}") from error


def _explain(error: ErrorDetails, kind: type[Section]) -> str:
    location = tuple(str(part) for part in error["loc"])
    name = _name(location, kind)
    match error["type"]:
        case "moved":
            return error["msg"]
        case "extra_forbidden" if _moved(tuple(name.split(".")), kind):
            moved = _leaves(error["input"], tuple(name.split(".")))
            return "\n".join(f"{'.'.join(leaf)} is no setting: it is {_moved(leaf, kind)}" for leaf in moved)
        case "no_effect":
            why = error.get("ctx", {})
            name, other = (_name((*location, why[which]), kind) for which in ("name", "setting"))
            return f"{name} has no effect while {other} is {why['value']!r}: it needs {why['only']}"
        case "extra_forbidden":
            return f"{name} is no setting: {_suggestion(location, kind)}"
        case "missing":
            return f"{name} is missing and has no default"
        case _:
            return f"{name}: {error['msg']} (got {error['input']!r})"


def _moved(location: tuple[str, ...], kind: type[Section]) -> str:
    """The name under which the setting at `location` is set, "" if it is none that was moved."""
    for depth in range(len(location)):
        for section in _sections(location[:depth], kind):
            for end in range(len(location), depth, -1):
                if new := section.moved.get(".".join(location[depth:end])):
                    whole = (*location[:depth], *new.split("."), *location[end:])
                    return ".".join(whole) if " " in new else _moved(whole, kind) or ".".join(whole)
    return ""


def _leaves(table: Any, location: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """The locations of all that is given in a table; its own where it is none."""
    if not isinstance(table, dict) or not table:
        yield location
        return
    for name, value in table.items():
        yield from _leaves(value, (*location, name))


def _suggestion(location: tuple[str, ...], kind: type[Section]) -> str:
    table, known = location[:-1], {name for section in _sections(location[:-1], kind) for name in section.model_fields}
    near = difflib.get_close_matches(location[-1], known, 1)
    return f"did you mean {_name((*table, near[0]), kind)}?" if near else "check its spelling"


def _name(location: tuple[str, ...], kind: type[Section]) -> str:
    """The dotted name as one writes it: without the tags by which pydantic tells alternatives apart."""
    shown, sections = [], [kind]
    for depth, part in enumerate(location, 1):
        if depth == len(location) or part.isdigit() or any(part in section.model_fields for section in sections):
            shown.append(part)
        sections = _inside(sections, part)
    return ".".join(shown)


def _sections(location: tuple[str, ...], kind: type[Section]) -> list[type[Section]]:
    """The tables that can stand at `location`: several where a setting is one of several tables."""
    found = [kind]
    for part in location:
        found = _inside(found, part)
    return found


def _inside(sections: list[type[Section]], part: str) -> list[type[Section]]:
    """The tables under the name `part` of these; for a tag, the one of these that it stands for."""
    if inner := [section.model_fields[part].annotation for section in sections if part in section.model_fields]:
        return [table for annotation in inner for table in _tables(annotation)]
    tagged = [s for s in sections if any(part in get_args(field.annotation) for field in s.model_fields.values())]
    return tagged or sections


def _tables(annotation: Any) -> list[type[Section]]:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return [annotation]
    return [table for inner in get_args(annotation) for table in _tables(inner)]
