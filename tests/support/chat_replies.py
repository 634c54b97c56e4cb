"""A reply to a chat, or to a text that is to go on, as one value, whichever way it came: over HTTP or gRPC, whole or in
pieces.
"""

# pyright: reportAttributeAccessIssue=false
# (the generated stubs are typed for synchronous channels)

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import orjson
from google.protobuf.json_format import MessageToDict

from rlhf_online.proto.rlhf.v1 import chat_pb2
from rlhf_online.sse import DONE, EventParser


@dataclass
class Answer:
    text: str = ""
    reasoning: str = ""
    finish_reason: str = ""
    calls: list[dict[str, Any]] = field(default_factory=list)
    logprobs: list[dict[str, Any]] = field(default_factory=list)
    token_ids: list[int] = field(default_factory=list)

    def add(self, piece: "Answer") -> None:
        self.text += piece.text
        self.reasoning += piece.reasoning
        self.finish_reason += piece.finish_reason
        self.logprobs += piece.logprobs
        self.token_ids += piece.token_ids
        for call in piece.calls:
            index = call.pop("index")
            if index == len(self.calls):
                self.calls.append(call)
            else:
                self.calls[index]["function"]["arguments"] += call["function"].get("arguments", "")


@dataclass
class Reply:
    """`spans` are (version, first token) for each answer."""

    answers: list[Answer]
    spans: list[list[tuple[str, int]]]
    logged: bool
    model: str
    system_fingerprint: str
    usage: dict[str, Any]
    prompt_token_ids: list[int]
    conversation: str


def from_http(body: dict[str, Any]) -> Reply:
    answers = [_from_part(choice, choice.get("message", choice)) for choice in body["choices"]]
    return _from_object(body, answers, _prompt_token_ids(body))


def from_http_stream(data: bytes) -> Reply:
    """A stream that was asked for with `include_usage`."""
    chunks = [orjson.loads(event) for event in EventParser().feed(data) if event != DONE]
    answers = [Answer() for _ in chunks[-1]["rlhf"]["versions"]]
    for part in (part for chunk in chunks for part in chunk["choices"]):
        answers[part["index"]].add(_from_part(part, part.get("delta", part)))
    return _from_object(chunks[-1], answers, _prompt_token_ids(chunks[0]))


def from_grpc(response: chat_pb2.CompleteResponse | chat_pb2.CompleteTextResponse) -> Reply:
    return Reply(
        answers=[_from_message(choice, choice.text) for choice in response.choices],
        spans=[[(span.policy_version, span.first_token) for span in choice.spans] for choice in response.choices],
        logged=response.logged,
        model=response.model,
        system_fingerprint=response.system_fingerprint,
        usage=MessageToDict(response.usage),
        prompt_token_ids=list(response.prompt_token_ids),
        conversation=response.conversation_id.partition("-")[0],
    )


def from_grpc_stream(pieces: list[Any]) -> Reply:
    """The stream's pieces put together, which must be what its end says."""
    *pieces, end = pieces
    reply = from_grpc(end.final)
    answers = [Answer() for _ in reply.answers]
    for piece in pieces:
        answers[piece.index].add(_from_message(piece, piece.text if hasattr(piece, "text") else piece.delta))
    assert answers == reply.answers
    return reply


def _from_object(body: dict[str, Any], answers: list[Answer], prompt_token_ids: list[int] | None) -> Reply:
    rlhf = body["rlhf"]
    return Reply(
        answers=answers,
        spans=[[(span["policy_version"], span["first_token"]) for span in spans] for spans in rlhf["versions"]],
        logged=rlhf["logged"],
        model=body["model"],
        system_fingerprint=body["system_fingerprint"],
        usage=body["usage"],
        prompt_token_ids=prompt_token_ids or [],
        conversation=rlhf["conversation_id"].partition("-")[0],
    )


def _prompt_token_ids(body: dict[str, Any]) -> list[int] | None:
    """A text's stand in each of its answers."""
    return body.get("prompt_token_ids") or body["choices"][0].get("prompt_token_ids")


def _from_part(part: dict[str, Any], said: dict[str, Any]) -> Answer:
    told = part["logprobs"] or {"content": []}
    return Answer(
        text=said.get("content") or said.get("text") or "",
        reasoning=said.get("reasoning", ""),
        finish_reason=part["finish_reason"] or "",
        calls=said.get("tool_calls", []),
        logprobs=told["content"] if "content" in told else _by_token(told),
        token_ids=part.get("token_ids", []),
    )


def _from_message(message: Any, text: str) -> Answer:
    if isinstance(message, chat_pb2.TextChoice | chat_pb2.StreamCompleteTextResponse):
        told = message.logprobs
        tops = [dict(candidates.logprobs) for candidates in told.top_logprobs]
        said = {"tokens": told.tokens, "token_logprobs": told.token_logprobs, "text_offset": told.text_offset}
        return Answer(
            text=text,
            finish_reason=message.finish_reason,
            logprobs=_by_token({**said, "top_logprobs": tops}),
            token_ids=list(message.token_ids),
        )
    return Answer(
        text=text,
        reasoning=message.reasoning,
        finish_reason=message.finish_reason,
        calls=[MessageToDict(call) for call in message.tool_calls],
        logprobs=_logprobs(message.logprobs),
        token_ids=list(message.token_ids),
    )


def _by_token(told: dict[str, Any]) -> list[dict[str, Any]]:
    """The older API's log-probabilities, an object a token."""
    return [dict(zip(told, values, strict=True)) for values in zip(*told.values(), strict=True)]


def _logprobs(items: Iterable[chat_pb2.TokenLogprob]) -> list[dict[str, Any]]:
    return [
        {
            "token": item.token,
            "logprob": item.logprob,
            "bytes": list(item.bytes) if item.HasField("bytes") else None,
            "top_logprobs": _logprobs(item.top_logprobs),
        }
        for item in items
    ]
