"""Votes as calls: once for programs that wait, once for those that await."""

import asyncio
from abc import abstractmethod
from collections.abc import AsyncIterable, AsyncIterator, Coroutine, Iterable, Iterator, Mapping, Sequence
from typing import Any, Generic, Literal, Protocol, Self, TypedDict, TypeVar, Unpack

from rlhf_online.client.answers import Answer, named
from rlhf_online.client.sending import Sender, Vote
from rlhf_online.errors import InvalidInput

DEFAULT_URL = "http://127.0.0.1:8000/v1"
SHARED = ("authorization", "x-end-user")
"""Headers that say who asks, which votes share with the client that they are beside."""
Sent = TypeVar("Sent")
Item = TypeVar("Item")


class About(TypedDict, total=False):
    """What can be said beside each vote; POST /v1/feedback explains it. `replaces`: a `Vote`, or its event id."""

    user: str
    reason: str
    reasons: Sequence[str]
    objective: str
    source: str
    conversation_id: str
    response_ms: int
    shown: Sequence[Any]
    replaces: Vote | str
    idempotency_key: str


class OpenAiClient(Protocol):
    """What is needed of OpenAI's clients, sync and async."""

    @property
    def base_url(self) -> Any: ...

    @property
    def default_headers(self) -> Mapping[str, Any]: ...


class Votes(Generic[Sent]):
    """What both kinds have in common. `last` is the answer that `keep` or `follow` saw last: a vote that names none is
    about it."""

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        api_key: str = "",
        headers: Mapping[str, str] | None = None,
        timeout_s: float = 30.0,
        tries: int = 5,
    ) -> None:
        """`url` is the address that OpenAI's clients are given, "…/v1". Raises InvalidInput if it is none."""
        auth = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._sender = Sender(url=url, headers={**auth, **(headers or {})}, timeout_s=timeout_s, tries=tries)
        self.last: Answer | None = None

    @classmethod
    def beside(cls, client: OpenAiClient, *, timeout_s: float = 30.0, tries: int = 5) -> Self:
        """Votes to the service that `client` chats with, under its key and in the name of the same end user."""
        headers = {
            name: value
            for name, value in client.default_headers.items()
            if name.lower() in SHARED and isinstance(value, str)
        }
        return cls(str(client.base_url), headers=headers, timeout_s=timeout_s, tries=tries)

    def keep(self, answer: Item) -> Item:
        """Remember the answer, and give it back."""
        self.last = named(answer)
        return answer

    def thumb(self, answer: Any = None, *, up: bool, **about: Unpack[About]) -> Sent:
        """The answer is good, or bad."""
        return self._vote(about, thumb={"answer": self._name(answer), "up": up})

    def correct(self, text: str, answer: Any = None, **about: Unpack[About]) -> Sent:
        """`text` would have been better."""
        return self._vote(about, correction={"answer": self._name(answer), "text": text})

    def prefer(self, better: Any, worse: Any, *, tie: bool = False, strength: int = 0, **about: Unpack[About]) -> Sent:
        """One answer is better than another to the same prompt; `tie`: they are about the same."""
        pair = {"chosen": self._name(better), "rejected": self._name(worse), "tie": tie, "strength": strength}
        return self._vote(about, pairwise=pair)

    def rank(self, tiers: Sequence[Sequence[Any]], **about: Unpack[About]) -> Sent:
        """Answers to one prompt, best tier first; those of one tier are tied."""
        return self._vote(about, ranking={"tiers": [[self._name(answer) for answer in tier] for tier in tiers]})

    def implicit(
        self, signal: Literal["regenerate", "rephrase", "stop"], answer: Any = None, **about: Unpack[About]
    ) -> Sent:
        """Nothing was said, but something was done that suggests displeasure."""
        return self._vote(about, implicit={"answer": self._name(answer), "signal": signal})

    def withdraw(self, vote: Vote, **about: Unpack[About]) -> Sent:
        """Take a vote back."""
        return self._vote({"replaces": vote, **about}, withdrawal={"answer": vote.answer})

    @abstractmethod
    def send(self, body: dict[str, Any]) -> Sent:
        """A body of POST /v1/feedback; with an `idempotency_key`, such as that of `NotSent.body`, it is that vote."""

    def _vote(self, about: About, **kind: Any) -> Sent:
        body = {**about, **kind}
        if isinstance(replaced := body.get("replaces"), Vote):
            body["replaces"] = replaced.event_id
        if "shown" in body:
            body["shown"] = [self._name(answer) for answer in body["shown"]]
        return self.send(body)

    def _name(self, answer: Any) -> dict[str, Any]:
        found = self.last if answer is None else named(answer)
        if found is None:
            raise InvalidInput("which answer? give it, or pass it through `keep` or `follow` first")
        return found.body()


class Feedback(Votes[Vote]):
    """Each call returns when the vote is on disk. Raises Refused, NotSent and InvalidInput."""

    def follow(self, stream: Iterable[Item]) -> Iterator[Item]:
        """The chunks of a streamed answer, which is the last one from its first chunk on: it can be voted on while it
        is being written."""
        for chunk in stream:
            self.keep(chunk)
            yield chunk

    def send(self, body: dict[str, Any]) -> Vote:
        return self._sender.send(body)


class AsyncFeedback(Votes[Coroutine[Any, Any, Vote]]):
    """As `Feedback`, to be awaited. A thread sends it: if the call is cancelled, the vote may be sent all the same."""

    async def follow(self, stream: AsyncIterable[Item]) -> AsyncIterator[Item]:
        """As `Feedback.follow`."""
        async for chunk in stream:
            self.keep(chunk)
            yield chunk

    def send(self, body: dict[str, Any]) -> Coroutine[Any, Any, Vote]:
        return asyncio.to_thread(self._sender.send, body)
