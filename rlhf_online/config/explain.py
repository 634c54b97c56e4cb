"""What is wrong with settings, in words: which one, and where, what was expected, what was given, what to give."""

import difflib
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, get_args, get_origin

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from rlhf_online.config.base import Section
from rlhf_online.config.given import Given, place
from rlhf_online.errors import ConfigError


@contextmanager
def explained(given: Sequence[Given], kind: type[Section]) -> Iterator[None]:
    """Turns pydantic's errors into a ConfigError that names the setting and the file, variable or option it is from."""
    try:
        yield
    except ValidationError as error:
        told = [line for item in error.errors() for line in _explain(item, kind)]
        lines = [f"{place(given, names)}{line}" for names, line in told]
        raise ConfigError("\n".join(dict.fromkeys(lines))) from error


def _explain(error: ErrorDetails, kind: type[Section]) -> Iterator[tuple[Sequence[str], str]]:
    """What is wrong, and the names of the setting at which it is."""
    location = tuple(str(part) for part in error["loc"])
    context = error.get("ctx", {})
    name = _name(location, kind)
    names = name.split(".")
    match error["type"]:
        case _ if "at" in context:  # the message names its setting itself
            yield context["at"].split("."), error["msg"]
        case "extra_forbidden" if _moved(tuple(names), kind):
            for leaf in _leaves(error["input"], tuple(names)):
                yield leaf, f"{'.'.join(leaf)} is no setting: it is {_moved(leaf, kind)}"
        case "no_effect":
            name, other = (_name((*location, context[which]), kind) for which in ("name", "setting"))
            why = f"while {other} is {context['value']!r}: it needs {context['only']}"
            yield name.split("."), f"{name} has no effect {why}"
        case "extra_forbidden":
            yield names, f"{name} is no setting: {_suggestion(location, kind)}"
        case "missing":
            yield names, f"{name} is missing and has no default"
        case _:
            inner = context["setting"].split(".") if "setting" in context else []
            yield [*names, *inner], masked(f"{name}: {error['msg']} (got {error['input']!r})")


def masked(text: str) -> str:
    """Without what somebody has written before the host of an address: names and passwords belong in files."""
    return re.sub(r"://[^/@\s]*@", "://…@", text)


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
    shown, sections, by_name = [], [kind], False
    for depth, part in enumerate(location, 1):
        fields = [section.model_fields[part] for section in sections if part in section.model_fields]
        if depth == len(location) or part.isdigit() or fields or by_name:
            shown.append(part)
        sections = sections if by_name else _inside(sections, part)
        by_name = any(get_origin(field.annotation) is dict for field in fields) and not by_name
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
