"""gRPC messages as the values of the JSON body that says the same, so that one model checks both."""

from typing import Any

from google.protobuf.message import Message

from rlhf_online.proto.rlhf.v1 import chat_pb2, events_pb2


def values_of(message: Message) -> dict[str, Any]:
    """The message's fields by name. What protobuf cannot tell from a field that was not set (0, "") is absent."""
    values: dict[str, Any] = {}
    for field in message.DESCRIPTOR.fields:
        value = getattr(message, field.name)
        if field.is_repeated:
            if value or field.message_type:  # an empty array of answers or of messages has an error of its own
                values[field.name] = [_value(item) for item in value]
        elif message.HasField(field.name) if field.has_presence else isinstance(value, bool) or value:
            values[field.name] = _value(value)
    return values


def feedback_values(request: chat_pb2.SendFeedbackRequest) -> dict[str, Any]:
    """The body of POST /v1/feedback."""
    values = values_of(request)
    return {**values.pop("feedback", {}), **values}


def _value(value: Any) -> Any:
    match value:
        case events_pb2.Tier():
            return [_value(answer) for answer in value.answers]
        case events_pb2.Message():  # one that says nothing is a message
            return {"role": value.role, "content": value.content}
        case Message():
            return values_of(value)
        case _:
            return value
