"""gRPC twins of chat, feedback and the versions' routes, in the same event loop as HTTP; health and reflection.

Errors carry the same messages as over HTTP, under gRPC's codes.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing
from types import ModuleType
from typing import Any

import grpc
import structlog
from google.protobuf.message import DecodeError
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from prometheus_client import Counter

from rlhf_online import tracing
from rlhf_online.config.grpc import MAX_CALLS
from rlhf_online.errors import RlhfError
from rlhf_online.proto.rlhf.v1 import (
    admin_pb2,
    admin_pb2_grpc,
    chat_pb2,
    chat_pb2_grpc,
    comparisons_pb2,
    comparisons_pb2_grpc,
    conversations_pb2,
    conversations_pb2_grpc,
    feedback_pb2,
    feedback_pb2_grpc,
    versions_pb2,
)
from rlhf_online.versions.manifest import Manifest
from rlhf_online.versions.summary import VersionSummary
from services.chat.access.authorization import Authorization
from services.chat.access.caller import CALLER
from services.chat.api.operations import BY_RPC, Operation
from services.chat.bodies.api_error import ApiError, report
from services.chat.tracing import LOOKING
from services.chat.transport import connections
from services.chat.transport.chat import Chat, readiness
from services.chat.transport.grpc_chat import ChatServicer
from services.chat.transport.grpc_comparisons import ComparisonServicer
from services.chat.transport.grpc_conversations import ConversationServicer
from services.chat.transport.grpc_errors import code_of, trailing
from services.chat.transport.grpc_feedback import FeedbackServicer
from services.chat.transport.grpc_values import values_of
from services.grpc_port import GrpcPort
from services.grpc_tracing import TraceGrpc

HEALTH_POLL_S = 0.5
FILES = (chat_pb2, comparisons_pb2, feedback_pb2, admin_pb2, conversations_pb2)
SERVICES = (
    "rlhf.v1.ChatService",
    "rlhf.v1.ComparisonService",
    "rlhf.v1.FeedbackService",
    "rlhf.v1.AdminService",
    "rlhf.v1.ConversationService",
)
TRACED = {rpc: operation.method not in LOOKING for rpc, operation in BY_RPC.items()}
Context = grpc.aio.ServicerContext


class AdminServicer(admin_pb2_grpc.AdminServiceServicer):
    """Versions."""

    def __init__(self, chat: Chat) -> None:
        self.versions = chat.versions
        self.watch = chat.watch
        self.engine = chat.gateway.engine

    async def ListVersions(
        self, request: admin_pb2.ListVersionsRequest, context: Context
    ) -> admin_pb2.ListVersionsResponse:
        rows = await asyncio.to_thread(self.versions.rows, values_of(request))
        live = await asyncio.to_thread(self.versions.live)
        return admin_pb2.ListVersionsResponse(
            versions=[_info(row) for row in rows],
            serving=self.engine.serving,
            live={kind: version for kind, version in live.items() if version is not None},
        )

    async def WatchVersions(
        self, request: admin_pb2.WatchVersionsRequest, context: Context
    ) -> AsyncIterator[admin_pb2.WatchVersionsResponse]:
        async with aclosing(self.watch.notices()) as notices:
            async for notice in notices:
                if notice:
                    yield admin_pb2.WatchVersionsResponse(**notice)

    async def Promote(self, request: admin_pb2.PromoteRequest, context: Context) -> admin_pb2.PromoteResponse:
        return admin_pb2.PromoteResponse(**await asyncio.to_thread(self.versions.promote, request.version, _acting()))

    async def Rollback(self, request: admin_pb2.RollbackRequest, context: Context) -> admin_pb2.RollbackResponse:
        changed = await asyncio.to_thread(self.versions.rollback, values_of(request), _acting())
        return admin_pb2.RollbackResponse(**changed)


class OperationInterceptor(grpc.aio.ServerInterceptor):
    """Runs each call of an operation for those who may make it, and turns its error into gRPC's status.

    The message is read here too: gRPC would answer one that cannot be read as if the service had failed.
    """

    def __init__(self, authorization: Authorization, internal_errors: Counter) -> None:
        self.authorization = authorization
        self.internal_errors = internal_errors

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        handler = await continuation(handler_call_details)
        operation = BY_RPC.get(handler_call_details.method)
        if handler is None or operation is None:  # health and reflection, which `GrpcServer` has checked
            return handler
        read, write = handler.request_deserializer, handler.response_serializer
        if handler.response_streaming:

            async def stream(request: bytes, context: Context) -> None:
                try:
                    self._authorize(operation, context)
                    async with aclosing(handler.unary_stream(_parsed(read, request), context)) as pieces:
                        async for piece in pieces:
                            await _write(context, piece)
                except Exception as error:
                    await self.refuse(context, error)

            return grpc.unary_stream_rpc_method_handler(stream, response_serializer=write)

        if handler.request_streaming:

            async def client_stream(requests: AsyncIterator[bytes], context: Context) -> Any:
                try:
                    self._authorize(operation, context)
                    parsed = (_parsed(read, request) async for request in requests)
                    return await handler.stream_unary(parsed, context)
                except Exception as error:
                    await self.refuse(context, error)

            return grpc.stream_unary_rpc_method_handler(client_stream, response_serializer=write)

        async def unary(request: bytes, context: Context) -> Any:
            try:
                self._authorize(operation, context)
                return await handler.unary_unary(_parsed(read, request), context)
            except Exception as error:
                await self.refuse(context, error)

        return grpc.unary_unary_rpc_method_handler(unary, response_serializer=write)

    def _authorize(self, operation: Operation, context: Context) -> None:
        said = {name: value for name, value in context.invocation_metadata() or () if isinstance(value, str)}
        CALLER.set(self.authorization.admit(operation.requires, said))

    async def refuse(self, context: Context, error: Exception) -> None:
        """End the call with the error, in gRPC's words."""
        answer = report(error, self.internal_errors, tracing.request_id())
        named = (tracing.REQUEST_ID, tracing.request_id())
        try:
            await context.abort(code_of(answer), str(answer), (*trailing(answer), named))
        except grpc.aio.InternalError:  # nobody is there any more to be told
            raise asyncio.CancelledError from None


