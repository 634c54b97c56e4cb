"""gRPC messages as the values of the JSON body that says the same, so that one model checks both; replies as messages.

A field has the name that it has in the JSON body, and a reply is made of the object that HTTP answers. What has another
name or place is written out here and in tests/services/chat/transport/test_parity.py, which compares the two field by
field.
"""

import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import orjson
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.json_format import ParseDict
from google.protobuf.message import Message

from rlhf_online.proto.rlhf.v1 import chat_pb2, events_pb2
from services.chat.bodies.api_error import ApiError
from services.chat.completions import responses
from services.chat.completions.in_flight import Generation
from services.chat.completions.responses import ChatChoice, Span, for_client
from services.chat.completions.upstream import Chunk

SAID_EMPTY = ("messages", "tiers", "answers")
"""Arrays without which a request is none: their being empty has an error of its own."""


def values_of(message: Message) -> dict[str, Any]:
    """The message's fields by name. What protobuf cannot tell from a field that was not set (0, "", []) is absent.

    Raises ApiError where a `Json` holds none.
    """
    values: dict[str, Any] = {}
    for field in message.DESCRIPTOR.fields:
        value = getattr(message, field.name)
        if field.message_type and field.message_type.GetOptions().map_entry:
            if value:
                values[field.name] = {str(key): value[key] for key in sorted(value)}
        elif field.is_repeated:
            if value or field.name in SAID_EMPTY:
                values[field.name] = [_value(item, field.name) for item in value]
        elif message.HasField(field.name) if field.has_presence else isinstance(value, bool) or value:
            single = field.type == FieldDescriptor.TYPE_FLOAT
            values[field.name] = _shortest(value) if single else _value(value, field.name)
    return values


def feedback_values(request: chat_pb2.SendFeedbackRequest) -> dict[str, Any]:
    """The body of POST /v1/feedback."""
    values = values_of(request)
    return {**values.pop("feedback", {}), **values}


def complete_response(generation: Generation) -> chat_pb2.CompleteResponse:
    """The answers of a settled request."""
    said = responses.completion(generation)
    rlhf = said["rlhf"]
    return chat_pb2.CompleteResponse(
        completion_id=said["id"],
        conversation_id=rlhf["conversation_id"],
        choices=[_choice(choice, spans) for choice, spans in zip(said["choices"], rlhf["versions"], strict=True)],
        logged=rlhf["logged"],
        prompt_tokens=len(generation.prompt_token_ids or ()),
        completion_tokens=generation.tokens,
        created=said["created"],
        model=said["model"],
        system_fingerprint=said["system_fingerprint"],
        usage=said["usage"],
        prompt_token_ids=said.get("prompt_token_ids"),
    )


def pieces(generation: Generation, chunk: Chunk) -> Iterator[chat_pb2.StreamCompleteResponse]:
    """What a chunk of the engine tells the client. One that opens an answer says its role, and nothing here."""
    for part in for_client(generation.request, chunk)["choices"]:
        delta = part["delta"]
        said = {
            "delta": delta.get("content"),
            "finish_reason": part.get("finish_reason"),
            "tool_calls": _calls(delta.get("tool_calls")),
            "logprobs": _logprobs(part.get("logprobs")),
            "token_ids": part.get("token_ids"),
            "reasoning": delta.get("reasoning"),
        }
        if any(said.values()):
            yield chat_pb2.StreamCompleteResponse(completion_id=generation.completion_id, index=part["index"], **said)


def message_of(*, role: str, content: Any, **other: Any) -> events_pb2.Message:
    """As the log has it: content that is no text, and every other field, in `other`."""
    beside = other if isinstance(content, str) else {"content": content, **other}
    text = content if isinstance(content, str) else ""
    said = events_pb2.Json(text=orjson.dumps(beside).decode()) if beside else None
    return events_pb2.Message(role=role, content=text, other=said)


def _choice(choice: ChatChoice, spans: Sequence[Span]) -> chat_pb2.Choice:
    told = all(span["first_token"] is not None for span in spans)
    return chat_pb2.Choice(
        index=choice["index"],
        text=choice["message"]["content"] or "",
        finish_reason=choice["finish_reason"],
        spans=[events_pb2.VersionSpan(**span) for span in spans] if told else (),
        versions=[span["policy_version"] for span in spans],
        tool_calls=_calls(choice["message"].get("tool_calls")),
        logprobs=_logprobs(choice["logprobs"]),
        token_ids=choice.get("token_ids"),
        reasoning=choice["message"].get("reasoning"),
    )


def _calls(calls: Iterable[dict[str, Any]] | None) -> list[events_pb2.ToolCall]:
    return [ParseDict(call, events_pb2.ToolCall(), ignore_unknown_fields=True) for call in calls or ()]


def _logprobs(logprobs: Mapping[str, Any] | None) -> list[chat_pb2.TokenLogprob]:
    return [_logprob(item) for item in logprobs["content"]] if logprobs else []


def _logprob(item: Mapping[str, Any]) -> chat_pb2.TokenLogprob:
    return chat_pb2.TokenLogprob(
        token=item["token"],
        logprob=item["logprob"],
        bytes=None if item["bytes"] is None else bytes(item["bytes"]),
        top_logprobs=[_logprob(other) for other in item.get("top_logprobs", ())],
    )


def _value(value: Any, name: str) -> Any:
    match value:
        case events_pb2.Json():
            return _json(value, name)
        case events_pb2.Tier():
            return [values_of(answer) for answer in value.answers]
        case events_pb2.Message():
            return _message(value)
        case Message():
            return values_of(value)
        case _:
            return value


def _message(message: events_pb2.Message) -> dict[str, Any]:
    """A message of the conversation: one that says nothing is a message, too."""
    values = values_of(message)
    other = values.pop("other", {})
    if not isinstance(other, dict):
        raise ApiError("messages.other: expected a JSON object", param="messages.other", code="invalid_type")
    silent = None if message.tool_calls else ""
    return {"role": message.role, "content": silent, **values, **other}


def _json(value: events_pb2.Json, name: str) -> Any:
    try:
        return orjson.loads(value.text)
    except orjson.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise ApiError(f"{name}: expected JSON as text, got none ({where})", param=name, code="invalid_json") from error


def _shortest(value: float) -> float:
    """The shortest decimal that is this single-precision number: what the client wrote, 0.7 and not 0.699999988."""
    decimals = (float(f"{value:.{digits}g}") for digits in range(6, 10))
    return next((decimal for decimal in decimals if struct.pack("f", decimal) == struct.pack("f", value)), value)
