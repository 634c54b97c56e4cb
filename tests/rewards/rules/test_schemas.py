"""JSON Schema, and what of it nobody may ask for."""

import datetime
import math
import time
from typing import Any

import pytest

from rlhf_online.rewards.rules import schemas

PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string", "pattern": "^[A-Z]"}, "friends": {"items": {"$ref": "#"}}},
    "required": ["name"],
    "additionalProperties": False,
}


@pytest.mark.parametrize(
    ("text", "allowed"),
    [
        ('{"name": "Ada"}', True),
        ('```json\n{"name": "Ada", "friends": [{"name": "Bob"}]}\n```', True),
        ('{"name": "ada"}', False),
        ('{"name": "Ada", "friends": [{"name": 1}]}', False),
        ('{"name": "Ada", "age": 3}', False),
        ("Ada", False),
        ("[" * 100_000, False),
    ],
)
def test_an_answer_is_what_the_schema_allows(text: str, allowed: bool) -> None:
    assert schemas.allows(schemas.checked(PERSON), text) is allowed


def nested(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "array"}
    for _ in range(depth):
        schema = {"items": schema}
    return schema


@pytest.mark.parametrize(
    ("schema", "answer"),
    [
        ({"multipleOf": 0.5}, "1e400"),
        ({"multipleOf": 0.01}, "1" * 4000),
        ({"type": "number", "multipleOf": 10**400}, "1.5"),
    ],
)
def test_a_number_beyond_all_floats_is_not_allowed_and_breaks_nothing(schema: dict[str, Any], answer: str) -> None:
    assert schemas.allows(schemas.checked(schema), answer) is False


@pytest.mark.parametrize(
    ("schema", "why"),
    [
        ({"type": "obj"}, r"no JSON Schema: \$\.type"),
        ({"$ref": "https://example.org/schema"}, "leads nowhere in it"),
        ({"items": {"$ref": "#/$defs/missing"}}, "leads nowhere in it"),
        ({"$schema": "http://json-schema.org/draft-07/schema#"}, r"only .*2020-12/schema is known"),
        ({"properties": {"a": {"patternProperties": {"(a+)+$": {}}}}}, "patternProperties is not supported"),
        ({"properties": {"a": {"pattern": r"(?=a)"}}}, "no regular expression of Rust's"),
        ({"items": {"$schema": schemas.DRAFT}}, r"\$schema is not supported"),
        ({"const": datetime.date(2026, 1, 1)}, "what JSON has not: .*date"),
        ({"const": math.inf}, "what JSON has not"),
        ({"$ref": "#/required", "required": ["a"]}, "leads to what is no schema"),
        ({"$ref": "#/const", "const": {"minimum": "a"}}, "leads to what is no schema"),
        (nested(100), "nests more than 64 deep"),
        (nested(5_000), "nests more than 64 deep"),
    ],
)
def test_a_schema_that_cannot_be_bounded_is_refused(schema: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        schemas.checked(schema)


def test_a_property_may_be_named_as_a_keyword_is() -> None:
    named = schemas.checked({"$schema": schemas.DRAFT, "properties": {"pattern": {"type": "string"}}})
    assert schemas.allows(named, '{"pattern": "("}') and not schemas.allows(named, '{"pattern": 1}')


@pytest.mark.parametrize(
    ("schema", "answer"),
    [
        ({"items": {"anyOf": [{"$ref": "#"}, {"$ref": "#"}]}, "type": "array"}, "[" * 60 + "1" + "]" * 60),
        ({"anyOf": [{"$ref": "#"}, {"$ref": "#"}]}, "1"),
    ],
)
def test_a_schema_that_refers_to_itself_without_end_costs_a_bounded_time(schema: dict[str, Any], answer: str) -> None:
    began = time.thread_time()
    assert schemas.allows(schemas.checked(schema), answer) is False
    assert time.thread_time() - began < 10
