"""A port of gRPC that stays open: calls of methods that are not served, and servers that end."""

# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false
# (the generated stubs are typed for synchronous channels)

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from prometheus_client import CollectorRegistry

from rlhf_online.config import GrpcSettings
from rlhf_online.metrics import GrpcMetrics
from services import grpc_port
from services.grpc_port import GrpcPort
from tests.support.certificates import Authority
from tests.support.waiting import eventually, until

CHECK = health_pb2.HealthCheckRequest()
SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
OWN_CONNECTION = [("grpc.use_local_subchannel_pool", 1)]


class Refusals:
    """Counts them; once, when told to, it fails instead, and with it the loop that takes calls."""

    def __init__(self) -> None:
        self.count = 0
        self.fails = False

    def inc(self) -> None:
        self.count += 1
        if self.fails:
            self.fails = False
            raise RuntimeError("what a client sent")


@dataclass
class Opened:
    """A port that serves `health`. `connect` is a client with a connection of its own."""

    port: int
    health: Any
    refusals: Refusals
    restarts: Callable[[], float]
    connect: Callable[[], grpc.aio.Channel]

    async def check(self) -> int:
        async with self.connect() as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            return (await stub.Check(CHECK, timeout=20, wait_for_ready=True)).status

    async def call_no_method(self) -> grpc.StatusCode:
        async with self.connect() as channel:
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await channel.unary_unary("/rlhf.v1.ChatService/Nothing")(b"", timeout=20)
            return refused.value.code()

    async def end_server(self) -> None:
        before = self.restarts()
        self.refusals.fails = True
        await self.call_no_method()
        assert self.restarts() == before + 1


@asynccontextmanager
async def opened(
    credentials: grpc.ServerCredentials | None = None,
    trusts: grpc.ChannelCredentials | None = None,
    at_register: Callable[[], None] = lambda: None,
) -> AsyncIterator[Opened]:
    registry = CollectorRegistry()
    metrics, refusals, servicer = GrpcMetrics("chat", registry), Refusals(), health.aio.HealthServicer()
    metrics.unknown_methods = refusals

    def register(server: Any) -> None:
        at_register()
        health_pb2_grpc.add_HealthServicer_to_server(servicer, server)

    port = GrpcPort(register, metrics, GrpcSettings().server_options(1 << 20, 100))
    bound = await port.open("127.0.0.1", 0, credentials)
    address = f"127.0.0.1:{bound}"

    def connect() -> grpc.aio.Channel:
        if trusts is None:
            return grpc.aio.insecure_channel(address, OWN_CONNECTION)
        return grpc.aio.secure_channel(address, trusts, OWN_CONNECTION)

    def restarts() -> float:
        return registry.get_sample_value("rlhf_chat_grpc_restarts_total") or 0

    try:
        yield Opened(bound, servicer, refusals, restarts, connect)
    finally:
        await port.close(0)


def listen(number: int) -> socket.socket | None:
    """On this port, if it is free."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(("127.0.0.1", number))
        listener.listen()
    except OSError:
        listener.close()
        return None
    return listener


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server follows however short the last one lived."""
    monkeypatch.setattr(grpc_port, "SHORTEST_LIFE_S", 0.0)


async def test_grpcio_learns_of_no_call_of_a_method_that_is_not_served() -> None:
    """It would end on some. (Another grpcio that asks for calls in another way fails here.)"""
    async with opened() as service:
        async with service.connect() as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            watching = stub.Watch(CHECK)
            assert (await watching.read()).status == SERVING
            codes = await asyncio.gather(*(service.call_no_method() for _ in range(20)))
            assert set(codes) == {grpc.StatusCode.UNIMPLEMENTED}
            assert service.refusals.count == 20
            await service.health.set("", NOT_SERVING)
            assert (await watching.read()).status == NOT_SERVING
        assert service.restarts() == 0


@pytest.mark.usefixtures("at_once")
async def test_another_server_follows_one_that_ended(capsys: pytest.CaptureFixture[str]) -> None:
    async with opened() as service:
        for _ in range(5):
            await service.end_server()
            assert await service.check() == SERVING
            assert await service.call_no_method() == grpc.StatusCode.UNIMPLEMENTED
    told = capsys.readouterr().out
    assert told.count("RuntimeError") == 5
    assert "what a client sent" not in told


@pytest.mark.usefixtures("at_once")
async def test_calls_in_progress_go_on_when_a_server_ends() -> None:
    async with opened() as service, service.connect() as channel:
        watching = health_pb2_grpc.HealthStub(channel).Watch(CHECK)
        assert (await watching.read()).status == SERVING
        await service.end_server()
        assert await service.check() == SERVING
        await service.health.set("", NOT_SERVING)
        assert (await watching.read()).status == NOT_SERVING
        assert await service.check() == NOT_SERVING


@pytest.mark.usefixtures("at_once")
async def test_the_server_that_follows_shows_the_same_certificate(tmp_path: Path) -> None:
    files = Authority(tmp_path).issue("server")
    credentials = grpc.ssl_server_credentials([(files.key.read_bytes(), files.cert.read_bytes())])
    trusts = grpc.ssl_channel_credentials(files.authority.read_bytes())
    async with opened(credentials, trusts) as service:
        await service.end_server()
        assert await service.check() == SERVING


@pytest.mark.usefixtures("at_once")
async def test_a_port_that_is_taken_for_a_while_is_waited_for() -> None:
    numbers: list[int] = []
    taken: list[socket.socket] = []

    def take() -> None:
        taken.extend(until(lambda number=number: listen(number), 20, "the port") for number in numbers)

    async with opened(at_register=take) as service:
        numbers.append(service.port)
        await service.end_server()
        await eventually(lambda: taken)
        for _ in range(3):
            await asyncio.sleep(grpc_port.BUSY_S)  # it tries, in vain
        taken[0].close()
        assert await service.check() == SERVING
        assert len(taken) == 1


async def test_servers_that_end_again_and_again_follow_each_other_slowly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grpc_port, "SHORTEST_LIFE_S", 3600.0)
    async with opened() as service:
        await service.end_server()
        async with service.connect() as channel:
            with pytest.raises(grpc.aio.AioRpcError, match="UNAVAILABLE"):
                await health_pb2_grpc.HealthStub(channel).Check(CHECK, timeout=20)
