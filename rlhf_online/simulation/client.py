"""The public HTTP API as a client sees it: chat, chat as a stream, feedback. Every request and failure is counted.

A request fails if it did not get its whole answer: no connection, a time-out, a status other than 200, a broken body.
A chat request is sent once. Feedback is sent again, with the same idempotency key, until it is acknowledged or given
up; however many attempts it took, it counts as one request.
"""

import asyncio
import json
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import aiohttp

from rlhf_online import sse

FEEDBACK_ATTEMPTS = 40
FEEDBACK_PAUSE_S = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """One answer as a client got it. `versions` are the policy versions that wrote it, in order."""

    completion_id: str
    conversation_id: str
    index: int
    text: str
    finished: bool
    versions: tuple[str, ...]
    at: float
    """`time.monotonic()` when the request's last byte had come."""

    @property
    def ref(self) -> dict[str, Any]:
        return {"completion_id": self.completion_id, "index": self.index}


@dataclass(frozen=True, slots=True, kw_only=True)
class Ack:
    """Feedback that the service took responsibility for."""

    event_id: str
    position: dict[str, int]
    at: float


@dataclass(slots=True)
class RequestCounts:
    """Requests to the API; `failures` counts the failed ones by kind."""

    requests: int = 0
    failed_requests: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    feedback_retries: int = 0

    def fail(self, kind: str) -> None:
        self.failed_requests += 1
        self.failures[kind] += 1


class RequestFailed(Exception):
    """The request did not get its answer; already counted. `kind` says how in a word or a status."""

    def __init__(self, kind: str) -> None:
        super().__init__(kind)
        self.kind = kind


class ChatClient:
    """An asynchronous context manager over one pool of connections to `url`."""

    def __init__(self, url: str, traffic: RequestCounts, *, max_tokens: int, timeout_s: float = 120.0) -> None:
        self.url = url.rstrip("/")
        self.traffic = traffic
        self._max_tokens = max_tokens
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> "ChatClient":
        self._session = aiohttp.ClientSession(timeout=self._timeout, connector=aiohttp.TCPConnector(limit=0))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._session is not None
        await self._session.close()

    async def chat(
        self, text: str, *, n: int, user: str = "", store: bool = True, conversation_id: str = ""
    ) -> list[Reply]:
        """`n` answers to one message at temperature 1. With `store` off they are neither logged nor learned from.

        Raises RequestFailed.
        """
        body = self._body(text, n, user, store, conversation_id)
        async with self._post("/v1/chat/completions", body) as response:
            return _replies(await response.json(), n)

    async def stream(self, text: str, *, user: str = "", conversation_id: str = "") -> Reply:
        """One answer, read as server-sent events to the end. Raises RequestFailed."""
        body = self._body(text, 1, user, True, conversation_id) | {"stream": True}
        parts, finish_reason, meta = [], "", {}
        async with self._post("/v1/chat/completions", body) as response:
            async for chunk in _events(response):
                meta = chunk.get("rlhf", meta)
                for choice in chunk.get("choices", ()):
                    parts.append(choice["delta"].get("content") or "")
                    finish_reason = choice.get("finish_reason") or finish_reason
            if not meta or not finish_reason:
                raise ValueError("the stream ended before its answer")
        choice = {"index": 0, "message": {"content": "".join(parts)}, "finish_reason": finish_reason}
        return _replies({"choices": [choice], "rlhf": meta}, 1)[0]

    async def feedback(self, body: dict[str, Any]) -> Ack:
        """Send feedback until it is acknowledged. Raises RequestFailed after the last attempt."""
        assert self._session is not None
        self.traffic.requests += 1
        body = {"idempotency_key": uuid.uuid4().hex} | body
        kind = ""
        for attempt in range(FEEDBACK_ATTEMPTS):
            if attempt:
                self.traffic.feedback_retries += 1
                await asyncio.sleep(FEEDBACK_PAUSE_S)
            try:
                async with self._session.post(f"{self.url}/v1/feedback", json=body) as response:
                    if response.status == 200:
                        values = await response.json()
                        return Ack(event_id=values["event_id"], position=values["position"], at=time.monotonic())
                    kind = str(response.status)
                    if response.status < 500 and response.status != 429:
                        break
            except (aiohttp.ClientError, TimeoutError) as error:
                kind = type(error).__name__
        self.traffic.fail(f"feedback {kind}")
        raise RequestFailed(kind)

    def _body(self, text: str, n: int, user: str, store: bool, conversation_id: str) -> dict[str, Any]:
        return {
            "messages": [{"role": "user", "content": text}],
            "n": n,
            "temperature": 1.0,
            "max_tokens": self._max_tokens,
            **({"user": user} if user else {}),
            **({"conversation_id": conversation_id} if conversation_id else {}),
            **({} if store else {"store": False}),
        }

    def _post(self, path: str, body: dict[str, Any]) -> "_Post":
        assert self._session is not None
        self.traffic.requests += 1
        return _Post(self._session.post(f"{self.url}{path}", json=body), self.traffic)


class _Post:
    """A request whose every failure, that of reading its body too, is counted and becomes RequestFailed."""

    def __init__(self, request: Any, traffic: RequestCounts) -> None:
        self._request = request
        self._traffic = traffic

    async def __aenter__(self) -> aiohttp.ClientResponse:
        try:
            response: aiohttp.ClientResponse = await self._request.__aenter__()
        except (aiohttp.ClientError, TimeoutError) as error:
            raise self._failed(type(error).__name__) from error
        if response.status != 200:
            await self._request.__aexit__(None, None, None)
            raise self._failed(str(response.status))
        return response

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._request.__aexit__(kind, error, trace)
        if isinstance(error, aiohttp.ClientError | TimeoutError | ValueError | KeyError):
            raise self._failed(type(error).__name__) from error

    def _failed(self, kind: str) -> RequestFailed:
        self._traffic.fail(f"chat {kind}")
        return RequestFailed(kind)


def _replies(values: dict[str, Any], n: int) -> list[Reply]:
    meta, choices = values["rlhf"], sorted(values["choices"], key=lambda choice: choice["index"])
    if len(choices) != n:
        raise ValueError(f"{len(choices)} answers instead of {n}")
    at = time.monotonic()
    return [
        Reply(
            completion_id=meta["completion_id"],
            conversation_id=meta["conversation_id"],
            index=choice["index"],
            text=(choice["message"]["content"] or "").strip(),
            finished=choice["finish_reason"] == "stop",
            versions=tuple(span["policy_version"] for span in spans),
            at=at,
        )
        for choice, spans in zip(choices, meta["versions"], strict=True)
    ]


async def _events(response: aiohttp.ClientResponse) -> AsyncIterator[dict[str, Any]]:
    """The JSON of each event up to `[DONE]`; raises ValueError if that never comes."""
    parser = sse.EventParser()
    async for piece in response.content.iter_any():
        for data in parser.feed(piece):
            if data == sse.DONE:
                return
            chunk = json.loads(data)
            if "error" in chunk:
                raise ValueError("the stream broke off with an error")
            yield chunk
    raise ValueError("the stream ended without [DONE]")


def ranking(replies: Sequence[Reply], order: Sequence[int]) -> dict[str, Any]:
    """The body's part for a ranking, best first."""
    return {"ranking": {"tiers": [[replies[index].ref] for index in order]}}


def thumb(reply: Reply, up: bool) -> dict[str, Any]:
    """The body's part for a thumb."""
    return {"thumb": {"answer": reply.ref, "up": up}}
