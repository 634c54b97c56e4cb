"""HTTP/1.1 to the engine, for answers that arrive token by token: what comes is handed on in the turn that it comes in.

Every token of every answer passes here, so a piece costs a parser in C and one call: no task wakes up for it unless
somebody waits. Connections are kept for the next request; one that has been idle for IDLE_S is not used again, since
vLLM closes it after 5 s, and a request that meets that moment would be lost.
"""

import asyncio
import base64
from collections.abc import Callable
from typing import cast
from urllib.parse import unquote, urlsplit

import httptools

from rlhf_online import tracing
from services.chat.access.limits import TooLate, Visit

CONNECT_S = 10.0
IDLE_S = 4.0
Take = Callable[["Reply", bytes], bool]
"""Called with each piece of a successful answer's body; says whether `Reply.changed` is to return for it."""


class Reply:
    """An answer of the engine as it arrives: its `status` once its headers have come, `complete` at its end.

    `read` gives the body of one that nobody takes piece by piece: any other than 200, and all of them without a `take`.
    """

    def __init__(self, connection: "Connection", take: Take | None) -> None:
        self.status = 0
        self.complete = False
        self._body = bytearray()
        self._connection = connection
        self._take = take
        self._failure: Exception | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    async def changed(self) -> None:
        """Wait until something has come. Raises ConnectionError, TooLate, and what `take` raises."""
        if self._failure is None and not self.complete:
            self._waiter = self._connection.loop.create_future()
            await self._waiter
        if self._failure is not None:
            raise self._failure

    async def read(self) -> bytes:
        """The whole body, without a `take`. Raises ConnectionError, TooLate."""
        while not self.complete:
            await self.changed()
        return bytes(self._body)

    def pause(self) -> None:
        """Leave what comes from now on unread, until `resume`."""
        self._connection.transport.pause_reading()

    def resume(self) -> None:
        if not self.complete and self._failure is None:
            self._connection.transport.resume_reading()

    def close(self, *, ended: bool = False) -> None:
        """Nothing more is wanted of it: the engine stops writing. If it has `ended`, its last bytes are waited for."""
        self._take = None
        if ended:
            self.resume()
        elif not self.complete:
            self.fail(ConnectionError("it was closed"))

    def expire(self, visit: Visit) -> None:
        """Fail when the time for the answer is over."""
        self._timer = self._connection.loop.call_later(visit.left_s(), self._expired, visit.allowed_s)

    def fail(self, failure: Exception) -> None:
        """It gives no more, and neither does its connection."""
        self._failure = self._failure or failure
        self._end()
        self._connection.transport.abort()

    def started(self, status: int) -> None:
        self.status = status
        self._wake()

    def piece(self, data: bytes) -> None:
        if self._take is None or self.status != 200:
            self._body += data
        elif self._take(self, data):
            self._wake()

    def finished(self) -> None:
        self.complete = True
        self._end()

    def _expired(self, allowed_s: float) -> None:
        self.fail(TooLate(allowed_s))

    def _end(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class Connection(asyncio.Protocol):
    """One request after another; between two it is in `idle`, with the moment since when."""

    def __init__(self, loop: asyncio.AbstractEventLoop, idle: "dict[Connection, float]") -> None:
        self.loop = loop
        self.transport: asyncio.Transport
        self._idle = idle
        self._parser = httptools.HttpResponseParser(self)
        self._reply: Reply | None = None
        self._bounded = False
        """Whether the answer says where its body ends; else that is where the connection does."""

    def ask(self, request: bytes, take: Take | None) -> Reply:
        self._reply = reply = Reply(self, take)
        self.transport.write(request)
        return reply

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's is no subclass of it

    def connection_lost(self, exc: Exception | None) -> None:
        self._idle.pop(self, None)
        if (reply := self._reply) is None:
            return
        self._reply = None
        if exc is None and reply.status and not self._bounded:
            reply.finished()
        else:
            reply.fail(ConnectionError(str(exc or "the connection ended")))

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._failed(error.__context__ if isinstance(error, httptools.HttpParserCallbackError) else None)

    def on_message_begin(self) -> None:
        self._bounded = False

    def on_header(self, name: bytes, value: bytes) -> None:
        self._bounded = self._bounded or name.lower() in (b"content-length", b"transfer-encoding")

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if self._reply is not None and status >= 200:
            self._reply.started(status)

    def on_body(self, body: bytes) -> None:
        if self._reply is not None:
            self._reply.piece(body)

    def on_message_complete(self) -> None:
        if (reply := self._reply) is None or not reply.status:
            return
        self._reply = None
        if self._bounded and self._parser.should_keep_alive():
            self._idle[self] = self.loop.time()
            self.transport.resume_reading()  # its end may have come in the same bytes as that which it was paused at
        else:
            self.transport.abort()
        reply.finished()

    def _failed(self, error: BaseException | None) -> None:
        """What came is no HTTP, or nobody could take it."""
        reply, self._reply = self._reply, None
        failure = error if isinstance(error, Exception) else ConnectionError("the engine's answer is no HTTP")
        if reply is None:
            self.transport.abort()
        else:
            reply.fail(failure)


class EngineConnections:
    """As many as are needed at once to the engine at `url`: "unix:/path", "http://host:port" or "https://host:port"."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._socket = url.removeprefix("unix:") if url.startswith("unix:") else ""
        self._secure = parts.scheme == "https"
        self._host, self._port = parts.hostname or "", parts.port or (443 if self._secure else 80)
        self._prefix = "" if self._socket else parts.path.rstrip("/")
        self._head = f"host: {'engine' if self._socket else parts.netloc.rpartition('@')[2]}\r\n"
        self._head += "content-type: application/json\r\naccept: */*\r\n"
        if parts.username is not None:
            secret = f"{unquote(parts.username)}:{unquote(parts.password or '')}".encode()
            self._head += f"authorization: Basic {base64.b64encode(secret).decode()}\r\n"
        self._idle: dict[Connection, float] = {}

    async def post(self, path: str, body: bytes, take: Take | None, visit: Visit | None) -> Reply:
        """The engine's answer, its headers read; it may take what `visit` has left. Raises OSError, TooLate."""
        connection = self._kept() or await self._connect(visit)
        trace = f"{tracing.HEADER}: {current}\r\n" if (current := tracing.current()) else ""
        head = f"POST {self._prefix}{path} HTTP/1.1\r\n{self._head}{trace}content-length: {len(body)}\r\n\r\n"
        reply = connection.ask(head.encode() + body, take)
        try:
            if visit is not None:
                reply.expire(visit)
            while not reply.status:
                await reply.changed()
        except BaseException:
            reply.close()
            raise
        return reply

    def close(self) -> None:
        """Of those that no answer comes on."""
        for connection in [*self._idle]:
            connection.transport.abort()

    def _kept(self) -> Connection | None:
        while self._idle:
            connection, since_s = self._idle.popitem()
            if connection.loop.time() < since_s + IDLE_S and not connection.transport.is_closing():
                return connection
            connection.transport.abort()
        return None

    async def _connect(self, visit: Visit | None) -> Connection:
        loop = asyncio.get_running_loop()
        within_s = CONNECT_S if visit is None else min(CONNECT_S, visit.left_s())
        try:
            async with asyncio.timeout(within_s):
                if self._socket:
                    made = await loop.create_unix_connection(lambda: Connection(loop, self._idle), self._socket)
                else:
                    secure = True if self._secure else None
                    made = await loop.create_connection(
                        lambda: Connection(loop, self._idle), self._host, self._port, ssl=secure
                    )
        except TimeoutError as error:
            if visit is not None:
                visit.left_s()  # raises, if that is what was over
            raise ConnectionError(f"no connection within {within_s:g} s") from error
        return made[1]
