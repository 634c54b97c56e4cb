"""HTTP connections of people who do not play along: requests that are never finished, answers that are never read.

    open ──first byte──▶ arriving ──whole──▶ answered ──▶ open ──▶ …
     │ silent               │ too slow          │ not read
     └─────── closed ◀──────┴───────────────────┘

A request must arrive within REQUEST_S and a second more for each SLOWEST bytes of it; what is written must be taken
within UNREAD_S, or the connection is broken off, and with it the answer. There are at most as many connections as leave
the process descriptors for its own files (`process.connection_budget`): where one comes that is too many, the one that
has waited longest without a whole request makes room, then the one kept alive longest; it is refused only if all are
being answered.
"""

import asyncio
import contextlib
from collections.abc import Iterator
from itertools import chain

import structlog
import uvicorn
from prometheus_client import Counter
from uvicorn.server import ServerState

from services.chat.bodies.api_error import ApiError
from services.chat.transport.heads import BoundedHead, last_words
from services.chat.transport.presence import STATE, Presence

REQUEST_S, SLOWEST, LONGEST_S = 20.0, 500, 600.0
UNREAD_S = 30.0

TOO_SLOW = ApiError("the request did not arrive in time: send it faster", status=408, code="request_timeout")


class Connections:
    """Those that are open; at most `limit`. `closed` counts by reason those that were closed here."""

    def __init__(self, limit: int, closed: Counter) -> None:
        self._limit = limit
        self._closed = closed
        self._arriving: dict[Connection, None] = {}
        """Without a whole request, in the order in which they began to wait for it."""
        self._kept: dict[Connection, None] = {}
        """Kept alive after an answer, in the same way."""

    def make_room(self, new: "Connection", number: int) -> None:
        """`new` is one of `number` now. Those who have been answered are the last to go."""
        if number > self._limit:
            leaves = next((other for other in chain(self._arriving, self._kept) if other is not new), new)
            leaves.leave("no_room")

    def arriving(self, connection: "Connection") -> None:
        """It waits for a request, or for the rest of one."""
        self.busy(connection)
        self._arriving[connection] = None

    def kept(self, connection: "Connection") -> None:
        """It was answered."""
        self.busy(connection)
        self._kept[connection] = None

    def busy(self, connection: "Connection") -> None:
        """It has a whole request, or has gone."""
        self._arriving.pop(connection, None)
        self._kept.pop(connection, None)

    def count(self, reason: str) -> None:
        self._closed.labels(reason=reason).inc()


class HttpConfig(uvicorn.Config):
    """uvicorn's, with the connections that its server opens."""

    connections: Connections


class HttpServer(uvicorn.Server):
    """uvicorn without its signal handlers: this process has its own."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class Connection(BoundedHead):
    """uvicorn's, with time limits."""

    def __init__(
        self,
        config: HttpConfig,
        server_state: ServerState,
        app_state: dict[str, object],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._others = config.connections
        self._presence = Presence()
        self._timer: asyncio.TimerHandle | None = None
        self._unread: asyncio.TimerHandle | None = None
        self._began_s = 0.0
        self._received = 0
        self._answering = False

    def connection_made(self, transport: asyncio.Transport) -> None:
        super().connection_made(transport)
        self._await_request()
        self._others.make_room(self, len(self.connections))

    def connection_lost(self, exc: Exception | None) -> None:
        self._others.busy(self)
        self._stop_timer()
        super().connection_lost(exc)  # which resumes writing
        self._presence.left()

    def data_received(self, data: bytes) -> None:
        if self._timer is None and not self._answering:  # kept alive, and used again
            self._await_request()
        self._received += len(data)
        super().data_received(data)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["state"] = {STATE: self._presence}

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._stop_timer()
        self._answering = not self.cycle.response_complete
        if self._answering:
            self._others.busy(self)
        else:  # refused before it was whole, and uvicorn takes the connection for busy
            self._await_request()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._timer is None and self.cycle.response_complete:  # else a request is arriving, or the next is answered
            self._answering = False
            self._others.kept(self)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._unread = self.loop.call_later(UNREAD_S, self._not_read)

    def resume_writing(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None
        super().resume_writing()

    def refused(self, code: str) -> None:
        self._stop_timer()
        self._others.count(code)
        self._presence.left()

    def leave(self, reason: str) -> None:
        """Close it now; what the client's system does not take at once is dropped."""
        self._others.busy(self)
        self._others.count(reason)
        self._stop_timer()
        self.transport.abort()

    def _await_request(self) -> None:
        self._began_s, self._received = self.loop.time(), 0
        self._others.arriving(self)
        self._timer = self.loop.call_later(REQUEST_S, self._check_request)

    def _check_request(self) -> None:
        """Give a request that comes along more time, and close a connection on which it does not."""
        lasts_s = self.loop.time() - self._began_s
        allowed_s = min(REQUEST_S + self._received / SLOWEST, LONGEST_S)
        if lasts_s < allowed_s:
            self._timer = self.loop.call_later(allowed_s - lasts_s, self._check_request)
            return
        if self._received and self.may_speak():
            self.transport.write(last_words(TOO_SLOW))
        self.leave("request_too_slow" if self._received else "silent")

    def _not_read(self) -> None:
        structlog.get_logger().warning("client does not read its answer", within_s=UNREAD_S)
        self.leave("answer_not_read")

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
