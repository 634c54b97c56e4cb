"""An error of the service as gRPC has it: a code, the message, and what the HTTP body says beside it.

That is in the trailing metadata twice: as words (`error-param`, …), for people and simple clients, and as the details
that gRPC's libraries read (`google.rpc.Status`): a `BadRequest` names the field at fault, `RetryInfo` the wait.
"""

from collections.abc import Iterator

import grpc
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from services.chat.bodies.api_error import ApiError

CODES = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    409: grpc.StatusCode.FAILED_PRECONDITION,
    413: grpc.StatusCode.RESOURCE_EXHAUSTED,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
}
DETAILS = "grpc-status-details-bin"
LONGEST = 1024
"""Characters of a message in the details: clients take some 8 KiB of metadata, and it is told beside them whole."""


def code_of(error: ApiError) -> grpc.StatusCode:
    return CODES.get(error.status, grpc.StatusCode.INTERNAL)


def trailing(error: ApiError) -> tuple[tuple[str, str | bytes], ...]:
    """The metadata after the call."""
    said = {"error-type": error.type, "error-param": error.param, "error-code": error.code}
    if error.retry_after_s is not None:
        said["grpc-retry-pushback-ms"] = str(1000 * error.retry_after_s)  # what gRPC's own retries wait
    said |= {name.lower(): value for name, value in error.headers().items()}
    words = tuple((name, value) for name, value in said.items() if value)
    status = status_pb2.Status(code=code_of(error).value[0], message=str(error)[:LONGEST])
    for detail in _details(error):
        status.details.add().Pack(detail)
    return (*words, (DETAILS, status.SerializeToString()))


def _details(error: ApiError) -> Iterator[Message]:
    if error.param:
        violation = error_details_pb2.BadRequest.FieldViolation(field=error.param, description=str(error)[:LONGEST])
        yield error_details_pb2.BadRequest(field_violations=[violation])
    if error.retry_after_s is not None:
        wait = error_details_pb2.RetryInfo()
        wait.retry_delay.FromSeconds(int(error.retry_after_s))
        yield wait
