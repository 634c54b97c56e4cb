"""The head of a request, its line and its headers: bounded, which neither uvicorn nor the parser below it does.

What is no HTTP, or more than MAX_HEADERS headers or MAX_HEAD bytes of line, headers and trailers, gets an error of
OpenAI's form, then the connection's end. A part that the parser holds back until it is whole counts too.
"""

import asyncio
from http import HTTPStatus

import orjson
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from services.chat.bodies.api_error import ApiError

MAX_HEADERS, MAX_HEAD = 128, 32 << 10
LINGER_S = 1.0
"""So long the rest of a refused request is read and dropped: to close before would take the answer from its client."""

TOO_LARGE = ApiError(
    f"the request's line and headers are larger than {MAX_HEAD} bytes, or more than {MAX_HEADERS}: send less of them",
    status=431,
    code="headers_too_large",
)
NO_HTTP = ApiError("this is no request of HTTP/1.1", code="invalid_http")


def last_words(error: ApiError) -> bytes:
    """An answer after which the connection ends."""
    body = orjson.dumps(error.body())
    return b"HTTP/1.1 %d %b\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (
        error.status,
        HTTPStatus(error.status).phrase.encode(),
        len(body),
        body,
    )


class HeadTooLarge(Exception):
    """Ends the parser's work; uvicorn then asks for `send_400_response`."""


class BoundedHead(HttpToolsProtocol):
    """uvicorn's connection, with bounds.

    A client may send the next request before it has the last answer. uvicorn answers one after the other, but when the
    connection is lost it tells only the last; `_answered` is the one that is being answered.
    """

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, object],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._answered: RequestResponseCycle | None = None
        self._refusal = NO_HTTP
        self._deaf = False
        self._head = 0
        """Bytes of this request's line, headers and trailers."""
        self._unparsed = 0
        """Bytes since the parser last told of any."""

    def refused(self, code: str) -> None:
        """It takes no more, since what came is no request."""

    def data_received(self, data: bytes) -> None:
        if self._deaf:
            return
        unparsed = self._unparsed = self._unparsed + len(data)
        super().data_received(data)
        if self._unparsed == unparsed > MAX_HEAD and not self._deaf:
            self._refuse(TOO_LARGE)

    def connection_lost(self, exc: Exception | None) -> None:
        self._break_off()
        super().connection_lost(exc)

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        if not self.pipeline:
            self._answered = self.cycle

    def on_response_complete(self) -> None:
        if self.pipeline:
            self._answered = self.pipeline[-1][0]
        super().on_response_complete()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._head = self._unparsed = 0

    def on_url(self, url: bytes) -> None:
        self._count_head(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count_head(len(name) + len(value))
        super().on_header(name, value)

    def _count_head(self, size: int) -> None:
        self._unparsed = 0
        self._head += size
        if self._head > MAX_HEAD or len(self.headers) >= MAX_HEADERS:
            self._refusal = TOO_LARGE
            raise HeadTooLarge

    def on_body(self, body: bytes) -> None:
        self._unparsed = 0
        super().on_body(body)

    def send_400_response(self, msg: str) -> None:
        self._refuse(self._refusal)

    def _refuse(self, error: ApiError) -> None:
        """Say why, and take no more; an answer that is being sent is broken off."""
        self._deaf = True
        self.refused(str(error.code))
        may_speak = self.may_speak()
        self._break_off()
        if may_speak:
            self.transport.write(last_words(error))
            self.loop.call_later(LINGER_S, self.transport.abort)
            if self.transport.can_write_eof():
                self.transport.write_eof()
        else:
            self.transport.abort()

    def may_speak(self) -> bool:
        """Whether no answer has begun and not ended."""
        answered = self._answered
        return answered is None or not answered.response_started or answered.response_complete

    def _break_off(self) -> None:
        """What makes the answer learns that nobody waits for it."""
        if self._answered is not None and not self._answered.response_complete:
            self._answered.disconnected = True
            self._answered.message_event.set()
