"""Votes in batches, and a person's own votes, over gRPC: the twins of what is below /v1/feedback."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import grpc

from rlhf_online.proto.rlhf.v1 import feedback_pb2, feedback_pb2_grpc
from rlhf_online.wire import feedback_to_proto
from services.chat.access.caller import CALLER
from services.chat.bodies.api_error import ApiError
from services.chat.feedback.batch import MAX_BYTES, MAX_VOTES, Item, accept_all
from services.chat.transport.chat import Chat
from services.chat.transport.grpc_values import feedback_values, values_of

Context = grpc.aio.ServicerContext


class FeedbackServicer(feedback_pb2_grpc.FeedbackServiceServicer):
    """Takes many votes, looks them up, and takes them back."""

    def __init__(self, chat: Chat) -> None:
        self.feedback = chat.feedback
        self.votes = chat.votes

    async def SendFeedbackBatch(
        self, request_iterator: AsyncIterator[feedback_pb2.SendFeedbackBatchRequest], context: Context
    ) -> feedback_pb2.SendFeedbackBatchResponse:
        items: list[Item] = []
        size = 0
        async for request in request_iterator:
            size += request.ByteSize()
            if size > MAX_BYTES or len(items) == MAX_VOTES:
                message = f"at most {MAX_VOTES} votes of {MAX_BYTES} bytes together are taken at once; none of them was"
                raise ApiError(message, status=413, code="batch_too_large")
            try:
                items.append(feedback_values(request.vote))
            except ApiError as error:
                items.append(error)
        key = dict(context.invocation_metadata() or ()).get("idempotency-key", "")
        batch = await accept_all(self.feedback, items, CALLER.get(), key if isinstance(key, str) else "")
        results = [feedback_pb2.FeedbackResult(**result) for result in batch["results"]]
        return feedback_pb2.SendFeedbackBatchResponse(results=results)

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
                feedback=feedback_to_proto(replace(recorded.vote, person="", key_id="")),
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
