"""A port of gRPC that stays open whatever arrives. Every service that speaks gRPC serves it here.

grpcio's core finds the methods that are registered by the bytes of their names. A call of any other is refused here,
before its name is read: in grpcio 1.84 and 1.85 some names end the loop that takes calls, and the port is closed from
then on. Should that loop end in another way, a new server opens the port:

    serving ──loop ends──▶ counted and logged ──▶ a new server on the same port, at most one a second
                                └──▶ calls in progress have GRACE_S to end; their clients connect anew for the next ones
"""

import asyncio
import time
import traceback
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from typing import Any, Never

import grpc
import structlog
from grpc._cython.cygrpc import AioServer, _ServicerContext
from grpc.aio._server import Server

from rlhf_online.metrics import GrpcMetrics

GRACE_S = 15.0
SHORTEST_LIFE_S = 1.0
BUSY_S = 0.01
"""A port that was just given up can be bound a moment later."""


class GrpcPort:
    """Serves what `register` adds to each server that there is, one after another."""

    def __init__(
        self,
        register: Callable[[Any], None],
        metrics: GrpcMetrics,
        options: Sequence[tuple[str, int]],
        interceptors: Sequence[grpc.aio.ServerInterceptor] = (),
        max_calls: int | None = None,
    ) -> None:
        self._register = register
        self._metrics = metrics
        self._arguments = (interceptors, options, max_calls)
        self._servers: list[_Server] = []
        """The one that takes calls, and before it those whose last calls are ending."""
        self._keeper: asyncio.Task[None] | None = None

    async def open(self, host: str, port: int, credentials: grpc.ServerCredentials | None = None) -> int:
        """Serve until `close`, with TLS if there are credentials; returns the real port. Raises RuntimeError if it is
        taken."""
        name = f"[{host}]" if ":" in host else host

        def bind(server: _Server, port: int) -> int:
            if credentials is None:
                return server.add_insecure_port(f"{name}:{port}")
            return server.add_secure_port(f"{name}:{port}", credentials)

        server = self._new()
        bound = bind(server, port)
        await server.start()
        self._keeper = asyncio.create_task(self._keep(bind, bound))
        return bound

    async def close(self, grace_s: float) -> None:
        """Take no more calls, and give those in progress `grace_s`."""
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait((self._keeper,))
        await asyncio.gather(*(server.stop(grace_s) for server in self._servers))

    def _new(self) -> "_Server":
        server = _Server(_Core(self._metrics, *self._arguments))
        self._register(server)
        self._servers.append(server)
        return server

    async def _keep(self, bind: Callable[["_Server", int], int], port: int) -> None:
        """Follow the server that takes calls with another, as often as one ends."""
        log = structlog.get_logger()
        async with asyncio.TaskGroup() as ending:
            while True:
                began_s, server = time.monotonic(), self._servers[-1]
                error = await server.ended
                self._metrics.restarts.inc()
                log.error("the gRPC server ended, another is started on its port", port=port, error=error)
                ending.create_task(self._end(server))
                await asyncio.sleep(began_s + SHORTEST_LIFE_S - time.monotonic())
                server = self._new()
                while True:
                    try:
                        bind(server, port)
                        break
                    except RuntimeError:
                        await asyncio.sleep(BUSY_S)
                await server.start()

    async def _end(self, server: "_Server") -> None:
        await server.stop(GRACE_S)
        self._servers.remove(server)


class _Server(Server):
    """`ended` tells by which error the loop that takes calls has ended."""

    def __init__(self, core: "_Core") -> None:
        self._loop = asyncio.get_running_loop()
        self._server = core
        self.ended = core.ended


class _Core(AioServer):
    """grpcio's server, but for calls of methods that are not registered, and for the end of its loop."""

    def __init__(self, metrics: GrpcMetrics, *arguments: Any) -> None:
        loop = asyncio.get_running_loop()
        super().__init__(loop, None, (), *arguments)
        self._metrics = metrics
        self._refusals: set[asyncio.Task[None]] = set()
        self.ended: asyncio.Future[str] = loop.create_future()

    async def _request_call(self) -> Never:
        """Called for the next call of no registered method; refuses all there will be."""
        while True:
            call = await _held(super()._request_call())
            self._metrics.unknown_methods.inc()
            refusal = asyncio.create_task(_refuse(call))
            self._refusals.add(refusal)
            refusal.add_done_callback(self._refusals.discard)

    async def _request_registered_call(self, method: bytes) -> Any:
        return await _held(super()._request_registered_call(method))

    async def _server_main_loop(self, started: asyncio.Future[bool]) -> None:
        """An error here is one that grpcio cannot stop the server in order after."""
        try:
            await super()._server_main_loop(started)
        except Exception as error:
            if not started.done():
                raise
            # Its message may hold what a client sent, and its frames the call, which would not end.
            where = traceback.extract_tb(error.__traceback__)[-1]
            self.ended.set_result(f"{type(error).__name__} in {where.name}, line {where.lineno}")


async def _held(request: Coroutine[Any, Any, Any]) -> Any:
    """The call that is asked for. When the loop ends, grpcio cancels what waits for one, and frees what its core will
    write into until the server is stopped; so `request` goes on until then."""
    asking = asyncio.create_task(request)
    asking.add_done_callback(lambda task: task.cancelled() or task.exception())
    return await asyncio.shield(asking)


async def _refuse(call: Any) -> None:
    context = _ServicerContext(call, None, None, asyncio.get_running_loop())
    with suppress(grpc.aio.BaseError):  # which `abort` raises once that is sent, or its client has gone
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "Method not found!")
