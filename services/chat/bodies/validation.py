"""Bodies of requests as pydantic models, and what a client reads when one of them is wrong, in OpenAI's form.

A model is the one description of a request: HTTP bodies and gRPC messages are read through it, and `/openapi.json` is
made from it. Two rules hold for every model: `null` means that the field is absent, and a message never repeats a value
that could be text of a conversation, only its kind.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, TypeVar

import orjson
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    ValidationError,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, ErrorDetails, core_schema

from services.chat.bodies.api_error import ApiError

JSON_KINDS = {
    str: "a string",
    bool: "a boolean",
    int: "an integer",
    float: "a number",
    list: "an array",
    dict: "an object",
}
EXPECTED = {
    "string_type": "a string",
    "bool_type": "a boolean",
    "int_type": "an integer",
    "float_type": "a number",
    "list_type": "an array",
    "dict_type": "an object",
    "model_type": "an object",
}
"""pydantic's errors of type, in JSON's words."""


class Model(BaseModel):
    """A JSON object. An unknown field is refused before all else: none is ignored in silence."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, hide_input_in_errors=True)
    required: ClassVar[frozenset[str]] = frozenset()
    known: ClassVar[frozenset[str]] = frozenset()

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        cls.known = frozenset(cls.model_fields)
        cls.required = frozenset(name for name, field in cls.model_fields.items() if field.is_required())

    @model_validator(mode="before")
    @classmethod
    def _null_is_absent(cls, values: object) -> object:
        """A required field that is absent is read as null, so that its own validator says what was expected."""
        if not isinstance(values, dict):
            return values
        if None in values.values() or not values.keys() >= cls.required:
            given = {name: value for name, value in values.items() if value is not None}
            values = dict.fromkeys(cls.required) | given
        if cls.model_config.get("extra") == "forbid" and not values.keys() <= cls.known:
            # told here, and not by pydantic, which would collect all of them
            raise Mistake("", code="unknown_parameter", param=next(name for name in values if name not in cls.known))
        return values


Body = TypeVar("Body", bound=Model)
Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class _UpToTheFirstMistake:
    """pydantic's `FailFast`, which cannot be hashed and so stand in a union."""

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        schema = handler(source)
        assert schema["type"] == "list"
        return core_schema.list_schema(schema.get("items_schema"), fail_fast=True)


Array = Annotated[list[Item], _UpToTheFirstMistake()]
"""A list that is checked up to its first mistake: a body may hold half a million of them, and each costs time."""


@dataclass(frozen=True, slots=True)
class Within:
    """A number from `low` to `high`, or to the limit of the configuration that `high` names (see `validate`)."""

    low: float
    high: float | str

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.with_info_after_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        known = {} if isinstance(self.high, str) else {"maximum": self.high}
        return handler(schema) | {"minimum": self.low} | known

    def _check(self, value: float, info: ValidationInfo) -> float:
        high: float = (info.context or {})[self.high] if isinstance(self.high, str) else self.high
        if not self.low <= value <= high:
            raise Mistake(f"expected {self.low} to {high}, got {value}")
        return value


@dataclass(frozen=True, slots=True)
class AtMost:
    """An array of at most `limit` things, which messages call `noun`."""

    limit: int
    noun: str

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return handler(schema) | {"maxItems": self.limit}

    def _check(self, value: object) -> object:
        if isinstance(value, list) and len(value) > self.limit:
            raise Mistake(f"{len(value)} {self.noun}, at most {self.limit} are taken")
        return value


@dataclass(frozen=True, slots=True)
class Expected:
    """Says what was expected in words of its own, where the value is of the wrong type.

    With `whole`, whatever is wrong inside of the value is said of the whole; with another `code`, the words say all.
    """

    words: str
    whole: bool = False
    code: str = "invalid_type"

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_wrap_validator_function(self._check, handler(source))

    def _check(self, value: object, handler: ValidatorFunctionWrapHandler) -> object:
        try:
            return handler(value)
        except ValidationError as error:
            own = error.errors(include_input=False, include_url=False)[0]
            if self.whole or (not own["loc"] and own["type"] in EXPECTED):
                raise Mistake(f"expected {self.words}", code=self.code) from error
            raise


def _whole_number(value: object) -> object:
    """8.0 is an integer in JSON Schema, and some clients write integers so."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


Integer = Annotated[int, BeforeValidator(_whole_number)]


def _from_query(value: object) -> object:
    return int(value) if isinstance(value, str) and value.isascii() and value.isdecimal() else value


FROM_QUERY = BeforeValidator(_from_query)
"""Beside an Integer: one of a query, where all is text."""


class Mistake(ValueError):
    """What a validator raises: the client reads "path: message". `param` is a field below the validator's own path."""

    def __init__(self, message: str, *, code: str = "invalid_value", param: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.param = param


def parse_object(body: bytes) -> dict[str, Any]:
    """The JSON object in `body`; raises ApiError."""
    try:
        values = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise ApiError(f"the body is not valid JSON ({where})", code="invalid_json") from error
    if not isinstance(values, dict):
        raise ApiError(f"the body must be a JSON object, not {_kind(values)}", code="invalid_json")
    return values


def validate(model: type[Body], values: Mapping[str, Any], limits: Mapping[str, int] | None = None) -> Body:
    """`values` as a `model`; `limits` are those of the configuration, by name. Raises ApiError."""
    try:
        return model.model_validate(values, context=limits)
    except ValidationError as error:
        raise _refusal(error) from None  # pydantic's error holds the values


def _refusal(error: ValidationError) -> ApiError:
    """Of several mistakes the first of the model's fields is told."""
    first = error.errors(include_url=False)[0]
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"]).removeprefix(".")
    mistake = _mistake(first)
    param = ".".join(part for part in (path, mistake.param) if part)
    if mistake.code == "unknown_parameter":
        return ApiError(f"unrecognized field: {param}", param=param, code=mistake.code)
    return ApiError(f"{param}: {mistake}" if path else str(mistake), param=param or None, code=mistake.code)


def _mistake(error: ErrorDetails) -> Mistake:
    value, context = error["input"], error.get("ctx", {})
    match error["type"]:
        case "value_error":
            mistake = context["error"]
            assert isinstance(mistake, Mistake), mistake
            return _with_kind(str(mistake), value) if mistake.code == "invalid_type" else mistake
        case "literal_error":
            return Mistake("expected one of " + context["expected"].replace("'", "").replace(" or ", ", "))
        case "string_too_long":
            message = f"{len(value)} characters, at most {context['max_length']} are taken"
            return Mistake(message, code="string_above_max_length")
        case type_:
            return _with_kind(f"expected {EXPECTED[type_]}", value)


def _with_kind(expected: str, value: object) -> Mistake:
    return Mistake(f"{expected}, got {_kind(value)}", code="invalid_type")


def _kind(value: object) -> str:
    return "null" if value is None else JSON_KINDS.get(type(value), "something else")
