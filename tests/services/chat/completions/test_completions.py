"""The chat route: OpenAI's shapes, whole and streamed, and what is logged."""

import asyncio
from concurrent.futures import Future
from typing import Any

import orjson
import pytest

from rlhf_online.events import Message, VersionSpan
from tests.support.chat_service import ASK, Service
from tests.support.events import events
from tests.support.fake_generation import EOS, PROMPT

FIRST = {"policy_version": "policy-000000", "first_token": 0}


async def chunks(service: Service, **fields: Any) -> list[dict[str, Any]]:
    """The events of a streamed answer; the stream must end with [DONE]."""
    body = orjson.dumps({**ASK, "stream": True, **fields})
    async with service.session.post(service.url + "/v1/chat/completions", data=body) as response:
        assert response.status == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        received = await response.read()
    assert received.endswith(b"data: [DONE]\n\n")
    return events(received)


async def test_a_whole_answer(service: Service) -> None:
    status, reply = await service.ask(temperature=0.7, seed=4, max_tokens=8, user="ann", conversation_id="c-1")
    assert status == 200
    assert reply["object"] == "chat.completion"
    assert reply["model"] == "rlhf-online"
    assert reply["choices"] == [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "hello there", "refusal": None},
            "logprobs": None,
            "finish_reason": "stop",
        }
    ]
    assert reply["usage"] == {"prompt_tokens": 3, "completion_tokens": 3, "total_tokens": 6}
    assert reply["system_fingerprint"] == "policy-000000"
    assert reply["rlhf"] == {
        "completion_id": reply["id"],
        "conversation_id": "c-1",
        "versions": [[FIRST]],
        "logged": True,
    }


async def test_a_whole_answer_is_logged(service: Service) -> None:
    _, reply = await service.ask(temperature=0.5, seed=4, max_tokens=8, user="ann", conversation_id="c-1")
    (envelope,) = service.sink.envelopes
    (event,) = service.sink.completions
    assert envelope.event_id == event.completion_id == reply["id"]
    assert event.conversation_id == "c-1"
    assert event.person == service.state.person_hash()("ann")
    assert event.messages == (Message(role="user", content="secret words"),)
    assert event.prompt_token_ids == tuple(PROMPT)
    (answer,) = event.answers
    assert answer.text == "hello there"
    assert answer.token_ids == (11, 12, EOS)
    assert answer.logprobs == (-1.0, -1.0, -1.0)
    assert answer.spans == (VersionSpan(policy_version="policy-000000", first_token=0),)
    assert answer.finish_reason == "stop"
    assert (event.sampling.temperature, event.sampling.seed, event.sampling.max_tokens) == (0.5, 4, 8)
    assert event.sampling.full_support
    assert 0 < event.started_ms <= event.finished_ms


