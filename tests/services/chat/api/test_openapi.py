"""`/openapi.json`: valid, complete, and what the service really answers."""

import re
from typing import Any

import jsonschema
import pytest

from services.chat.api.openapi import document
from services.chat.api.operations import OPERATIONS
from tests.support.chat_service import ASK, Service

SCHEMAS = document()["components"]["schemas"]


def check(values: object, model: str) -> None:
    """Raises if `values` are not as the description says."""
    schema = {"$ref": f"#/components/schemas/{model}", "components": {"schemas": SCHEMAS}}
    jsonschema.Draft202012Validator(schema).validate(values)


def test_every_schema_is_one() -> None:
    for schema in SCHEMAS.values():
        jsonschema.Draft202012Validator.check_schema(schema)
    for reference in re.findall(r"'#/components/schemas/(\w+)'", str(document())):
        assert reference in SCHEMAS


def test_every_operation_and_every_field_is_in_it_with_a_description() -> None:
    described = {
        (path, method.upper()): operation
        for path, operations in document()["paths"].items()
        for method, operation in operations.items()
    }
    assert described.keys() == {(re.sub(r":\w+}", "}", op.path), op.method) for op in OPERATIONS}
    for operation in described.values():
        assert operation["summary"].endswith(".")
        assert {"200", "500"} <= operation["responses"].keys()
        assert all(response["description"] for response in operation["responses"].values())
        assert all(parameter["description"] for parameter in operation.get("parameters", ()))
    for name, schema in SCHEMAS.items():
        assert schema["description"], name
        for field, values in schema["properties"].items():
            assert values.get("description"), f"{name}.{field}"
    for operation in OPERATIONS:
        for model in filter(None, (operation.body, operation.query)):
            assert operation.query or SCHEMAS[model.__name__]["properties"].keys() == model.model_fields.keys()


def test_each_operation_says_which_role_it_requires() -> None:
    for operation in OPERATIONS:
        described = document()["paths"][re.sub(r":\w+}", "}", operation.path)][operation.method.lower()]
        public = operation.requires == "public"
        assert described.get("security") == (None if public else [{"key": [operation.requires]}])
        assert ({"401", "403"} <= described["responses"].keys()) is not public


async def test_it_is_served(service: Service) -> None:
    assert await service.get("/openapi.json") == (200, document())


@pytest.mark.parametrize("fields", [{}, {"logprobs": True, "return_token_ids": True, "n": 2}])
async def test_answers_are_as_described(service: Service, fields: dict[str, Any]) -> None:
    check({**ASK, **fields}, "ChatCompletionRequest")
    check((await service.ask(**fields))[1], "ChatCompletion")
    text = {**fields, "prompt": "once", **({"logprobs": 1} if "logprobs" in fields else {})}
    check(text, "CompletionRequest")
    check((await service.post("/v1/completions", text))[1], "TextCompletion")


async def test_so_is_all_else(service: Service) -> None:
    token = service.state.operator_token()
    service.version(live=True)
    service.version()
    vote = {"thumb": {"answer": {"completion_id": "a"}, "up": True}}
    check(vote, "FeedbackRequest")
    rollouts = {"prompts": [[1, 2]], "n": 2}
    check(rollouts, "RolloutRequest")
    check(ASK, "CompareRequest")
    compared = await service.post("/v1/comparisons", ASK)
    for model, (status, values) in {
        "FeedbackAccepted": await service.post("/v1/feedback", vote),
        "Comparison": compared,
        "ComparisonResult": await service.get(f"/v1/comparisons/{compared[1]['comparison_id']}"),
        "RolloutResults": await service.post("/v1/rollouts", rollouts, token),
        "VersionChanged": await service.post("/v1/versions/policy-000001/promote", b"", token),
        "VersionList": await service.get("/v1/versions"),
        "ModelList": await service.get("/v1/models"),
        "ModelInfo": await service.get("/v1/models/base"),
        "Readiness": await service.get("/readyz"),
        "Health": await service.get("/healthz"),
    }.items():
        assert status == 200
        check(values, model)
    check((await service.post("/v1/feedback", {}))[1], "ErrorBody")


@pytest.mark.parametrize(
    "body",
    [
        {"thumb": {"answer": {"completion_id": "a"}}},
        {"thumb": {"answer": {"completion_id": "a", "index": -1}, "up": True}},
        {"person": "ann"},
        {"response_ms": 0.5},
    ],
)
def test_what_the_service_refuses_the_description_refuses(body: dict[str, Any]) -> None:
    with pytest.raises(jsonschema.ValidationError):
        check(body, "FeedbackRequest")
