"""Traces, from a click to the version that learned from it, and the names of requests.

    POST /v1/feedback ─ append ─ send ── log, Kafka's headers ── learn ─ publish    the vote's trace
                                                                ╎ links, both ways
    cycle ─ reward ─ rollouts ─ policy ─ gate ─ publishing ── manifest ── swap     the cycle's trace

What is open is told by a context variable, so each request, and each thread, has its own. `current` is the W3C
`traceparent` that is given on: to the engine, to the log, to the other services. Without `configure` there are no spans
and a request's own `traceparent` is given on as it came.

Invariants: whoever traces waits for nothing: spans wait in a queue for a thread that sends them (OTLP over HTTP), and
one that finds QUEUE of them there is dropped and counted. Whether a trace is kept is decided once, where it begins:
what is below one that is not, named by its caller or begun here, has no spans. A span never holds what people wrote,
nor who they are: of an error its class alone is noted.

The SDK of OpenTelemetry is imported by `configure`, and nowhere else.
"""

import os
import random
import re
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Literal

import structlog

from rlhf_online.errors import ConfigError

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

HEADER = "traceparent"
REQUEST_ID = "x-request-id"
QUEUE = 2048
"""Spans that wait to be sent."""
CLOSE_S = 3.0
MAX_LINKS = 128
"""Of one span, as by OpenTelemetry's default."""
ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")

Kind = Literal["internal", "server", "client", "producer", "consumer"]
Attributes = Mapping[str, str | bool | int | float | Sequence[str]]
_VALID = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
_NAMED = re.compile(r"[A-Za-z0-9._:-]{1,128}")


class Span:
    """A span, or the parent that a caller named, or nothing; `traceparent` names it to whoever goes on."""

    __slots__ = ("_span", "traceparent")

    def __init__(self, traceparent: str = "", span: Any = None) -> None:
        self.traceparent = traceparent
        self._span = span

    @property
    def recorded(self) -> bool:
        """Whether anybody will see it: what an attribute is made of may be left undone if not."""
        return self._span is not None

    def note(self, attributes: "Attributes") -> None:
        if self._span is not None:
            self._span.set_attributes(attributes)

    def name(self, name: str, attributes: "Attributes") -> None:
        if self._span is not None:
            self._span.update_name(name)
            self._span.set_attributes(attributes)

    def link(self, others: Sequence[str]) -> None:
        """To the spans of these `traceparent`s."""
        if self._span is not None:
            for other in others:
                self._span.add_link(_parsed(other))

    def fail(self, error_type: str) -> None:
        """It ended with an error of that class."""
        if self._span is not None:
            self._span.set_attribute("error.type", error_type)
            self._span.set_status(_tracing.failed)

    def end(self) -> None:
        if self._span is not None:
            self._span.end()


NOTHING = Span()
DECLINED = Span()
"""The beginning of a trace that is not kept."""
_open: ContextVar[Span] = ContextVar(HEADER, default=NOTHING)
_request: ContextVar[str] = ContextVar(REQUEST_ID, default="")


def enter(traceparent: str, request: str = "") -> None:
    """A request begins, by these headers; one that breaks its format is as good as none."""
    _open.set(Span(traceparent) if _VALID.fullmatch(traceparent) else NOTHING)
    _request.set(request if _NAMED.fullmatch(request) else new_request())


def current() -> str:
    """The `traceparent` to give on; "" without one."""
    return _open.get().traceparent


def is_sampled(traceparent: str) -> bool:
    """Whether its spans are kept somewhere; not those of what is no `traceparent`."""
    return bool(_VALID.fullmatch(traceparent)) and bool(int(traceparent[-2:], 16) & 1)


def trace_id(traceparent: str | None = None) -> str:
    """Of that `traceparent`, or of what is open; "" without one."""
    return (current() if traceparent is None else traceparent)[3:35]


def sampled_trace_id() -> str | None:
    """The trace that is open, if it is one that is kept: for the exemplars of metrics."""
    return trace_id(found) if is_sampled(found := current()) else None


def request_id() -> str:
    """The name of the request that is worked on, which its answer tells; a new one outside of requests."""
    return _request.get() or new_request()


def named_request() -> str:
    """The same; "" outside of requests."""
    return _request.get()


def new_request() -> str:
    return f"req_{secrets.token_hex(16)}"


def opened() -> Span:
    """The innermost span that is open."""
    return _open.get()


def start(
    name: str,
    attributes: Attributes | None = None,
    *,
    kind: Kind = "internal",
    parent: str | None = None,
    links: Sequence[str] = (),
    began_ns: int | None = None,
) -> Span:
    """A span to be ended with `end`: below `parent`, by default what is open; the beginning of a trace if that is none.

    `current` does not name it: see `span`.
    """
    if parent is None:
        if (opened := _open.get()) is DECLINED:
            return DECLINED
        above = opened.traceparent
    else:
        above = parent if _VALID.fullmatch(parent) else ""
    if _tracing.tracer is None:
        return Span(above)
    if not (is_sampled(above) if above else random.random() < _tracing.sample):
        return Span(above) if above else DECLINED
    return _tracing.start(name, attributes, kind, above, links, began_ns)


