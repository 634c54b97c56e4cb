"""gRPC messages as the values of the JSON body that says the same, so that one model checks both."""

from typing import Any

from google.protobuf.message import Message

from rlhf_online.proto.rlhf.v1 import chat_pb2, events_pb2


def values_of(message: Message) -> dict[str, Any]:
    """The message's fields by name. Protobuf cannot tell a number that was not set from 0: both are absent."""
    values: dict[str, Any] = {}
    for field in message.DESCRIPTOR.fields:
        value = getattr(message, field.name)
        if field.is_repeated:
            values[field.name] = [_value(item) for item in value]
        elif message.HasField(field.name) if field.has_presence else isinstance(value, str | bool) or value:
            values[field.name] = _value(value)
    return values


def feedback_values(request: chat_pb2.SendFeedbackRequest) -> dict[str, Any]:
    """The body of POST /v1/feedback. What the service itself fills in is left out."""
    values = values_of(request)
    feedback = values.pop("feedback", {})
    return {**values, **{name: value for name, value in feedback.items() if name not in ("person", "created_ms")}}


def _value(value: Any) -> Any:
    if isinstance(value, events_pb2.Tier):
        return [_value(answer) for answer in value.answers]
    return values_of(value) if isinstance(value, Message) else value
