"""Who may call what, over HTTP and gRPC; and errors that nobody foresaw."""

import asyncio
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
import pytest

from rlhf_online.proto.rlhf.v1 import chat_pb2
from services.chat.api.operations import BY_RPC, OPERATIONS, Operation
from services.chat.transport.grpc_errors import CODES
from services.chat.transport.grpc_server import GrpcServer
from tests.support import api_keys
from tests.support.chat_service import Service, running

OPERATORS = [operation for operation in OPERATIONS if operation.requires == "operator"]


def test_an_operation_says_who_may_call_it() -> None:
    with pytest.raises(TypeError, match="requires"):
        Operation(name="page", summary="", method="GET", path="/", response="text/html")  # pyright: ignore[reportCallIssue]


def test_what_changes_something_and_other_peoples_words_are_the_operators() -> None:
    assert {operation.name for operation in OPERATORS} == {
        "promote", "rollback", "sample", "pause_learning", "resume_learning", "set_reward_weights", "add_items",
        "search_conversations", "console_conversation", "version_report",
        "trace_completion", "version_data", "person_data", "promote_canary", "abort_canary", "erase_person",
    }  # fmt: skip


def test_what_everybody_may_ask_tells_nothing_of_people() -> None:
    public = {operation.name for operation in OPERATIONS if operation.requires == "public"}
    pages = {"page", "console", "annotate", "page_asset", "reference"}
    assert public == {*pages, "healthz", "readyz", "expose", "expose_engine", "openapi"}


async def test_each_operation_is_open_to_its_role_and_to_operators(tmp_path: Path) -> None:
    """Every row of the table, over HTTP and each of its gRPC methods, with a key of each role and with none."""
    api_keys.write(tmp_path / "state")
    roles = ("chat", "feedback", "read", "operator", "none")
    async with running(tmp_path) as service, grpc.aio.insecure_channel(service.grpc) as channel:
        for operation in OPERATIONS:
            open_to = {role for role in roles if operation.requires in ("public", role) or role == "operator"}
            path = operation.path.replace("{version}", "policy-000099").replace("{model:path}", "base")
            for role in roles:
                refused = 0 if role in open_to else 401 if role == "none" else 403
                token = {"authorization": f"Bearer {api_keys.TOKENS[role]}"} if role != "none" else {}
                async with service.session.request(operation.method, service.url + path, headers=token) as response:
                    assert (response.status if response.status in (401, 403) else 0) == refused, (path, role)
                for rpc in operation.rpcs:
                    call = channel.unary_stream(rpc)(b"", metadata=tuple((n.lower(), v) for n, v in token.items()))
                    with suppress(grpc.aio.AioRpcError, asyncio.CancelledError):
                        async for _ in call:
                            if operation.name == "watch_versions":  # it has no end
                                call.cancel()
                    status = {code: status for status, code in CODES.items()}.get(await call.code(), 0)
                    assert (status if status in (401, 403) else 0) == refused, (rpc, role)


@pytest.mark.parametrize("operation", OPERATORS, ids=lambda operation: operation.name)
@pytest.mark.parametrize("credential", ["", "Bearer", "Bearer ", "Bearer wrong", "Bearer ü", "Basic {}", "{}"])
async def test_the_operators_are_refused_without_the_credential(
    service: Service, operation: Operation, credential: str
) -> None:
    for _ in range(2):
        service.version(live=True)
    token = service.state.operator_token()
    headers = {"Authorization": credential.format(token)} if credential else {}
    url = service.url + operation.path.replace("{version}", "policy-000000")
    async with service.session.request(operation.method, url, headers=headers) as response:
        assert response.status == 401
        assert response.headers["www-authenticate"].startswith("Bearer")
        assert token not in await response.text()
    metadata = tuple((name.lower(), value) for name, value in headers.items() if value.isascii())
    async with grpc.aio.insecure_channel(service.grpc) as channel:
        for rpc in operation.rpcs:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await channel.unary_unary(rpc)(b"", metadata=metadata)
            assert caught.value.code() == grpc.StatusCode.UNAUTHENTICATED
            assert token not in (caught.value.details() or "")
    assert service.registry.live("policy") == "policy-000001"
    assert service.engine.requests == []


async def test_a_grpc_method_that_no_operation_declares_is_not_served(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(BY_RPC, "/rlhf.v1.AdminService/Promote")
    with pytest.raises(AssertionError, match="Promote"):
        GrpcServer(service.chat)


async def test_a_wrong_method_tells_the_right_ones(service: Service) -> None:
    for path, right in (("/v1/chat/completions", {"POST"}), ("/v1/feedback/x", {"DELETE", "GET", "PUT"})):
        response = await service.session.patch(service.url + path)
        allowed = {method for method in response.headers["allow"].split(", ") if method != "HEAD"}
        assert (response.status, allowed) == (405, right)
        assert (await response.json(content_type=None))["error"]["code"] == "method_not_allowed"


async def test_a_compressed_body_is_refused_by_that_name(service: Service) -> None:
    headers = {"Content-Encoding": "gzip"}
    async with service.session.post(service.url + "/v1/feedback", data=b"\x1f\x8b", headers=headers) as response:
        assert response.status == 415
        assert (await response.json(content_type=None))["error"]["code"] == "unsupported_encoding"


def nested(levels: int) -> bytes:
    return b'{"a":' * levels + b"1" + b"}" * levels


@pytest.mark.parametrize("levels", [260, 900, 5000])
@pytest.mark.parametrize(
    "body",
    [
        b'{"messages":[{"role":"user","content":"hi","note":%b}]}',
        b'{"messages":[{"role":"user","content":"hi"}],"chat_template_kwargs":%b}',
        b'{"messages":[{"role":"user","content":"hi"}],"tools":[{"type":"function","function":'
        b'{"name":"f","parameters":%b}}]}',
    ],
)
async def test_json_nested_too_deeply_is_the_clients_mistake(service: Service, levels: int, body: bytes) -> None:
    status, reply = await service.post("/v1/chat/completions", body % nested(levels))
    assert (status, reply["error"]["type"]) == (400, "invalid_request_error")
    assert reply["error"]["code"] == ("nested_too_deeply" if levels < 1024 else "invalid_json")
    assert service.chat.gateway.active == 0
    assert await service.metric('rlhf_chat_requests_total{outcome="invalid"}') == 1


@pytest.fixture
def defect(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise KeyError("secret words")

    monkeypatch.setattr(service.chat.gateway, "models", fail)


@pytest.mark.usefixtures("defect")
async def test_an_error_that_nobody_foresaw(service: Service, capsys: pytest.CaptureFixture[str]) -> None:
    """Over both transports: an id that the log explains, a count, and no word of the conversation."""
    status, reply = await service.ask(model="base")
    assert (status, reply["error"]["code"]) == (500, "internal_error")
    assert (await service.get("/v1/models"))[0] == 500
    request = chat_pb2.CompleteRequest(messages=[{"role": "user", "content": "secret words"}], model="base")
    async with grpc.aio.insecure_channel(service.grpc) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.unary_unary("/rlhf.v1.ChatService/Complete")(request.SerializeToString())
    assert caught.value.code() == grpc.StatusCode.INTERNAL
    logged = capsys.readouterr().out
    for message in (reply["error"]["message"], caught.value.details() or ""):
        assert message.rpartition(" ")[2] in logged
    assert "KeyError" in logged
    assert "secret" not in logged
    assert await service.metric("rlhf_chat_internal_errors_total") == 3
    assert await service.metric('rlhf_chat_requests_total{outcome="error"}') == 2