@contextmanager
def span(
    name: str,
    attributes: Attributes | None = None,
    *,
    kind: Kind = "internal",
    parent: str | None = None,
    links: Sequence[str] = (),
) -> Iterator[Span]:
    """A span that is `current` while the block runs."""
    with within(start(name, attributes, kind=kind, parent=parent, links=links)) as found:
        yield found


@contextmanager
def within(found: Span) -> Iterator[Span]:
    """Have `found` be current while the block runs, and end with it."""
    with current_is(found):
        try:
            yield found
        except BaseException as error:
            found.fail(type(error).__name__)
            raise
        finally:
            found.end()


@contextmanager
def current_is(found: Span) -> Iterator[None]:
    """Have `found` be current while the block runs."""
    token = _open.set(found)
    try:
        yield
    finally:
        _open.reset(token)


class _Tracing:
    """What `configure` sets up, as logging is: once for the process."""

    def __init__(self) -> None:
        self.tracer: Any = None
        self.endpoint = ""
        self.sample = 0.0
        self.count: Callable[[str, int], None] = _uncounted
        self.failed: Any = None
        self._provider: TracerProvider | None = None
        self._kinds: dict[str, Any] = {}

    def begin(self, provider: "TracerProvider", endpoint: str, sample: float) -> None:
        from opentelemetry.trace import SpanKind, Status, StatusCode

        self._provider, self.endpoint, self.sample = provider, endpoint, sample
        self._kinds = {kind.name.lower(): kind for kind in SpanKind}
        self.failed = Status(StatusCode.ERROR)
        self.tracer = provider.get_tracer("rlhf_online")

    def start(
        self,
        name: str,
        attributes: Attributes | None,
        kind: Kind,
        above: str,
        links: Sequence[str],
        began_ns: int | None,
    ) -> Span:
        from opentelemetry.context import Context
        from opentelemetry.trace import Link, NonRecordingSpan, set_span_in_context

        context = set_span_in_context(NonRecordingSpan(_parsed(above)), Context()) if above else Context()
        begun = self.tracer.start_span(
            name,
            context,
            self._kinds[kind],
            attributes,
            [Link(_parsed(link)) for link in links],
            began_ns,
        )
        told = begun.get_span_context()
        return Span(f"00-{told.trace_id:032x}-{told.span_id:016x}-{told.trace_flags:02x}", begun)

    def close(self) -> None:
        provider, self._provider, self.tracer = self._provider, None, None
        if provider is not None:
            # A receiver that is away must not hold the process's end up: what is not sent by then is lost.
            sending = threading.Thread(target=provider.shutdown, daemon=True)
            sending.start()
            sending.join(CLOSE_S)


def _uncounted(outcome: str, spans: int) -> None:
    pass


_tracing = _Tracing()


def configure(service: str, endpoint: str = "", sample: float = 1.0) -> None:
    """Have the process send spans as `rlhf-online-SERVICE` to `endpoint`, or where OTEL_EXPORTER_OTLP_ENDPOINT says;
    without either nothing changes. `sample` is the share of the traces beginning here that are kept; of those
    that began elsewhere their `traceparent` says it.

    Raises ConfigError where `endpoint` is given and the packages are missing.
    """
    if not (endpoint or any(map(os.environ.get, ENDPOINTS))) or _switched_off():
        return
    try:
        from rlhf_online.otlp import provider
    except ModuleNotFoundError as error:
        missing = f"needs {error.name}, which is not installed: install this package with its extra 'tracing'"
        if endpoint:
            raise ConfigError(f"tracing.endpoint: {missing}") from error
        structlog.get_logger().warning("traces are not sent", why=f"{ENDPOINTS[1]} {missing}")
        return
    protocol = next(filter(None, map(os.environ.get, PROTOCOLS)), "http/protobuf")
    if protocol != "http/protobuf":
        structlog.get_logger().warning("traces are sent as http/protobuf", asked=protocol)
    _tracing.begin(provider(service, endpoint, _count, QUEUE, MAX_LINKS), endpoint, sample)


def _count(outcome: str, spans: int) -> None:
    _tracing.count(outcome, spans)


def _switched_off() -> bool:
    return os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true" or os.environ.get("OTEL_TRACES_EXPORTER") == "none"


def given() -> dict[str, Any] | None:
    """What a process that this one starts, and that begins no traces, gives to `configure`; None if none are sent."""
    return {"endpoint": _tracing.endpoint, "sample": 0.0} if _tracing.tracer is not None else None


def count_with(count: Callable[[str, int], None]) -> None:
    """Have `count` told how many spans were "exported", "failed" to be, or "dropped" since too many waited."""
    _tracing.count = count


def close() -> None:
    """Send what waits, for CLOSE_S at most; there are no spans any more."""
    _tracing.close()


def _parsed(traceparent: str) -> Any:
    from opentelemetry.trace import SpanContext, TraceFlags

    _, trace, span, flags = traceparent.split("-")
    return SpanContext(int(trace, 16), int(span, 16), is_remote=True, trace_flags=TraceFlags(int(flags, 16)))


def now_ns() -> int:
    """For `began_ns`."""
    return time.time_ns()
