"""Bodies and methods as no client should send them, on every route: the client's mistake, in one shape."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import Any

import aiohttp
import orjson
import pytest
from starlette.routing import compile_path

from services.chat.api.operations import OPERATIONS, Operation
from tests.support.chat_service import Service

BODIES = [operation for operation in OPERATIONS if operation.body is not None]
HI = b'"messages":[{"role":"user","content":"hi"}]'


def url(service: Service, path: str) -> str:
    return service.url + path.replace("{version}", "policy-000000").replace("{model:path}", "base")


def token(service: Service) -> dict[str, str]:
    return {"Authorization": f"Bearer {service.state.operator_token()}"}


def asked(service: Service, operation: Operation, **given: Any) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
    return service.session.request(operation.method, url(service, operation.path), **given)


def checked(body: bytes, code: str | None = None) -> dict[str, Any]:
    """OpenAI's error."""
    error = orjson.loads(body)["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert error["message"]
    assert code is None or error["code"] == code
    return error


async def test_a_method_that_a_route_does_not_have(service: Service) -> None:
    for path in {operation.path for operation in OPERATIONS}:
        own = {operation.method for operation in OPERATIONS if operation.path == path}
        right = {operation.method for operation in OPERATIONS if compile_path(operation.path)[0].match(path)}
        for method in {"GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND"} - right:
            async with service.session.request(method, url(service, path)) as response:
                assert response.status == 405, (method, path)
                assert own <= set(response.headers["allow"].split(", ")) - {"HEAD"} <= right
                checked(await response.read(), "method_not_allowed")


async def test_head_is_get_without_its_body(service: Service) -> None:
    for path in ("/", "/healthz", "/readyz", "/metrics", "/v1/models", "/v1/versions", "/openapi.json"):
        async with service.session.head(url(service, path)) as response:
            assert (response.status, await response.read()) == (200, b"")


@pytest.mark.parametrize("operation", BODIES, ids=lambda operation: operation.name)
async def test_a_compressed_body(service: Service, operation: Operation) -> None:
    for encoding in ("gzip", "br", "zstd", "deflate", "identity, gzip", "GZIP"):
        headers = {**token(service), "Content-Encoding": encoding}
        async with asked(service, operation, data=b"\x1f\x8b", headers=headers) as response:
            assert response.status == 415, encoding
            checked(await response.read(), "unsupported_encoding")


async def test_a_body_that_says_that_it_is_not_compressed(service: Service) -> None:
    data = b"{%b}" % HI
    async with service.session.post(
        url(service, "/v1/chat/completions"), data=data, headers={"Content-Encoding": "Identity"}
    ) as response:
        assert response.status == 200


NO_OBJECTS = (
    b'{"temperature": NaN}',
    b'{"temperature": Infinity}',
    b'{"user": "\xff\xfe"}',
    b'{"user": "\xed\xa0\x80"}',
    b'{"user": "\\ud800"}',
    b'\xef\xbb\xbf{"n": 1}',
    b"\x00",
    b'"text"',
    b"null",
    b"1",
    b"{" * 5000,
    b'{"a":' * 5000 + b"1" + b"}" * 5000,
    b"model=base&n=1",
)
BEYOND_MEASURE = (
    ("n", b"18446744073709551616"),
    ("n", b"9" * 400),
    ("seed", b"9223372036854775808"),
    ("max_tokens", b"1e400"),
    ("max_tokens", b"1e300"),
    ("temperature", b"1e400"),
    ("top_k", b"-9223372036854775809"),
    ("stop_token_ids", b"[36893488147419103232]"),
    ("logit_bias", b'{"5": 1e400}'),
)


@pytest.mark.parametrize("operation", BODIES, ids=lambda operation: operation.name)
async def test_a_body_that_is_no_json_object(service: Service, operation: Operation) -> None:
    for body in NO_OBJECTS:
        async with asked(service, operation, data=body, headers=token(service)) as response:
            assert response.status == 400, body[:40]
            checked(await response.read(), "invalid_json")


async def test_a_number_beyond_all_measure(service: Service) -> None:
    for field, value in BEYOND_MEASURE:
        status, reply = await service.post("/v1/chat/completions", b'{%b,"%b":%b}' % (HI, field.encode(), value))
        assert status == 400, (field, value)
        error = checked(orjson.dumps(reply))
        assert error["param"] == field or error["code"] == "invalid_json"


async def test_of_a_field_that_is_given_twice_the_last_counts(service: Service) -> None:
    """As in every JSON parser that is in use."""
    _, reply = await service.post("/v1/chat/completions", b'{"n":3,%b,"n":2}' % HI)
    assert len(reply["choices"]) == 2


async def test_json_is_read_whatever_it_is_called(service: Service) -> None:
    """`curl -d` calls it a form. That pages of other sites can send such a body is what `Origin` is checked for."""
    for name in ("text/plain", "application/x-www-form-urlencoded", "application/octet-stream"):
        async with service.session.post(
            url(service, "/v1/chat/completions"), data=b"{%b}" % HI, headers={"Content-Type": name}
        ) as response:
            assert response.status == 200


@pytest.mark.parametrize(
    "operation", [op for op in BODIES if op.name != "sample"], ids=lambda operation: operation.name
)
async def test_an_upload_in_pieces_that_grows_too_large(service: Service, operation: Operation) -> None:
    limit = service.chat.settings.limits.max_body_bytes
    sent = 0

    async def pieces() -> AsyncIterator[bytes]:
        nonlocal sent
        while sent < 64 * limit:
            sent += limit // 4
            yield b" " * (limit // 4)
            await asyncio.sleep(0)

    async with asked(service, operation, data=pieces(), headers=token(service)) as response:
        assert response.status == 413
        checked(await response.read(), "body_too_large")
    assert sent < 64 * limit


async def test_a_name_that_no_version_has(service: Service, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("x" * 5000, "policy-" + "0" * 4993, "policy-%00", "policy-٠٠٠٠٠٠", "..%2F..%2Flog"):
        path = f"{service.url}/v1/versions/{name}/promote"
        async with service.session.post(path, headers=token(service)) as response:
            assert response.status == 404, name[:20]
            error = checked(await response.read())
        assert len(error["message"]) < 200 and "\n" not in error["message"]
    assert await service.metric("rlhf_chat_internal_errors_total") == 0
    assert caplog.records == []
