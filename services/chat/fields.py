"""Reading fields out of a JSON object, with errors that name the field, what was expected and what was got.

Messages never repeat a value that could be text of a conversation: only its kind.
"""

from collections.abc import Mapping
from typing import Any

import orjson

from services.chat.refusal import Refusal

JSON_KINDS = {
    str: "a string",
    bool: "a boolean",
    int: "an integer",
    float: "a number",
    list: "an array",
    dict: "an object",
}


def parse_object(body: bytes) -> dict[str, Any]:
    """The JSON object in `body`; raises Refusal."""
    try:
        values = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise Refusal(f"the body is not valid JSON ({where})", code="invalid_json") from error
    if not isinstance(values, dict):
        raise Refusal(f"the body must be a JSON object, not {kind(values)}", code="invalid_json")
    return values


def refuse_unknown(values: Mapping[str, Any], known: frozenset[str], path: str = "") -> None:
    """An option that would be ignored in silence is refused instead."""
    for name in values:
        if name not in known:
            raise Refusal(f"unrecognized field: {path}{name}", param=f"{path}{name}", code="unknown_parameter")


def text(values: Mapping[str, Any], name: str, *, limit: int, path: str = "") -> str:
    """A string of at most `limit` characters; "" where it is missing or null."""
    value = values.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise wrong(f"{path}{name}", "a string", value)
    if len(value) > limit:
        raise too_long(f"{path}{name}", len(value), limit)
    return value


def integer(values: Mapping[str, Any], name: str, default: int, low: int, high: int, path: str = "") -> int:
    """An integer from `low` to `high`; `default` where it is missing or null."""
    value = values.get(name)
    if value is None:
        return default
    if not isinstance(value, int) or isinstance(value, bool):
        raise wrong(f"{path}{name}", "an integer", value)
    if not low <= value <= high:
        raise out_of_range(f"{path}{name}", value, low, high)
    return value


def number(values: Mapping[str, Any], name: str, default: float, low: float, high: float) -> float:
    """A number from `low` to `high`; `default` where it is missing or null."""
    value = values.get(name)
    if value is None:
        return default
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise wrong(name, "a number", value)
    if not low <= value <= high:
        raise out_of_range(name, value, low, high)
    return float(value)


def boolean(values: Mapping[str, Any], name: str, default: bool = False, path: str = "") -> bool:
    value = values.get(name)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise wrong(f"{path}{name}", "a boolean", value)
    return value


def object_(values: Mapping[str, Any], name: str) -> dict[str, Any]:
    """An object; {} where it is missing or null."""
    value = values.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise wrong(name, "an object", value)
    return value


def kind(value: object) -> str:
    return "null" if value is None else JSON_KINDS.get(type(value), "something else")


def wrong(name: str, expected: str, value: object) -> Refusal:
    return Refusal(f"{name}: expected {expected}, got {kind(value)}", param=name, code="invalid_type")


def out_of_range(name: str, value: float, low: float, high: float) -> Refusal:
    return Refusal(f"{name}: expected {low} to {high}, got {value}", param=name, code="invalid_value")


def too_long(name: str, length: int, limit: int) -> Refusal:
    return Refusal(
        f"{name}: {length} characters, at most {limit} are taken", param=name, code="string_above_max_length"
    )