async def test_every_sampling_parameter_is_sent_explicitly(service: Service) -> None:
    await service.ask()
    (sent,) = service.engine.requests
    assert sent["model"] == "base"
    assert sent["stream"] is True
    assert sent["return_token_ids"] is True
    assert sent["logprobs"] is True
    assert sent["max_tokens"] == 1024
    neutral = {"temperature": 1.0, "top_p": 1.0, "top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0}
    assert neutral.items() <= sent.items()
    assert not {"priority", "stream_interval"} & sent.keys()
    assert "user" not in sent


async def test_several_answers(service: Service) -> None:
    _, reply = await service.ask(n=3)
    assert [choice["index"] for choice in reply["choices"]] == [0, 1, 2]
    assert {choice["message"]["content"] for choice in reply["choices"]} == {"hello there"}
    assert reply["rlhf"]["versions"] == [[FIRST]] * 3
    assert [answer.index for answer in service.sink.completions[0].answers] == [0, 1, 2]
    assert await service.metric("rlhf_chat_tokens_total") == 9


async def test_logprobs_and_tokens_only_for_those_who_ask(service: Service) -> None:
    _, reply = await service.ask(logprobs=True, top_logprobs=2, return_token_ids=True)
    (choice,) = reply["choices"]
    assert [item["logprob"] for item in choice["logprobs"]["content"]] == [-1.0] * 3
    assert choice["token_ids"] == [11, 12, EOS]
    assert reply["prompt_token_ids"] == PROMPT
    assert service.engine.requests[0]["top_logprobs"] == 2


async def test_a_stream(service: Service) -> None:
    events = await chunks(service)
    assert {event["object"] for event in events} == {"chat.completion.chunk"}
    assert len({event["id"] for event in events}) == 1
    assert events[0]["choices"][0]["delta"]["role"] == "assistant"
    assert "".join(event["choices"][0]["delta"].get("content", "") for event in events) == "hello there"
    assert [event["choices"][0]["finish_reason"] for event in events] == [None, None, None, "stop"]
    assert all("usage" not in event for event in events)
    assert all("token_ids" not in event["choices"][0] and not event["choices"][0]["logprobs"] for event in events)
    assert not any({"prompt_token_ids", "prompt_text"} & event.keys() for event in events)
    assert all("rlhf" not in event for event in events[:-1])
    assert events[-1]["system_fingerprint"] == "policy-000000"
    assert events[-1]["rlhf"]["logged"] is True
    assert events[-1]["rlhf"]["versions"] == [[FIRST]]
    assert service.sink.completions[0].answers[0].text == "hello there"


async def test_a_stream_with_usage_ends_with_it(service: Service) -> None:
    events = await chunks(service, stream_options={"include_usage": True})
    assert [event["usage"] for event in events[:-1]] == [None] * 4
    assert events[-1]["choices"] == []
    assert events[-1]["usage"]["completion_tokens"] == 3
    assert events[-1]["rlhf"]["logged"] is True
    assert "rlhf" not in events[-2]


async def test_a_stream_of_several_answers(service: Service) -> None:
    events = await chunks(service, n=2, return_token_ids=True)
    token_ids: dict[int, list[int]] = {0: [], 1: []}
    for event in events:
        for choice in event["choices"]:
            token_ids[choice["index"]] += choice.get("token_ids", [])
    assert token_ids == {0: [11, 12, EOS], 1: [11, 12, EOS]}
    assert len(events[-1]["rlhf"]["versions"]) == 2


async def test_the_last_byte_waits_for_the_fsync(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer's text is there before; the event with "rlhf" is not sent until the log has acknowledged."""
    pending: Future[int] = Future()
    appended = asyncio.Event()

    def append(payload: bytes) -> Future[int]:
        appended.set()
        return pending

    monkeypatch.setattr(service.sink, "append", append)
    body = orjson.dumps({**ASK, "stream": True})
    async with service.session.post(service.url + "/v1/chat/completions", data=body) as response:
        received = b""
        while b" there" not in received:
            received += await response.content.readany()
        await appended.wait()
        reading = asyncio.create_task(response.content.readany())
        await asyncio.wait((reading,), timeout=0.05)
        assert not reading.done()
        assert b"rlhf" not in received.replace(b"rlhf-online", b"")
        pending.set_result(0)
        rest = await reading + await response.read()
    assert b'"logged":true' in rest


async def test_streams_show_tokens_as_they_are_written(service: Service) -> None:
    await service.engine.hold()
    body = orjson.dumps({**ASK, "stream": True})
    asking = asyncio.create_task(service.session.post(service.url + "/v1/chat/completions", data=body))
    await service.engine.allow(1)
    async with await asking as response:
        received = b""
        while b"hello" not in received:
            received += await response.content.readany()
        assert b" there" not in received
        await service.engine.release()
        assert b" there" in await response.read()


async def test_a_token_limit_holds_under_either_name(service: Service) -> None:
    for name in ("max_tokens", "max_completion_tokens"):
        _, reply = await service.ask(**{name: 2})
        assert reply["choices"][0]["finish_reason"] == "length"
    assert [request["max_tokens"] for request in service.engine.requests] == [2, 2]


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
async def test_a_token_limit_above_the_operators_is_refused(service: Service, name: str) -> None:
    """As OpenAI's service and vLLM's do: an answer that was cut without a word would look as if it had ended."""
    assert (await service.ask(**{name: 1024}))[0] == 200
    status, reply = await service.ask(**{name: 1025})
    assert (status, reply["error"]["param"], reply["error"]["code"]) == (400, name, "invalid_value")
    assert "at most 1024" in reply["error"]["message"] and "chat.limits.max_tokens" in reply["error"]["message"]
    assert len(service.engine.requests) == 1


async def test_openais_own_client(service: Service) -> None:
    import openai

    async with openai.AsyncOpenAI(base_url=service.url + "/v1", api_key="none", max_retries=0) as client:
        whole = await client.chat.completions.create(
            model="rlhf-online", messages=[{"role": "user", "content": "hi"}], logprobs=True
        )
        assert whole.choices[0].message.content == "hello there"
        assert whole.choices[0].logprobs is not None
        stream = await client.chat.completions.create(
            model="rlhf-online",
            messages=[{"role": "user", "content": "hi"}],
            stream=True,
            stream_options={"include_usage": True},
        )
        text, usage = "", 0
        async for chunk in stream:
            text += "".join(choice.delta.content or "" for choice in chunk.choices)
            usage = chunk.usage.total_tokens if chunk.usage else usage
        assert (text, usage) == ("hello there", 6)
        assert "rlhf-online" in [model.id async for model in client.models.list()]
