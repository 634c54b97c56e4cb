"""The requests of `load`, over gRPC."""

from collections.abc import Callable
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from rlhf_online.proto.rlhf.v1 import chat_pb2, chat_pb2_grpc, events_pb2
from tests.benches.support.load import Reply
from tests.benches.support.stand_in import STAMP, now_us


class GrpcClient:
    """`headers` of a person's number are those of HTTP."""

    def __init__(
        self, port: int, headers: Callable[[int], dict[str, str]], people: int, content: str, *, stream: bool
    ) -> None:
        self._channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}")
        self._stub = chat_pb2_grpc.ChatServiceStub(self._channel)
        self._metadata = [tuple(headers(person).items()) for person in range(people)]
        self._request = chat_pb2.CompleteRequest(messages=[events_pb2.Message(role="user", content=content)])
        self._stream = stream

    async def ask(self, number: int, reply: Reply) -> None:
        metadata = self._metadata[number % len(self._metadata)]
        try:
            if self._stream:
                request = chat_pb2.StreamCompleteRequest(request=self._request)
                async for piece in self._stub.StreamComplete(request, metadata=metadata):
                    if found := STAMP.search(piece.delta.encode()):
                        reply.word(int(found[1]))
            else:
                await self._stub.Complete(self._request, metadata=metadata)
        except grpc.aio.AioRpcError as error:
            reply.failure = f"{error.code()} {error.details()}"
        reply.end_s = now_us() / 1e6

    async def close(self) -> None:
        await self._channel.close()


class HealthClient:
    """Asks how the service is, which is answered from memory: what gRPC takes by itself, of client and server."""

    def __init__(self, port: int) -> None:
        self._channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}")
        self._stub: Any = health_pb2_grpc.HealthStub(self._channel)

    async def ask(self, number: int, reply: Reply) -> None:
        try:
            await self._stub.Check(health_pb2.HealthCheckRequest())
        except grpc.aio.AioRpcError as error:
            reply.failure = f"{error.code()} {error.details()}"
        reply.end_s = now_us() / 1e6

    async def close(self) -> None:
        await self._channel.close()
