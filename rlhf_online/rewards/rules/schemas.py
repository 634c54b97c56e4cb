"""JSON in an answer, and JSON Schema (2020-12) for it.

What a schema may cost is bounded: its `pattern`s are regular expressions in linear time (`texts.patterns`), its `$ref`s
lead to itself alone, so that nothing is fetched, and are followed MOST_REFS times an answer at most. An answer that
costs more, nests deeper than Python follows, or has a number beyond all floats where one is divided, is not allowed by
it. So whatever was let through by `checked` says yes or no to every text.
"""

import json
import re
from collections.abc import Iterator
from contextvars import ContextVar
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from rlhf_online.texts import patterns

if TYPE_CHECKING:
    from jsonschema.protocols import Validator

MOST_REFS = 10_000
MOST_DEPTH = 64
DRAFT = "https://json-schema.org/draft/2020-12/schema"
UNSUPPORTED = ("patternProperties", "$dynamicRef", "$dynamicAnchor", "$id", "$schema")
"""Inside a schema."""
FENCED = re.compile(r"\A\s*```[a-z]*[ \t]*\n(.*)\n[ \t]*```\s*\Z", re.DOTALL)
"""A text that is one code fence."""


_followed: ContextVar[list[int]] = ContextVar("followed")
"""How many references an answer has cost so far."""


class NoJson(ValueError):
    """The text is none."""


def json_of(text: str) -> Any:
    """The value that the whole text is, alone or in one code fence. Raises NoJson."""
    fenced = FENCED.match(text)
    try:
        return json.loads(fenced[1] if fenced else text, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise NoJson(str(error)) from error


def _no_constant(name: str) -> Any:
    raise NoJson(f"{name} is no JSON")


def checked(schema: Any) -> Any:
    """The schema itself. Raises ValueError, with the reason, for what is none, or asks for what nothing here bounds."""
    from jsonschema import Draft202012Validator, SchemaError
    from referencing import Registry
    from referencing.exceptions import Unresolvable
    from referencing.jsonschema import DRAFT202012

    if not isinstance(schema, dict):
        return schema  # pydantic says so
    if _depth(schema) > MOST_DEPTH:
        raise ValueError(f"it nests more than {MOST_DEPTH} deep")
    try:
        json.dumps(schema, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"it holds what JSON has not: {error}") from error
    if (draft := schema.get("$schema", DRAFT)) != DRAFT:
        raise ValueError(f"its $schema is {draft!r}, and only {DRAFT} is known")
    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as error:
        raise ValueError(f"it is no JSON Schema: {error.json_path}: {error.message}") from error
    resolver = Registry().with_resource("", DRAFT202012.create_resource(schema)).resolver()
    known = {id(schema)}
    for name, value in _keywords(_body(schema)):
        if name in UNSUPPORTED:
            raise ValueError(f"{name} is not supported: leave it out")
        if name == "pattern":
            patterns.check_bounded(value)
        if name == "$ref":
            try:
                if id(target := resolver.lookup(value).contents) not in known:
                    Draft202012Validator.check_schema(target)
                    known.add(id(target))
            except Unresolvable:
                raise ValueError(f"its $ref {value!r} leads nowhere in it: put what it means under $defs") from None
            except SchemaError as error:
                raise ValueError(f"its $ref {value!r} leads to what is no schema: {error.message}") from error
    return schema


def _depth(value: Any) -> int:
    """How deep it nests, as far as MOST_DEPTH and a little beyond."""
    level, depth = [value], 0
    while level and depth <= MOST_DEPTH:
        inner = [list(each.values()) if isinstance(each, dict) else each for each in level]
        level = [item for each in inner if isinstance(each, list) for item in each]
        depth += 1
    return depth


def _body(schema: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in schema.items() if name != "$schema"}


def _keywords(schema: Any) -> Iterator[tuple[str, str]]:
    """Those whose names the checks know, wherever they stand; a property may have such a name, its value is a table."""
    if isinstance(schema, list):
        for item in schema:
            yield from _keywords(item)
    elif isinstance(schema, dict):
        for name, value in schema.items():
            if isinstance(value, str) or name in UNSUPPORTED:
                yield name, value
            yield from _keywords(value)


def allows(schema: dict[str, Any], text: str) -> bool:
    """Whether the text is JSON that the schema, which `checked` has let through, allows."""
    _followed.set([0])
    try:
        return _validator(json.dumps(_body(schema))).is_valid(json_of(text))
    except (NoJson, RecursionError, ArithmeticError):
        return False


@lru_cache(maxsize=64)
def _validator(schema: str) -> "Validator":
    from jsonschema import Draft202012Validator, ValidationError
    from jsonschema.validators import extend
    from referencing import Registry

    follow = Draft202012Validator.VALIDATORS["$ref"]

    def ref(validator: Any, target: str, instance: Any, inside: Any) -> Iterator[Any]:
        followed = _followed.get()
        followed[0] += 1
        if followed[0] > MOST_REFS:
            raise RecursionError("it refers to itself too often")
        yield from follow(validator, target, instance, inside) or ()

    def pattern(_: Any, expression: str, instance: Any, inside: Any) -> Iterator[Any]:
        if isinstance(instance, str) and not patterns.found(expression, instance):
            yield ValidationError("it does not match")

    kind = extend(Draft202012Validator, {"$ref": ref, "pattern": pattern})
    return kind(json.loads(schema), registry=Registry())
