"""Bytes that no client library sends: requests of HTTP/1.1 that are cut, turned or doubled, and frames of HTTP/2 in any
order on the port of gRPC.

What comes back, if anything, is no error of the service, and whoever comes next is served.
"""

import re
import socket
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from services.chat.api.operations import OPERATIONS
from tests.fuzz.people import Credential
from tests.fuzz.search import Found
from tests.support.http2 import PREFACE

WAIT_S = 5.0
BODIES = (
    b"",
    b"{}",
    b'{"messages": [{"role": "user", "content": "hello"}]}',
    b'{"messages": [{"role": "user", "content": "hello"}], "stream": true}',
    b'{"thumb": {"answer": {"completion_id": "a"}, "up": true}}',
    b'{"thumb": {"answer": {"completion_id": "a"}, "up": true}}\n\n{"a": 1}\nnothing',
    b'{"prompt": "once"}',
    b"\xff\xfe{\x00}\x00",
    b'{"messages": [{"role": "user", "content": "\\ud800"}]}',
    b"[" * 5000,
)
HEADERS = (
    b"Content-Length: %d",
    b"Content-Length: %d\r\nContent-Length: 1",
    b"Content-Length: -1",
    b"Content-Length: 99999999999999999999",
    b"Transfer-Encoding: chunked",
    b"Transfer-Encoding: chunked\r\nContent-Length: %d",
    b"Content-Length: %d\r\nExpect: 100-continue",
    b"Content-Length: %d\r\nUpgrade: websocket\r\nConnection: upgrade",
    b"Content-Length: %d\r\nUpgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABkAAQAAP__",
    b"Content-Length: %d\r\nContent-Encoding: gzip",
    b"Content-Length: %d\r\nContent-Type: application/json; charset=utf-16",
    b"Content-Length: %d\r\nOrigin: http://elsewhere.example",
    b"Content-Length: %d\r\n" + b"\r\n".join(b"X-%d: y" % number for number in range(200)),
    b"Content-Length: %d\r\nX-Long: " + b"z" * 40_000,
    b"Content-Length: %d\r\n folded: line",
    b"Content-Length: %d\r\nBad Name: x\r\n: y",
    b"Content-Length: %d\r\nIdempotency-Key: \xff\x80",
)
Ending = Literal["half closed", "reset"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Http:
    """A request and what is done to it: `flips` bytes at these places, `cut` off at one, `times` in a row."""

    line: bytes
    header: bytes
    body: bytes
    who: int
    flips: Sequence[tuple[int, int]] = ()
    cut: int | None = None
    times: int = 1
    ending: Ending = "half closed"

    def sent(self, who: Sequence[Credential]) -> bytes:
        said = "".join(f"{name}: {value}\r\n" for name, value in who[self.who % len(who)].headers().items())
        header = self.header.replace(b"%d", b"%d" % len(self.body))
        data = bytearray(
            b"%b HTTP/1.1\r\nHost: localhost\r\n%b%b\r\n\r\n%b" % (self.line, said.encode("latin-1"), header, self.body)
        )
        for place, mask in self.flips:
            data[place % len(data)] ^= mask
        return bytes(data[: self.cut]) * self.times


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """A frame of HTTP/2; `times` in a row, each on a later stream."""

    kind: int
    flags: int
    stream: int
    payload: bytes
    times: int = 1

    def sent(self) -> bytes:
        length = len(self.payload).to_bytes(3, "big")
        streams = (self.stream + 2 * number for number in range(self.times))
        return b"".join(
            length + bytes([self.kind, self.flags]) + (stream & 0x7FFFFFFF).to_bytes(4, "big") + self.payload
            for stream in streams
        )


def _hpack(*headers: tuple[bytes, bytes]) -> bytes:
    """Headers as literals that nobody remembers."""
    return b"".join(b"\x00" + bytes([len(name)]) + name + bytes([len(value)]) + value for name, value in headers)


def _call(path: bytes, *more: tuple[bytes, bytes]) -> bytes:
    return _hpack(
        (b":method", b"POST"), (b":scheme", b"http"), (b":path", path), (b":authority", b"localhost"),
        (b"te", b"trailers"), (b"content-type", b"application/grpc"), *more,
    )  # fmt: skip


CALL = _call(b"/rlhf.v1.AdminService/ListVersions")
HEADS = (
    CALL,
    _call(b"/rlhf.v1.ChatService/StreamComplete", (b"authorization", b"Bearer x")),
    _call(b"/rlhf.v1.FeedbackService/SendFeedbackBatch", (b"grpc-timeout", b"1n")),
    _call(b"/rlhf.v1.ChatService/Complete", (b"grpc-timeout", b"99999999999H"), (b"grpc-encoding", b"gzip")),
    _call(b"/rlhf.v1.ChatService/Complete", (b"x-\x00", b"\xff\r\n"), (b"thing-bin", b"?")),
    _call(b"/nothing/here"),
    _hpack((b":method", b"GET"), (b":path", b"/")),
    b"\xff" * 9,
    b"",
)
PAYLOADS = (
    b"",
    bytes(5),
    b"\x00\x00\x00\x00\x02\x0a\x00",
    b"\x01\x00\x00\x00\x02\x0a\x00",
    b"\x00\xff\xff\xff\xff",
    b"\x00\x00\x00\x00\x04\xff\xff\xff\xff",
    bytes(8),
    b"\x00\x04\x7f\xff\xff\xff",
    b"\x7f\xff\xff\xff",
    b"z" * 20_000,
)


class RawCases:
    """Of one service."""

    def __init__(self, http: tuple[str, int], grpc: tuple[str, int], who: Sequence[Credential]) -> None:
        self._http, self._grpc, self._who = http, grpc, who

    def searches(self) -> list[tuple[str, SearchStrategy[Any], Callable[[Any], str]]]:
        """A name, what is drawn, and the attempt."""
        lines = [f"{one.method} {re.sub(r'{.*?}', 'x', one.path)}".encode() for one in OPERATIONS]
        requests = st.builds(
            Http,
            line=st.sampled_from([line for line in lines if b"watch" not in line] + [b"OPTIONS *", b"\x16\x03\x01"]),
            header=st.sampled_from(HEADERS),
            body=st.sampled_from(BODIES),
            who=st.integers(0, 1 << 10),
            flips=st.lists(st.tuples(st.integers(0, 1 << 12), st.integers(1, 255)), max_size=3),
            cut=st.none() | st.integers(1, 400),
            times=st.sampled_from((1, 1, 1, 3)),
            ending=st.sampled_from(("half closed", "half closed", "reset")),
        )
        frames = st.builds(
            Frame,
            kind=st.sampled_from((0, 0, 1, 1, 1, 3, 3, 2, 4, 5, 6, 7, 8, 9, 200)),
            flags=st.sampled_from((0, 1, 4, 5, 5, 8, 32, 255)),
            stream=st.sampled_from((0, 1, 1, 1, 3, 5, 2, 1 << 31)),
            payload=st.sampled_from(HEADS + HEADS + PAYLOADS) | st.binary(max_size=16),
            times=st.sampled_from((1,) * 19 + (300,)),
        )
        connections = st.tuples(
            st.lists(frames, min_size=1, max_size=12), st.sampled_from((PREFACE, PREFACE, PREFACE, b"", PREFACE[:9]))
        )
        return [("HTTP/1.1", requests, self._request), ("HTTP/2", connections, self._frames)]

    def _request(self, request: Http) -> str:
        data = request.sent(self._who)
        reply = _exchange(self._http, data, request.ending)
        statuses = re.findall(rb"HTTP/1\.1 (\d{3}) ", reply)
        if any(status >= b"500" for status in statuses) and not request.line.endswith(b"/readyz"):
            raise Found(f"{statuses} for {data[:2000]!r}: {reply[-300:]!r}")
        return statuses[0].decode() if statuses else "closed"

    def _frames(self, connection: tuple[Sequence[Frame], bytes]) -> str:
        frames, preface = connection
        _exchange(self._grpc, preface + Frame(kind=4, flags=0, stream=0, payload=b"").sent() + b"".join(
            frame.sent() for frame in frames
        ), "half closed")  # fmt: skip
        return "closed"


def _exchange(address: tuple[str, int], data: bytes, ending: Ending) -> bytes:
    """What is answered to it until the service closes, which it must do once its client says no more."""
    with socket.create_connection(address, WAIT_S) as connection:
        try:
            connection.sendall(data)
            if ending == "reset":
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                return b""
            connection.shutdown(socket.SHUT_WR)
            parts: list[bytes] = []
            while part := connection.recv(1 << 16):
                parts.append(part)
            return b"".join(parts)
        except TimeoutError:
            raise Found(f"the connection is not closed {WAIT_S} s after {data[:2000]!r}") from None
        except OSError:  # closed, or reset, before all was said
            return b""
