"""A receiver of traces: OTLP over HTTP, as a collector takes it, decoded by the protocol's own messages."""

import gzip
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

KINDS = ("", "internal", "server", "client", "producer", "consumer")


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """A span. Ids are hexadecimal; `parent` is "" for the first of a trace; `links` are (trace id, span id)."""

    service: str
    name: str
    kind: str
    trace: str
    span: str
    parent: str
    links: tuple[tuple[str, str], ...]
    attributes: dict[str, Any]
    failed: bool
    began_ns: int
    ended_ns: int


class Receiver:
    """`status` is what it answers; `hold` keeps it from answering."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.status = 200
        self.answers = threading.Event()
        self.answers.set()
        self.paths: set[str] = set()
        self._spans: list[Received] = []
        self._came = threading.Condition()

    def take(self, path: str, body: bytes) -> None:
        request = ExportTraceServiceRequest.FromString(body)
        with self._came:
            self.paths.add(path)
            self._spans += _spans(request)
            self._came.notify_all()

    @property
    def spans(self) -> list[Received]:
        with self._came:
            return [*self._spans]

    def wait(self, name: str, count: int = 1, timeout_s: float = 60.0) -> list[Received]:
        """The spans of that name, once there are so many."""

        def found() -> list[Received]:
            return [span for span in self._spans if span.name == name]

        with self._came:
            assert self._came.wait_for(lambda: len(found()) >= count, timeout_s), {span.name for span in self._spans}
            return found()


@contextmanager
def receiver() -> Iterator[Receiver]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if self.headers.get("content-encoding") == "gzip":
                body = gzip.decompress(body)
            there.answers.wait()
            if there.status == 200:
                there.take(self.path, body)
            answer = ExportTraceServiceResponse().SerializeToString()
            self.send_response(there.status)
            self.send_header("content-type", "application/x-protobuf")
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    there = Receiver(server.server_address[1])
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield there
    finally:
        there.answers.set()
        server.shutdown()
        thread.join()
        server.server_close()


def _spans(request: ExportTraceServiceRequest) -> Iterator[Received]:
    for resource in request.resource_spans:
        of = _attributes(resource.resource.attributes)
        for scope in resource.scope_spans:
            for span in scope.spans:
                yield Received(
                    service=of["service.name"],
                    name=span.name,
                    kind=KINDS[span.kind],
                    trace=span.trace_id.hex(),
                    span=span.span_id.hex(),
                    parent=span.parent_span_id.hex(),
                    links=tuple((link.trace_id.hex(), link.span_id.hex()) for link in span.links),
                    attributes=_attributes(span.attributes),
                    failed=span.status.code == span.status.STATUS_CODE_ERROR,
                    began_ns=span.start_time_unix_nano,
                    ended_ns=span.end_time_unix_nano,
                )


def _attributes(pairs: Any) -> dict[str, Any]:
    return {pair.key: _value(pair.value) for pair in pairs}


def _value(value: Any) -> Any:
    which = value.WhichOneof("value")
    found = getattr(value, which)
    return [_value(item) for item in found.values] if which == "array_value" else found
