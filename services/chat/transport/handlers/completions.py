"""Chat, texts that go on, the names of models, and samples for the trainer."""

from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from rlhf_online import tracing
from rlhf_online.config import EngineSettings, LimitSettings
from services.chat.access.caller import CALLER
from services.chat.bodies.api_error import outcome, report
from services.chat.bodies.validation import parse_object
from services.chat.completions import responses
from services.chat.completions.chat_request import parse_chat
from services.chat.completions.in_flight import Generation
from services.chat.completions.responses import ModelList
from services.chat.completions.sampling_request import GenerationRequest
from services.chat.completions.text_request import parse_completion
from services.chat.completions.text_responses import text_completion
from services.chat.transport.chat import Chat
from services.chat.transport.http import EventStream, json, read_body
from services.chat.transport.presence import ClientDisconnected, until_disconnect

ROLLOUT_BODY_BYTES = 64 << 20
Parse = Callable[[Mapping[str, Any], LimitSettings, EngineSettings], GenerationRequest]


class CompletionHandlers:
    """Answers that the engine writes."""

    def __init__(self, chat: Chat) -> None:
        self.chat = chat
        self.gateway = chat.gateway
        self._metrics = chat.gateway.metrics

    async def complete(self, request: Request) -> Response:
        return await self._answer(request, parse_chat, responses.completion)

    async def complete_text(self, request: Request) -> Response:
        return await self._answer(request, parse_completion, text_completion)

    async def _answer(self, request: Request, parse: Parse, whole: Callable[[Generation], Any]) -> Response:
        try:
            values = parse_object(await read_body(request, self.chat.settings.limits.max_body_bytes))
            asked = parse(values, self.chat.settings.limits, self.chat.settings.engine)
            if asked.stream:
                generation = await until_disconnect(request.scope, self.gateway.open(asked, CALLER.get()))
                return self._stream(generation)
            generation = await until_disconnect(request.scope, self.gateway.complete(asked, CALLER.get()))
        except ClientDisconnected:
            self._count("aborted")
            raise
        except Exception as error:
            self._count(outcome(error))
            raise
        self._count("ok")
        return json(whole(generation), headers=generation.visit.headers | responses.headers(generation))

    def _stream(self, generation: Generation) -> EventStream:
        ended = "aborted"

        async def events() -> AsyncGenerator[bytes, None]:
            nonlocal ended
            chunks = responses.Chunks(generation)
            try:
                async for arrived in self.gateway.read(generation):
                    yield chunks.events(arrived)
                await self.gateway.settle(generation)
                ended = "ok"
                yield chunks.last()
            except Exception as error:
                ended = outcome(error)
                tracing.opened().fail(ended)
                shown = report(error, self._metrics.internal_errors, tracing.request_id())
                body: dict[str, Any] = {**shown.body()}
                if generation.tokens and not generation.settled:  # what the client has seen can be rated
                    await self.gateway.settle(generation)
                    body["rlhf"] = responses.provenance(generation)
                yield responses.server_sent_event(body) + responses.DONE

        def finish() -> None:
            self.gateway.end(generation)
            self._count(ended)

        return EventStream(events(), finish, generation.visit.headers | responses.headers(generation))

    def _count(self, ended: str) -> None:
        self._metrics.requests.labels(ended).inc()

    async def models(self, request: Request) -> Response:
        names = self.gateway.models()
        models: ModelList = {
            "object": "list",
            "data": [responses.model_info(name) for name in names],
            "profiles": [*self.gateway.engine.audiences],
        }
        return json(models)

    async def model(self, request: Request) -> Response:
        name = request.path_params["model"]
        self.gateway.check_model(name)
        return json(responses.model_info(name))

    async def sample(self, request: Request) -> Response:
        ended = "aborted"
        try:
            values = parse_object(await read_body(request, ROLLOUT_BODY_BYTES))
            response = await until_disconnect(request.scope, self.chat.rollouts.sample(values))
            ended = "ok"
        except Exception as error:
            if not isinstance(error, ClientDisconnected):
                ended = outcome(error)
            raise
        finally:
            self._metrics.rollouts.labels(outcome=ended).inc()
        return json(response)
