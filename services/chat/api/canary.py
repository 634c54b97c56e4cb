"""The canary's rows of the table of operations."""

from services.chat.api.operation import Operation
from services.chat.canary import CanaryRequest, CanaryState, EndCanaryRequest

CANARY = (
    Operation(
        name="canary",
        summary="The version that some conversations get before people have spoken, and what they said so far.",
        method="GET",
        path="/v1/canary",
        requires="read",
        query=CanaryRequest,
        response=CanaryState,
        errors=(400,),
    ),
    Operation(
        name="promote_canary",
        summary="Make the canary the live version now, whatever people have said.",
        method="POST",
        path="/v1/canary/promote",
        requires="operator",
        body=EndCanaryRequest,
        response=CanaryState,
        errors=(400, 409, 413, 415),
    ),
    Operation(
        name="abort_canary",
        summary="Nobody gets the canary any more: it is rejected, and the live version answers all conversations.",
        method="POST",
        path="/v1/canary/abort",
        requires="operator",
        body=EndCanaryRequest,
        response=CanaryState,
        errors=(400, 409, 413, 415),
    ),
)
