"""A person's own votes over gRPC: the twins of GET and DELETE below /v1/feedback."""

import asyncio
from dataclasses import replace

import grpc

from rlhf_online.proto.rlhf.v1 import feedback_pb2, feedback_pb2_grpc
from rlhf_online.wire import feedback_to_proto
from services.chat.access.caller import CALLER
from services.chat.transport.chat import Chat
from services.chat.transport.grpc_values import values_of

Context = grpc.aio.ServicerContext


class FeedbackServicer(feedback_pb2_grpc.FeedbackServiceServicer):
    """Looks votes up, and takes them back."""

    def __init__(self, chat: Chat) -> None:
        self.feedback = chat.feedback
        self.votes = chat.votes

    async def GetFeedback(
        self, request: feedback_pb2.GetFeedbackRequest, context: Context
    ) -> feedback_pb2.GetFeedbackResponse:
        values = values_of(request)
        event_id = values.pop("event_id", "")
        found = await asyncio.to_thread(self.votes.status, event_id, values, CALLER.get())
        return feedback_pb2.GetFeedbackResponse(**found)

    async def ListFeedback(
        self, request: feedback_pb2.ListFeedbackRequest, context: Context
    ) -> feedback_pb2.ListFeedbackResponse:
        found, more = await asyncio.to_thread(self.votes.page, values_of(request), CALLER.get())
        items = [
            feedback_pb2.FeedbackItem(
                event_id=recorded.event_id,
                feedback=feedback_to_proto(replace(recorded.vote, person="")),
                replaced_by=recorded.replaced_by,
            )
            for recorded in found
        ]
        return feedback_pb2.ListFeedbackResponse(data=items, has_more=more)

    async def WithdrawFeedback(
        self, request: feedback_pb2.WithdrawFeedbackRequest, context: Context
    ) -> feedback_pb2.WithdrawFeedbackResponse:
        values, caller = values_of(request), CALLER.get()
        event_id = values.pop("event_id", "")
        withdrawal = await asyncio.to_thread(self.votes.withdrawal, event_id, values, caller)
        return feedback_pb2.WithdrawFeedbackResponse(**await self.feedback.accept(withdrawal, caller))
