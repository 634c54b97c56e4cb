"""A text that goes on as gRPC messages, and the other way round: what `grpc_values` is to a chat."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rlhf_online.proto.rlhf.v1 import chat_pb2, events_pb2
from services.chat.completions.in_flight import Generation
from services.chat.completions.responses import Span, for_client
from services.chat.completions.text_responses import TextChoice, text_completion
from services.chat.completions.upstream import Chunk
from services.chat.transport.grpc_values import values_of


def text_values(request: chat_pb2.CompleteTextRequest) -> dict[str, Any]:
    """The body of POST /v1/completions, whose prompt is a text or an array of tokens."""
    values = values_of(request)
    tokens = values.pop("prompt_token_ids", None)
    return values if tokens is None else {**values, "prompt": tokens.get("ids", [])}


def text_response(generation: Generation) -> chat_pb2.CompleteTextResponse:
    """The answers of a settled request."""
    said = text_completion(generation)
    rlhf = said["rlhf"]
    return chat_pb2.CompleteTextResponse(
        completion_id=said["id"],
        conversation_id=rlhf["conversation_id"],
        choices=[_choice(choice, spans) for choice, spans in zip(said["choices"], rlhf["versions"], strict=True)],
        logged=rlhf["logged"],
        created=said["created"],
        model=said["model"],
        system_fingerprint=said["system_fingerprint"],
        usage=said["usage"],
        prompt_token_ids=said["choices"][0].get("prompt_token_ids"),
    )


def text_pieces(generation: Generation, chunk: Chunk) -> Iterator[chat_pb2.StreamCompleteTextResponse]:
    """What a chunk of the engine tells the client."""
    for part in for_client(generation.request, chunk)["choices"]:
        said = {
            "text": part["text"],
            "finish_reason": part.get("finish_reason"),
            "logprobs": _logprobs(part["logprobs"]),
            "token_ids": part.get("token_ids"),
        }
        if any(said.values()):
            yield chat_pb2.StreamCompleteTextResponse(
                completion_id=generation.completion_id, index=part["index"], **said
            )


def _choice(choice: TextChoice, spans: Sequence[Span]) -> chat_pb2.TextChoice:
    told = all(span["first_token"] is not None for span in spans)
    return chat_pb2.TextChoice(
        index=choice["index"],
        text=choice["text"],
        finish_reason=choice["finish_reason"],
        spans=[events_pb2.VersionSpan(**span) for span in spans] if told else (),
        versions=[span["policy_version"] for span in spans],
        logprobs=_logprobs(choice["logprobs"]),
        token_ids=choice.get("token_ids"),
    )


def _logprobs(told: Mapping[str, Any] | None) -> chat_pb2.TextLogprobs | None:
    if told is None:
        return None
    candidates = [chat_pb2.Candidates(logprobs=at) for at in told["top_logprobs"]]
    return chat_pb2.TextLogprobs(**{**told, "top_logprobs": candidates})
