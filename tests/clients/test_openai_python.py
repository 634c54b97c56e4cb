"""OpenAI's Python client, unchanged: whole, streamed, with waiting and without; its errors, time limits and retries."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest

from rlhf_online.client import AsyncFeedback, Feedback
from tests.support.chat_service import Service

ASK: dict[str, Any] = {"model": "rlhf-online", "messages": [{"role": "user", "content": "hi"}]}


@pytest.fixture
async def client(service: Service) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=service.url + "/v1", api_key="none", max_retries=0) as client:
        yield client


async def test_chat_and_text(client: openai.AsyncOpenAI) -> None:
    answer = await client.chat.completions.create(**ASK, logprobs=True, n=2)
    assert [choice.message.content for choice in answer.choices] == ["hello there"] * 2
    assert answer._request_id is not None and answer._request_id.startswith("req_")  # noqa: SLF001
    text = await client.completions.create(model="rlhf-online", prompt="Once", logprobs=0)
    assert text.choices[0].text == "hello there" and text.choices[0].logprobs is not None
    pieces = await client.completions.create(model="rlhf-online", prompt="Once", stream=True)
    assert "".join([piece.choices[0].text async for piece in pieces]) == "hello there"


async def test_headers(client: openai.AsyncOpenAI) -> None:
    raw = await client.chat.completions.with_raw_response.create(**ASK)
    assert raw.headers["x-rlhf-completion-id"] == raw.parse().id
    assert (raw.headers["x-rlhf-last-version"], raw.headers["x-rlhf-logged"]) == ("policy-000000", "true")


async def test_models(client: openai.AsyncOpenAI) -> None:
    assert [model.id async for model in client.models.list()] == ["rlhf-online", "policy-000000", "base"]
    assert (await client.models.retrieve("policy-000000")).id == "policy-000000"
    with pytest.raises(openai.NotFoundError, match="gpt-4"):
        await client.models.retrieve("gpt-4")


async def test_errors_say_what_was_wrong(service: Service, client: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as wrong:
        await client.chat.completions.create(**ASK, temperature=3)
    assert (wrong.value.param, wrong.value.code) == ("temperature", "invalid_value")
    with pytest.raises(openai.NotFoundError, match="/v1/embeddings"):
        await client.embeddings.create(model="rlhf-online", input="hi", encoding_format="float")
    with pytest.raises(openai.NotFoundError, match="/v1/responses"):
        await client.responses.create(model="rlhf-online", input="hi")
    service.engine.error_after = 1
    with pytest.raises(openai.APIError, match="engine"):
        async for _ in await client.chat.completions.create(**ASK, stream=True):
            pass


async def test_an_engine_that_is_loading_is_tried_again(service: Service) -> None:
    """503 with Retry-After: the client waits and sends again by itself."""
    service.host.state = "starting"
    async with openai.AsyncOpenAI(base_url=service.url + "/v1", api_key="none", max_retries=1) as client:
        asking = asyncio.create_task(client.chat.completions.create(**ASK))
        while not await service.metric('rlhf_chat_requests_total{outcome="unavailable"}'):
            assert not asking.done()
        service.host.state = "ready"
        assert (await asking).choices[0].message.content == "hello there"


async def test_a_client_that_gives_up_ends_the_answer(service: Service, client: openai.AsyncOpenAI) -> None:
    await service.engine.hold()
    with pytest.raises(openai.APITimeoutError):
        await client.with_options(timeout=2.0).chat.completions.create(**ASK)
    await service.engine.aborted.wait()


async def test_a_vote_while_the_answer_is_written(service: Service, client: openai.AsyncOpenAI) -> None:
    feedback = AsyncFeedback.beside(client)
    async for chunk in feedback.follow(await client.chat.completions.create(**ASK, stream=True)):
        if chunk.choices and chunk.choices[0].delta.content == "hello":
            await feedback.thumb(up=True)
    [completion], [vote] = service.sink.completions, service.sink.feedback
    assert vote.answers()[0].completion_id == completion.completion_id


async def test_the_client_that_waits(service: Service) -> None:
    def chat() -> str:
        with openai.OpenAI(base_url=service.url + "/v1", api_key="none", max_retries=0) as client:
            feedback = Feedback.beside(client)
            stream = feedback.follow(client.chat.completions.create(**ASK, stream=True))
            text = "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)
            feedback.thumb(up=True)
            return text

    assert await asyncio.to_thread(chat) == "hello there"
    assert len(service.sink.feedback) == 1
