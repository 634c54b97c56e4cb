"""The service's description for programs, OpenAPI 3.1, made of the table of operations and of their models."""

import re
from functools import cache
from importlib.metadata import version
from typing import Any

from pydantic import TypeAdapter
from pydantic.json_schema import models_json_schema

from services.chat.api.operations import OPERATIONS, Operation
from services.chat.bodies.api_error import ErrorBody
from services.chat.bodies.validation import Model

REF = "#/components/schemas/{model}"
ERRORS = {
    400: "The request is wrong; `error.param` names the field.",
    401: "Who calls is not known: no key, one that is unknown, revoked or expired, or a name that was not signed.",
    403: "The key has another role, a page of another site may have sent it, or it would replace somebody else's vote.",
    404: "There is no model, version or file of that name.",
    409: "The versions' state forbids it, or another vote has the same key; `error.message` says why.",
    413: "The body is too large.",
    415: "The body is compressed.",
    429: "Too many requests are in progress.",
    500: "A defect of the service; its log says more under the id in `error.message`.",
    503: "The engine or the event log cannot take it now; try again after `Retry-After` seconds.",
    504: "The answer took longer than one may; `x-should-retry: false` asks clients not to repeat it by themselves.",
}


@cache
def document() -> dict[str, Any]:
    """The whole of it."""
    schemas, components = _schemas()
    paths: dict[str, dict[str, Any]] = {}
    for operation in OPERATIONS:
        path = re.sub(r"{(\w+):\w+}", r"{\1}", operation.path)
        paths.setdefault(path, {})[operation.method.lower()] = _operation(operation, path, schemas)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "rlhf-online",
            "version": version("rlhf-online"),
            "description": "A chat service that learns, live, from the people who use it. In every request `null` "
            "means that the field is absent, and unknown fields are refused.",
        },
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {
                "key": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "A key that `rlhf-online keys create` made, with the role that an operation names, "
                    "or the content of `operator.token` in the state folder. A service that listens on the loopback "
                    "interface and has no keys asks for none, but for the operator's operations.",
                }
            },
        },
    }


def _schemas() -> tuple[dict[Any, dict[str, Any]], dict[str, Any]]:
    """A reference to each model and typed dictionary that an operation names, and the schemas behind them."""
    requests: list[type[Model]] = [model for op in OPERATIONS for model in (op.body, op.lines) if model]
    said = [given for op in OPERATIONS for given in (op.response, op.stream) if not isinstance(given, str | None)]
    refs, definitions = models_json_schema([(model, "validation") for model in requests], ref_template=REF)
    found: dict[Any, dict[str, Any]] = {model: ref for (model, _), ref in refs.items()}
    components: dict[str, Any] = definitions["$defs"]
    for kind in (*said, ErrorBody):
        schema = TypeAdapter(kind).json_schema(ref_template=REF, mode="serialization")
        components |= schema.pop("$defs", {})
        components[kind.__name__] = schema
        found[kind] = {"$ref": REF.format(model=kind.__name__)}
    return found, components


def _operation(operation: Operation, path: str, schemas: dict[Any, dict[str, Any]]) -> dict[str, Any]:
    content = {"application/json": {"schema": schemas[ErrorBody]}}
    described: dict[str, Any] = {
        "operationId": operation.name,
        "summary": operation.summary,
        "responses": {
            "200": {"description": "As asked.", "content": _content(operation, schemas)},
            **{
                str(status): {"description": ERRORS[status], "content": content}
                for status in (*operation.statuses, 500)
            },
        },
    }
    for status in operation.also:
        described["responses"][str(status)] = {
            "description": "Not ready.",
            "content": _content(operation, schemas),
        }
    parameters = [
        {"name": name, "in": "path", "required": True, "description": "Its name.", "schema": {"type": "string"}}
        for name in re.findall(r"{(\w+)}", path)
    ]
    if operation.query is not None:
        fields = operation.query.model_json_schema()["properties"]
        parameters += [
            {"name": name, "in": "query", "required": False, "description": schema.pop("description"), "schema": schema}
            for name, schema in fields.items()
        ]
    if parameters:
        described["parameters"] = parameters
    if operation.body is not None:
        required = bool(operation.body.required)
        described["requestBody"] = {
            "required": required,
            "content": {"application/json": {"schema": schemas[operation.body]}},
        }
    if operation.lines is not None:
        line = {"contentMediaType": "application/json", "contentSchema": schemas[operation.lines]}
        schema = {"type": "string", "description": "One of these objects a line.", **line}
        described["requestBody"] = {"required": True, "content": {"application/x-ndjson": {"schema": schema}}}
    if operation.requires != "public":
        described["security"] = [{"key": [operation.requires]}]
    return described


def _content(operation: Operation, schemas: dict[Any, dict[str, Any]]) -> dict[str, Any]:
    if isinstance(operation.response, str):
        content = {operation.response: {}}
    else:
        content = {"application/json": {"schema": schemas[operation.response]}}
    if operation.stream is not None:
        content["text/event-stream"] = {"schema": schemas[operation.stream]}
    return content
