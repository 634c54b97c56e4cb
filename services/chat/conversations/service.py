"""A person's own conversations and votes: listed, read, taken along, erased.

Whatever is asked sees all that was acknowledged before: the log is followed to its end first. Another person's
conversation is as one that does not exist.
"""

import asyncio
import uuid
from collections.abc import AsyncGenerator, Mapping
from typing import Any

from pydantic import Field
from typing_extensions import TypedDict

from rlhf_online.eventlog.base import Position
from rlhf_online.events import Envelope, Erasure, now_ms
from rlhf_online.state import PersonHash
from services.chat.access.caller import Caller, PersonQuery
from services.chat.bodies.api_error import ApiError
from services.chat.bodies.documented import documented
from services.chat.bodies.validation import validate
from services.chat.conversations.store import ConversationStore
from services.chat.event_writer import EventWriter

PAGE = 50
"""Of a list."""


class ConversationsQuery(PersonQuery):
    """Which page, and whose where the service has no keys."""

    after: str = Field(default="", max_length=512, description="The last one of the page before; by default none.")


@documented
class ConversationRow(TypedDict):
    """One of the person's conversations."""

    conversation_id: str
    """Its id: who continues it names it in a request."""
    title: str
    """The beginning of the first question."""
    started_ms: int
    """When it began, Unix time in milliseconds."""
    changed_ms: int
    """When its last answer ended."""
    exchanges: int
    """How many requests were answered in it."""


@documented
class ConversationList(TypedDict):
    """The person's conversations, those that changed last first."""

    conversations: list[ConversationRow]
    """A page of them."""
    more: bool
    """True if there are others behind them: ask for those `after` the last id."""


@documented
class KeptAnswer(TypedDict):
    """One answer."""

    index: int
    """Its position, from 0."""
    text: str
    """The text."""
    reasoning: str
    """What a thinking model thought before it answered."""
    finish_reason: str
    """ "stop", "length", "tool_calls" or "abort"."""
    versions: list[str]
    """The versions that wrote it; empty where they could not be told, and in a comparison before its vote."""


@documented
class Exchange(TypedDict):
    """A request and its answers."""

    completion_id: str
    """Its name in feedback."""
    started_ms: int
    """When it was asked, Unix time in milliseconds."""
    finished_ms: int
    """When the last answer ended."""
    comparison_id: str
    """The comparison that its answer was part of; empty without one."""
    slot: int
    """Where it stood there, from 0."""
    messages: list[dict[str, Any]]
    """What was asked, all messages before it included."""
    answers: list[KeptAnswer]
    """The answers."""
    votes: list[dict[str, Any]]
    """The person's votes on them, the oldest first, as they were sent."""


@documented
class Conversation(TypedDict):
    """A conversation."""

    conversation_id: str
    """Its id."""
    exchanges: list[Exchange]
    """A page of its exchanges, in the order in which they were asked."""
    more: bool
    """True if there are others behind them: ask for those `after` the last completion's id."""


@documented
class ConversationErased(TypedDict):
    """The conversation is erased: the log says so on disk."""

    conversation_id: str
    """Its id."""
    position: Position
    """Where the log stands after that: a version whose position covers it has learned nothing more from it."""


class Conversations:
    """What is asked of `store`, which follows the log that `writer` writes."""

    def __init__(self, store: ConversationStore, writer: EventWriter, person_hash: PersonHash) -> None:
        self.store = store
        self._writer = writer
        self._person_hash = person_hash

    async def page(self, values: Mapping[str, Any], caller: Caller) -> ConversationList:
        """Raises ApiError."""
        query = validate(ConversationsQuery, values)
        person = await self.known(query.user, caller)
        rows = await asyncio.to_thread(self.store.conversations, person, query.after, PAGE + 1)
        names = ("conversation_id", "title", "started_ms", "changed_ms", "exchanges")
        page = [ConversationRow(**dict(zip(names, row, strict=True))) for row in rows[:PAGE]]
        return {"conversations": page, "more": len(rows) > PAGE}

    async def read(self, conversation_id: str, values: Mapping[str, Any], caller: Caller) -> Conversation:
        """Raises ApiError, 404 for one that is not this person's."""
        query = validate(ConversationsQuery, values)
        person = await self.known(query.user, caller)
        found = await asyncio.to_thread(read_page, self.store, person, conversation_id, query.after)
        if found is None:
            raise _not_found(conversation_id)
        return found

    async def erase(self, conversation_id: str, values: Mapping[str, Any], caller: Caller) -> ConversationErased:
        """Raises ApiError, 404 for one that is not this person's; LogUnavailable: not erased."""
        person = await self.known(validate(PersonQuery, values).user, caller)
        if not await asyncio.to_thread(self.store.exchanges, person, conversation_id, "", 1):
            raise _not_found(conversation_id)
        erasure = Erasure(conversation_id=conversation_id, person=person, erased_ms=now_ms())
        position = await self._writer.append(Envelope(event_id=f"erasure-{uuid.uuid4().hex}", event=erasure))
        return {"conversation_id": conversation_id, "position": position}

    async def export(self, values: Mapping[str, Any], caller: Caller) -> AsyncGenerator[dict[str, Any], None]:
        """All exchanges, conversation by conversation, then all votes. Raises ApiError before the first."""
        person = await self.known(validate(PersonQuery, values).user, caller)
        return self._all(person)

    async def _all(self, person: str) -> AsyncGenerator[dict[str, Any], None]:
        conversation = ""
        while rows := await asyncio.to_thread(self.store.conversations, person, conversation, PAGE):
            for conversation, *_ in rows:
                after = ""
                while page := await asyncio.to_thread(self.store.exchanges, person, conversation, after, PAGE):
                    for exchange in page:
                        del exchange["votes"]
                        yield {"object": "exchange", "conversation_id": conversation, **exchange}
                    after = page[-1]["completion_id"]
        votes = self.store.votes(person)
        while (vote := await asyncio.to_thread(next, votes, None)) is not None:
            yield {"object": "vote", **vote}

    async def prompts(self, person: str, limit: int) -> list[list[dict[str, Any]]]:
        """The messages of what the person asked last. Raises ApiError."""
        await asyncio.to_thread(self.store.catch_up)
        return await asyncio.to_thread(self.store.prompts, person, limit)

    async def known(self, user: str, caller: Caller) -> str:
        """The person who asks, all of whose acknowledged exchanges are taken in. Raises ApiError."""
        person = caller.named(user, self._person_hash).person
        if not person:
            message = "user: missing; conversations are kept by person, and what was asked without a name is nobody's"
            raise ApiError(message, param="user", code="missing_parameter")
        await asyncio.to_thread(self.store.catch_up)
        return person


def read_page(store: ConversationStore, person: str, conversation_id: str, after: str) -> Conversation | None:
    """A page of the person's conversation, behind the exchange `after`; None if there is no such conversation.

    Raises ReadModelUnavailable.
    """
    found = store.exchanges(person, conversation_id, after, PAGE + 1)
    if not found and not (after and store.exchanges(person, conversation_id, "", 1)):
        return None
    page = [Exchange(**one) for one in found[:PAGE]]
    return {"conversation_id": conversation_id, "exchanges": page, "more": len(found) > PAGE}


def _not_found(conversation_id: str) -> ApiError:
    message = f"conversation_id: you have no conversation {conversation_id!r}"
    return ApiError(message, status=404, param="conversation_id", code="conversation_not_found")
