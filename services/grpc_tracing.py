"""A call's trace (W3C Trace Context) and its name, `x-request-id`, over gRPC: from its metadata, or made here.

Every service that speaks gRPC puts this interceptor first. The trailing metadata of a call that succeeds name it; those
of an error are written where it becomes one.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import grpc

from rlhf_online import tracing

FAULTS = {
    grpc.StatusCode.UNKNOWN,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.UNIMPLEMENTED,
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DATA_LOSS,
}
"""Of the service, and not of its caller."""
CODES = {code.value[0]: code for code in grpc.StatusCode}
Context = grpc.aio.ServicerContext
Behaviour = Callable[[Any, Context], Awaitable[Any]]


class TraceGrpc(grpc.aio.ServerInterceptor):
    """`methods` ("/rlhf.v1.ChatService/Complete") are ours, and whether there is a span of a call.

    Of others, which probe and reflect, nothing is told.
    """

    def __init__(self, methods: Mapping[str, bool]) -> None:
        self._methods = methods

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        said = dict(handler_call_details.invocation_metadata or ())
        found = (said.get(name, "") for name in (tracing.HEADER, tracing.REQUEST_ID))
        tracing.enter(*(value if isinstance(value, str) else "" for value in found))
        handler = await continuation(handler_call_details)
        method = handler_call_details.method
        if handler is None or method not in self._methods:
            return handler
        forms = (
            (handler.unary_unary, grpc.unary_unary_rpc_method_handler),
            (handler.unary_stream, grpc.unary_stream_rpc_method_handler),
            (handler.stream_unary, grpc.stream_unary_rpc_method_handler),
        )
        for answer, form in forms:
            if answer is not None:
                return form(self._traced(method, answer), handler.request_deserializer, handler.response_serializer)
        return handler

    def _traced(self, method: str, answer: Behaviour) -> Behaviour:
        """`answer`, which writes the pieces of a stream itself, within a span."""
        told = {"rpc.system.name": "grpc", "rpc.method": method[1:]}

        async def run(request: Any, context: Context) -> Any:
            if not self._methods[method]:
                reply = await answer(request, context)
                _name(context)
                return reply
            with tracing.current_is(span := tracing.start(method[1:], told, kind="server")):
                try:
                    reply = await answer(request, context)
                    _name(context)
                    return reply
                finally:
                    if span.recorded:
                        code = _code(context)
                        span.note({"rpc.response.status_code": code.name})
                        if code in FAULTS:
                            span.fail(code.name)
                        span.end()

        return run


def _name(context: Context) -> None:
    """Have the call's trailing metadata name it."""
    said = context.trailing_metadata() or ()
    context.set_trailing_metadata((*said, (tracing.REQUEST_ID, tracing.request_id())))


def _code(context: Context) -> grpc.StatusCode:
    """How the call ended."""
    code: Any = context.code()
    return code if isinstance(code, grpc.StatusCode) else CODES.get(code or 0, grpc.StatusCode.UNKNOWN)