async def _write(context: Context, piece: Any) -> None:
    """Send a piece of a stream. A client that does not take it in time has gone as much as one that cancels."""
    try:
        async with asyncio.timeout(connections.UNREAD_S):
            await context.write(piece)
    except TimeoutError:
        structlog.get_logger().warning("client does not read its answer", within_s=connections.UNREAD_S)
        raise asyncio.CancelledError from None


class GrpcServer:
    """The server and its health, which follows readiness. A method that is no operation's is not served."""

    def __init__(self, chat: Chat) -> None:
        undeclared = {name for file in FILES for name in _methods(file)} - BY_RPC.keys()
        assert not undeclared, f"no operation says who may call {undeclared}"
        self.chat = chat
        self.health = health.aio.HealthServicer()  # pyright: ignore[reportAttributeAccessIssue]  # missing in its stubs
        self._port = GrpcPort(
            self._register,
            chat.gateway.metrics.grpc,
            chat.settings.grpc.server_options(chat.settings.limits.max_body_bytes, chat.connections),
            (TraceGrpc(TRACED), OperationInterceptor(chat.authorization, chat.gateway.metrics.internal_errors)),
            max_calls=MAX_CALLS,
        )
        self._follower: asyncio.Task[None] | None = None

    async def start(self, host: str, port: int, credentials: grpc.ServerCredentials | None = None) -> int:
        """Listen, with TLS if there are credentials; returns the real port. Raises RlhfError if it is taken."""
        try:
            bound = await self._port.open(host, port, credentials)
        except RuntimeError as error:
            raise port_taken(host, port, "grpc_port") from error
        self._follower = asyncio.create_task(self._follow())
        return bound

    async def stop(self, grace_s: float) -> None:
        """Take no more calls, and give those in progress `grace_s`."""
        if self._follower is not None:
            self._follower.cancel()
            await asyncio.wait((self._follower,))
        await self.health.enter_graceful_shutdown()
        await self._port.close(grace_s)

    def _register(self, server: grpc.aio.Server) -> None:
        chat_pb2_grpc.add_ChatServiceServicer_to_server(ChatServicer(self.chat), server)
        comparisons_pb2_grpc.add_ComparisonServiceServicer_to_server(ComparisonServicer(self.chat), server)
        feedback_pb2_grpc.add_FeedbackServiceServicer_to_server(FeedbackServicer(self.chat), server)
        conversations_pb2_grpc.add_ConversationServiceServicer_to_server(ConversationServicer(self.chat), server)
        admin_pb2_grpc.add_AdminServiceServicer_to_server(AdminServicer(self.chat), server)
        health_pb2_grpc.add_HealthServicer_to_server(self.health, server)
        reflection.enable_server_reflection((*SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME), server)

    async def _follow(self) -> None:
        """Health: the process as a whole is well; what needs the engine only while that can answer."""
        serving, not_serving = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
        for name in SERVICES[2:]:
            await self.health.set(name, serving)
        shown: bool | None = None
        while True:
            ready = bool(readiness(self.chat)["ready"])
            if ready != shown:
                shown = ready
                for name in ("", *SERVICES[:2]):
                    await self.health.set(name, serving if ready else not_serving)
            await asyncio.sleep(HEALTH_POLL_S)


def _methods(file: ModuleType) -> Iterator[str]:
    for service in file.DESCRIPTOR.services_by_name.values():
        yield from (f"/{service.full_name}/{method.name}" for method in service.methods)


def _parsed(read: Callable[[bytes], Any], data: bytes) -> Any:
    try:
        return read(data)
    except DecodeError as error:
        raise ApiError("the message cannot be read as what the method takes", code="invalid_message") from error


def port_taken(host: str, port: int, setting: str) -> RlhfError:
    return RlhfError(f"cannot listen on {host}:{port}: it is in use; stop what uses it or set another {setting}")


def _acting() -> str:
    return CALLER.get().acting


def _info(row: VersionSummary) -> admin_pb2.VersionInfo:
    info = admin_pb2.VersionInfo(
        manifest=_manifest(row.manifest) if row.manifest else versions_pb2.VersionManifest(version=row.version),
        state=row.status.state,
        reason=row.status.reason,
        kind=row.kind,
        changed_ms=row.status.changed_ms,
        first_live_ms=row.status.first_live_ms,
        by=row.status.by,
    )
    info.gate.update(row.status.gate)
    return info


def _manifest(manifest: Manifest) -> versions_pb2.VersionManifest:
    return versions_pb2.VersionManifest(
        version=manifest.version,
        tuning=manifest.tuning,
        parent=manifest.parent,
        files=[versions_pb2.VersionFile(path=f.path, sha256=f.sha256, size=f.size) for f in manifest.files],
        probe=[versions_pb2.ProbeSequence(token_ids=p.token_ids, logprobs=p.logprobs) for p in manifest.probe],
        created_ms=manifest.created_ms,
        reward_version=manifest.reward_version,
        kl=manifest.kl,
        position=manifest.position,
        reference=manifest.reference,
        figures=manifest.figures,
        weights=manifest.weights,
        rules_version=manifest.rules_version,
        traceparent=manifest.traceparent,
    )
