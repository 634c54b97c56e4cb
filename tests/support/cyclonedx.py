"""Is a document a bill of materials as CycloneDX 1.6 wants it? Its schema says (`scripts/ops_tools.sh` brings it)."""

import json
from typing import Any

import jsonschema
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT7

from tests.support.ops_tools import tool


def validate(document: dict[str, Any]) -> None:
    """Against CycloneDX's own schema. Raises jsonschema.ValidationError."""
    schemas = [json.loads(path.read_text()) for path in tool("cyclonedx-1.6").iterdir()]
    named = {schema["$id"].replace(".schema.json", ".SNAPSHOT.schema.json"): schema for schema in schemas}
    registry = Registry().with_resources((name, Resource(each, DRAFT7)) for name, each in named.items())
    whole = next(schema for schema in schemas if "bom-1.6" in schema["$id"])
    jsonschema.Draft7Validator(whole, registry=registry).validate(document)
