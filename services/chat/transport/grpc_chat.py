"""Chat, texts that go on, and votes over gRPC: the twins of /v1/chat/completions, /v1/completions and /v1/feedback."""

from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import grpc

from rlhf_online.config import EngineSettings, LimitSettings
from rlhf_online.proto.rlhf.v1 import chat_pb2, chat_pb2_grpc
from services.chat.access.caller import CALLER
from services.chat.bodies.api_error import outcome
from services.chat.completions.chat_request import parse_chat
from services.chat.completions.in_flight import Generation
from services.chat.completions.sampling_request import GenerationRequest
from services.chat.completions.text_request import parse_completion
from services.chat.completions.upstream import Chunk
from services.chat.transport.chat import Chat
from services.chat.transport.grpc_texts import text_pieces, text_response, text_values
from services.chat.transport.grpc_values import complete_response, feedback_values, pieces, values_of

Context = grpc.aio.ServicerContext


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """How a request for answers is read, and how its answers are written: whole, and as pieces of a stream."""

    values: Callable[[Any], dict[str, Any]]
    parse: Callable[[Mapping[str, Any], LimitSettings, EngineSettings], GenerationRequest]
    whole: Callable[[Generation], Any]
    pieces: Callable[[Generation, Chunk], Iterator[Any]]
    piece: type[Any]


CHAT = Form(
    values=values_of,
    parse=parse_chat,
    whole=complete_response,
    pieces=pieces,
    piece=chat_pb2.StreamCompleteResponse,
)
TEXT = Form(
    values=text_values,
    parse=parse_completion,
    whole=text_response,
    pieces=text_pieces,
    piece=chat_pb2.StreamCompleteTextResponse,
)


class ChatServicer(chat_pb2_grpc.ChatServiceServicer):
    """Answers that the engine writes, and what people think of them."""

    def __init__(self, chat: Chat) -> None:
        self.chat = chat
        self.gateway = chat.gateway

    async def Complete(self, request: chat_pb2.CompleteRequest, context: Context) -> chat_pb2.CompleteResponse:
        return await self._whole(CHAT, request, context)

    def StreamComplete(
        self, request: chat_pb2.StreamCompleteRequest, context: Context
    ) -> AsyncIterator[chat_pb2.StreamCompleteResponse]:
        return self._stream(CHAT, request.request, context)

    async def CompleteText(
        self, request: chat_pb2.CompleteTextRequest, context: Context
    ) -> chat_pb2.CompleteTextResponse:
        return await self._whole(TEXT, request, context)

    def StreamCompleteText(
        self, request: chat_pb2.StreamCompleteTextRequest, context: Context
    ) -> AsyncIterator[chat_pb2.StreamCompleteTextResponse]:
        return self._stream(TEXT, request.request, context)

    async def SendFeedback(
        self, request: chat_pb2.SendFeedbackRequest, context: Context
    ) -> chat_pb2.SendFeedbackResponse:
        accepted = await self.chat.feedback.accept(feedback_values(request), CALLER.get())
        return chat_pb2.SendFeedbackResponse(**accepted)

    async def _whole(self, form: Form, request: Any, context: Context) -> Any:
        ended = "aborted"
        try:
            generation = await self.gateway.complete(self._asked(form, request, stream=False), CALLER.get())
            context.set_trailing_metadata(tuple(generation.visit.headers.items()))
            ended = "ok"
        except Exception as error:
            ended = outcome(error)
            raise
        finally:
            self._count(ended)
        return form.whole(generation)

    async def _stream(self, form: Form, request: Any, context: Context) -> AsyncIterator[Any]:
        generation: Generation | None = None
        ended = "aborted"
        try:
            generation = await self.gateway.open(self._asked(form, request, stream=True), CALLER.get())
            context.set_trailing_metadata(tuple(generation.visit.headers.items()))
            async for arrived in self.gateway.read(generation):
                for chunk in arrived:
                    for piece in form.pieces(generation, chunk):
                        yield piece
            await self.gateway.settle(generation)
            ended = "ok"
            yield form.piece(completion_id=generation.completion_id, final=form.whole(generation))
        except Exception as error:
            ended = outcome(error)
            if generation is not None and generation.tokens and not generation.settled:
                await self.gateway.settle(generation)
            raise
        finally:
            if generation is not None:
                self.gateway.end(generation)
            self._count(ended)

    def _asked(self, form: Form, request: Any, *, stream: bool) -> GenerationRequest:
        values = {**form.values(request), "stream": stream}
        return form.parse(values, self.chat.settings.limits, self.chat.settings.engine)

    def _count(self, ended: str) -> None:
        self.gateway.metrics.requests.labels(outcome=ended).inc()
