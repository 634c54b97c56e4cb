"""A person's own conversations over gRPC: the twins of /v1/conversations and /v1/export."""

from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from typing import Any

import grpc

from rlhf_online.proto.rlhf.v1 import conversations_pb2, conversations_pb2_grpc, events_pb2, feedback_pb2
from services.chat.access.caller import CALLER, PersonQuery
from services.chat.bodies.validation import validate
from services.chat.transport.chat import Chat
from services.chat.transport.grpc_values import message_of, values_of

Context = grpc.aio.ServicerContext


class ConversationServicer(conversations_pb2_grpc.ConversationServiceServicer):
    """What is kept of a person, for that person alone."""

    def __init__(self, chat: Chat) -> None:
        self._conversations = chat.conversations
        self._people = chat.people

    async def ListConversations(
        self, request: conversations_pb2.ListConversationsRequest, context: Context
    ) -> conversations_pb2.ListConversationsResponse:
        page = await self._conversations.page(values_of(request), CALLER.get())
        return conversations_pb2.ListConversationsResponse(**page)

    async def GetConversation(
        self, request: conversations_pb2.GetConversationRequest, context: Context
    ) -> conversations_pb2.GetConversationResponse:
        values = values_of(request)
        found = await self._conversations.read(values.pop("conversation_id", ""), values, CALLER.get())
        return conversations_pb2.GetConversationResponse(
            conversation_id=found["conversation_id"],
            exchanges=[_exchange(exchange) for exchange in found["exchanges"]],
            more=found["more"],
        )

    async def EraseConversation(
        self, request: conversations_pb2.EraseConversationRequest, context: Context
    ) -> conversations_pb2.EraseConversationResponse:
        values = values_of(request)
        erased = await self._conversations.erase(values.pop("conversation_id", ""), values, CALLER.get())
        return conversations_pb2.EraseConversationResponse(**erased)

    async def EraseEverything(
        self, request: conversations_pb2.EraseEverythingRequest, context: Context
    ) -> conversations_pb2.EraseEverythingResponse:
        user = validate(PersonQuery, values_of(request)).user
        erased = await self._people.erase(await self._conversations.known(user, CALLER.get()))
        return conversations_pb2.EraseEverythingResponse(**erased)

    async def ExportConversations(
        self, request: conversations_pb2.ExportConversationsRequest, context: Context
    ) -> AsyncIterator[conversations_pb2.ExportConversationsResponse]:
        async with aclosing(await self._conversations.export(values_of(request), CALLER.get())) as items:
            async for said in items:
                kind, conversation_id = said.pop("object"), said.pop("conversation_id", "")
                if kind == "vote":
                    vote = _vote({**said, "conversation_id": conversation_id})
                    yield conversations_pb2.ExportConversationsResponse(vote=vote)
                else:
                    yield conversations_pb2.ExportConversationsResponse(
                        conversation_id=conversation_id, exchange=_exchange(said)
                    )


def _exchange(said: Mapping[str, Any]) -> conversations_pb2.Exchange:
    messages = [message_of(**message) for message in said["messages"]]
    votes = [_vote(vote) for vote in said.get("votes", ())]
    return conversations_pb2.Exchange(**{**said, "messages": messages, "votes": votes})


def _vote(said: Mapping[str, Any]) -> feedback_pb2.FeedbackItem:
    values = dict(said)
    event_id = values.pop("event_id")
    if "ranking" in values:
        values["ranking"] = {"tiers": [{"answers": tier} for tier in values["ranking"]["tiers"]]}
    return feedback_pb2.FeedbackItem(event_id=event_id, feedback=events_pb2.Feedback(**values))
