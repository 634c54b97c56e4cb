"""Comparisons over gRPC: the twins of /v1/comparisons."""

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import grpc

from rlhf_online.proto.rlhf.v1 import comparisons_pb2, comparisons_pb2_grpc
from services.chat.access.caller import CALLER, PersonQuery
from services.chat.bodies.api_error import outcome
from services.chat.bodies.validation import validate
from services.chat.comparisons.questions import question
from services.chat.comparisons.replies import Comparison
from services.chat.comparisons.service import Shown
from services.chat.transport.chat import Chat
from services.chat.transport.grpc_values import message_of, values_of

Context = grpc.aio.ServicerContext


class ComparisonServicer(comparisons_pb2_grpc.ComparisonServiceServicer):
    """Answers side by side."""

    def __init__(self, chat: Chat) -> None:
        self.comparisons = chat.comparisons
        self.questions = chat.questions
        self.person_hash = chat.gateway.person_hash
        self._metrics = chat.gateway.metrics

    async def Compare(
        self, request: comparisons_pb2.CompareRequest, context: Context
    ) -> comparisons_pb2.CompareResponse:
        ended = "aborted"
        try:
            values = values_of(request)
            asked = self.comparisons.parse(values)
            reply = _response(await self.comparisons.whole(asked, values, CALLER.get()))
            ended = "ok"
        except Exception as error:
            ended = outcome(error)
            raise
        finally:
            self._count(ended)
        return reply

    async def StreamCompare(
        self, request: comparisons_pb2.StreamCompareRequest, context: Context
    ) -> AsyncIterator[comparisons_pb2.StreamCompareResponse]:
        shown: Shown | None = None
        ended = "aborted"
        try:
            values = {**values_of(request.request), "stream": True}
            shown = await self.comparisons.open(self.comparisons.parse(values), values, CALLER.get())
            async with aclosing(self.comparisons.pieces(shown)) as pieces:
                async for piece in pieces:
                    said: dict[str, Any] = {**piece}
                    if "final" in piece:
                        said["final"] = _response(piece["final"])
                    yield comparisons_pb2.StreamCompareResponse(**said)
            ended = "ok"
        except Exception as error:
            ended = outcome(error)
            raise
        finally:
            if shown is not None:
                self.comparisons.end(shown)
            self._count(ended)

    async def GetComparison(
        self, request: comparisons_pb2.GetComparisonRequest, context: Context
    ) -> comparisons_pb2.GetComparisonResponse:
        values = values_of(request)
        comparison_id = values.pop("comparison_id", "")
        caller = CALLER.get().named(validate(PersonQuery, values).user, self.person_hash)
        return comparisons_pb2.GetComparisonResponse(**self.comparisons.result(comparison_id, caller))

    async def NextComparison(
        self, request: comparisons_pb2.NextComparisonRequest, context: Context
    ) -> comparisons_pb2.NextComparisonResponse:
        caller = CALLER.get().named(validate(PersonQuery, values_of(request)).user, self.person_hash)
        asked = await question(self.questions, caller.person)
        return comparisons_pb2.NextComparisonResponse(messages=[message_of(**said) for said in asked["messages"]])

    def _count(self, ended: str) -> None:
        self._metrics.requests.labels(outcome=ended).inc()


def _response(comparison: Comparison) -> comparisons_pb2.CompareResponse:
    said: dict[str, Any] = {**comparison}
    del said["object"]
    return comparisons_pb2.CompareResponse(**said)
