"""Answers side by side."""

from collections.abc import AsyncGenerator
from contextlib import aclosing

from starlette.requests import Request
from starlette.responses import Response

from rlhf_online import tracing
from services.chat.access.caller import CALLER, PersonQuery
from services.chat.bodies.api_error import outcome, report
from services.chat.bodies.validation import parse_object, validate
from services.chat.comparisons.questions import question
from services.chat.comparisons.service import Shown
from services.chat.completions.responses import DONE, server_sent_event
from services.chat.transport.chat import Chat
from services.chat.transport.http import EventStream, json, read_body
from services.chat.transport.presence import ClientDisconnected, until_disconnect


class ComparisonHandlers:
    """What is shown, and, after the vote, who wrote it."""

    def __init__(self, chat: Chat) -> None:
        self.chat = chat
        self.comparisons = chat.comparisons
        self._metrics = chat.gateway.metrics

    async def compare(self, request: Request) -> Response:
        caller = CALLER.get()
        try:
            values = parse_object(await read_body(request, self.chat.settings.limits.max_body_bytes))
            asked = self.comparisons.parse(values)
            if asked.stream:
                shown = await until_disconnect(request.scope, self.comparisons.open(asked, values, caller))
                return self._stream(shown)
            comparison = await until_disconnect(request.scope, self.comparisons.whole(asked, values, caller))
        except ClientDisconnected:
            self._count("aborted")
            raise
        except Exception as error:
            self._count(outcome(error))
            raise
        self._count("ok")
        return json(comparison)

    async def comparison(self, request: Request) -> Response:
        asked = validate(PersonQuery, dict(request.query_params))
        caller = CALLER.get().named(asked.user, self.chat.gateway.person_hash)
        return json(self.comparisons.result(request.path_params["comparison_id"], caller))

    async def next_comparison(self, request: Request) -> Response:
        asked = validate(PersonQuery, dict(request.query_params))
        caller = CALLER.get().named(asked.user, self.chat.gateway.person_hash)
        return json(await question(self.chat.questions, caller.person))

    def _stream(self, shown: Shown) -> EventStream:
        ended = "aborted"

        async def events() -> AsyncGenerator[bytes, None]:
            nonlocal ended
            try:
                async with aclosing(self.comparisons.pieces(shown)) as pieces:
                    async for piece in pieces:
                        yield server_sent_event(piece)
                ended = "ok"
                yield DONE
            except Exception as error:
                ended = outcome(error)
                told = report(error, self._metrics.internal_errors, tracing.request_id())
                yield server_sent_event(told.body()) + DONE

        def finish() -> None:
            self.comparisons.end(shown)
            self._count(ended)

        return EventStream(events(), finish)

    def _count(self, ended: str) -> None:
        self._metrics.requests.labels(outcome=ended).inc()
