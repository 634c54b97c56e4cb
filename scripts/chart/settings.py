"""The JSON Schema of a service's settings, as its pydantic model gives it, less what the chart itself decides."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, GetJsonSchemaHandler
from pydantic_core import CoreSchema

Schema = dict[str, Any]
NOT_SHOWN = ("title", "discriminator", "format")
OURS = {"host": "0.0.0.0"}
"""Defaults that the templates put in place of the services' own."""


@dataclass(frozen=True)
class SettingsOf:
    """Annotation of a map of settings: those of `model`, without the dotted names in `decided`."""

    model: type[BaseModel]
    decided: tuple[str, ...] = ()

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> Schema:
        return settings_schema(self.model, self.decided)


def settings_schema(model: type[BaseModel], decided: Iterable[str]) -> Schema:
    """All tables in place, no `null` (a values file has none: Helm takes it for "not given"), nothing required.

    What one setting allows of another stays the service's own check: its start refuses it in a sentence.
    """
    whole = model.model_json_schema()
    schema = _resolved(whole, whole.get("$defs", {}))
    for name in decided:
        *tables, last = name.split(".")
        table = schema
        for each in tables:
            table = table["properties"][each]
        table["properties"].pop(last)
    for name in OURS.keys() & schema["properties"].keys():
        schema["properties"][name]["default"] = OURS[name]
    schema.pop("required", None)
    schema.pop("description", None)
    return schema


def _resolved(node: Any, defs: Schema) -> Any:
    if isinstance(node, list):
        return [_resolved(each, defs) for each in node]
    return _resolved_table(node, defs) if isinstance(node, dict) else node


def _resolved_table(node: Schema, defs: Schema) -> Schema:
    if "$ref" in node:
        found = _resolved_table(defs[node["$ref"].rpartition("/")[2]], defs)
        return found | {name: value for name, value in node.items() if name == "description"}
    kept = {name: value for name, value in node.items() if name not in (*NOT_SHOWN, "$defs")}
    if "discriminator" in node:  # a table with its name, without which two of them would match, or the name alone
        tag = node["discriminator"]
        named = [_resolved_table(each, defs) | {"required": [tag["propertyName"]]} for each in node["oneOf"]]
        kept["oneOf"] = [*named, {"enum": sorted(tag["mapping"])}]
    if {"type": "null"} in kept.get("anyOf", ()):
        some = [each for each in kept.pop("anyOf") if each != {"type": "null"}]
        return _resolved_table((some[0] if len(some) == 1 else {"anyOf": some}) | kept, defs)
    if kept.get("default", "") is None or isinstance(kept.get("default"), dict):
        del kept["default"]
    properties = kept.pop("properties", None)
    resolved = {name: _resolved(value, defs) for name, value in kept.items()}
    if properties is not None:
        resolved["properties"] = {name: _resolved(value, defs) for name, value in properties.items()}
    return resolved
