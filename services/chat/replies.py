"""OpenAI's reply objects, whole and in chunks, with what this service adds: who wrote it, and whether it is on disk."""

from typing import Any

import orjson

from services.chat.chat_request import PUBLIC_MODEL
from services.chat.inflight import Choice, Exchange
from services.chat.upstream import Chunk

DONE = b"data: [DONE]\n\n"


def whole(exchange: Exchange) -> dict[str, Any]:
    """The "chat.completion" of a settled exchange."""
    reply = {
        "id": exchange.completion_id,
        "object": "chat.completion",
        "created": exchange.started_ms // 1000,
        "model": PUBLIC_MODEL,
        "choices": [_choice(exchange, choice) for choice in exchange.choices],
        "usage": exchange.usage,
        "system_fingerprint": exchange.version,
        "rlhf": provenance(exchange),
    }
    if exchange.request.token_ids:
        reply["prompt_token_ids"] = exchange.prompt_token_ids
    return reply


def _choice(exchange: Exchange, choice: Choice) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": "".join(choice.text), "refusal": None}
    if choice.tool_calls:
        message["tool_calls"] = list(choice.tool_calls.values())
        message["content"] = message["content"] or None
    values = {
        "index": choice.index,
        "message": message,
        "logprobs": {"content": choice.logprobs_content, "refusal": None} if exchange.request.logprobs else None,
        "finish_reason": choice.finish_reason,
    }
    if exchange.request.token_ids:
        values["token_ids"] = choice.token_ids
    return values


def provenance(exchange: Exchange) -> dict[str, Any]:
    """The "rlhf" object. Where a boundary is uncertain, `first_token` of the later versions is null."""
    return {
        "completion_id": exchange.completion_id,
        "conversation_id": exchange.conversation_id,
        "versions": [_versions(choice) for choice in exchange.choices],
        "logged": exchange.logged,
    }


def _versions(choice: Choice) -> list[dict[str, Any]]:
    return [
        {
            "policy_version": span.policy_version,
            "first_token": span.first_token if choice.certain or span.first_token == 0 else None,
        }
        for span in choice.spans
    ]


def event(values: dict[str, Any]) -> bytes:
    """A server-sent event."""
    return b"data: " + orjson.dumps(values) + b"\n\n"


class Chunks:
    """Turns the engine's chunks into the client's.

    The last one (usage if the client wants it, else the last finish) is held back: it is sent, with the "rlhf" object,
    once the exchange is on disk.
    """

    def __init__(self, exchange: Exchange) -> None:
        self.exchange = exchange
        self.held: Chunk | None = None

    def events(self, arrived: list[Chunk]) -> bytes:
        """What can be sent now."""
        out = []
        for chunk in arrived:
            if not chunk["choices"]:  # usage
                if self.exchange.request.include_usage:
                    out += self._hold(chunk)
                continue
            self._strip(chunk)
            out += self._hold(chunk) if self.exchange.finished else [event(chunk)]
        return b"".join(out)

    def last(self) -> bytes:
        """The chunk held back, and the end of the stream. Only after the exchange is settled."""
        chunk = self.held or self._head({"choices": []})
        chunk["system_fingerprint"] = self.exchange.version
        chunk["rlhf"] = provenance(self.exchange)
        return event(chunk) + DONE

    def _hold(self, chunk: Chunk) -> list[bytes]:
        """Keep the chunk; the one kept before was not the last, and is returned to be sent."""
        before, self.held = self.held, self._head(chunk)
        return [] if before is None else [event(before)]

    def _strip(self, chunk: Chunk) -> None:
        """Take away what the service asked the engine for and the client did not."""
        request = self.exchange.request
        self._head(chunk)
        if not request.token_ids:
            chunk.pop("prompt_token_ids", None)
        chunk.pop("prompt_text", None)
        if request.include_usage:
            chunk["usage"] = None
        for part in chunk["choices"]:
            if not request.token_ids:
                part.pop("token_ids", None)
            if not request.logprobs:
                part["logprobs"] = None
            part.pop("stop_reason", None)

    def _head(self, chunk: Chunk) -> Chunk:
        chunk["id"] = self.exchange.completion_id
        chunk["object"] = "chat.completion.chunk"
        chunk["created"] = self.exchange.started_ms // 1000
        chunk["model"] = PUBLIC_MODEL
        return chunk
