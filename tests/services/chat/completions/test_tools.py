"""Tools and thoughts: asked for, answered, and logged as what they were, with all of their tokens."""

from pathlib import Path
from typing import Any

import orjson

from rlhf_online.events import ToolCall
from rlhf_online.models.limits import ModelLimits
from rlhf_online.rollout.eligibility import eligible_rollouts
from tests.support.chat_service import ASK, Service, running
from tests.support.fake_generation import EOS

TOOL = {"type": "function", "function": {"name": "look_up", "parameters": {"type": "object"}}}
CALL = {"id": "call-0", "type": "function", "function": {"name": "look_up", "arguments": "hello there"}}
REQUIRED = {"tools": [TOOL], "tool_choice": "required"}


async def test_a_call(service: Service) -> None:
    _, reply = await service.ask(**REQUIRED)
    (choice,) = reply["choices"]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"] == {"role": "assistant", "content": None, "refusal": None, "tool_calls": [CALL]}
    (sent,) = service.engine.requests
    assert (sent["tools"], sent["tool_choice"]) == ([TOOL], "required")


async def test_a_call_is_logged_with_what_was_asked_and_all_of_its_tokens(service: Service) -> None:
    history = [{"role": "assistant", "content": None, "tool_calls": [CALL]}, {"role": "tool", "content": "3"}]
    await service.ask(messages=[*ASK["messages"], *history], **REQUIRED, reasoning_effort="low")
    (event,) = service.sink.completions
    (answer,) = event.answers
    assert answer.token_ids == (11, 12, EOS)
    assert answer.logprobs == (-1.0, -1.0, -1.0)
    assert answer.tool_calls == (ToolCall(id="call-0", name="look_up", arguments="hello there"),)
    assert (answer.text, answer.finish_reason) == ("", "tool_calls")
    assert orjson.loads(event.asked) == {**REQUIRED, "reasoning_effort": "low"}
    assert [message.content for message in event.messages] == ["secret words", "", "3"]
    assert [orjson.loads(message.other or "{}") for message in event.messages] == [{}, {"tool_calls": [CALL]}, {}]


async def test_thoughts(service: Service) -> None:
    fields = {"reasoning_effort": "low", "chat_template_kwargs": {"depth": 3}}
    _, reply = await service.ask(**fields, return_token_ids=True)
    (choice,) = reply["choices"]
    assert (choice["message"]["reasoning"], choice["message"]["content"]) == ("hello", " there")
    (answer,) = service.sink.completions[0].answers
    assert (answer.reasoning, answer.text) == ("hello", " there")
    assert list(answer.token_ids) == choice["token_ids"] == [11, 12, EOS]
    assert fields.items() <= service.engine.requests[0].items()


async def test_calls_and_thoughts_by_openais_client(service: Service) -> None:
    import openai

    async with openai.AsyncOpenAI(base_url=service.url + "/v1", api_key="none", max_retries=0) as client:
        messages: list[Any] = [{"role": "user", "content": "hi"}]
        tools: list[Any] = [TOOL]
        whole = await client.chat.completions.create(
            model="rlhf-online", messages=messages, tools=tools, tool_choice="required"
        )
        calls = whole.choices[0].message.tool_calls
        assert calls is not None and calls[0].model_dump() == CALL
        stream = await client.chat.completions.create(
            model="rlhf-online", messages=messages, tools=tools, tool_choice="required", stream=True
        )
        deltas = [chunk.choices[0].delta async for chunk in stream]
        pieces = [call.function for delta in deltas for call in delta.tool_calls or () if call.function]
        assert "".join(piece.arguments or "" for piece in pieces) == "hello there"
        thoughtful = await client.chat.completions.create(
            model="rlhf-online", messages=messages, reasoning_effort="low", stream=True
        )
        deltas = [chunk.choices[0].delta.model_dump() async for chunk in thoughtful]
        assert [delta["reasoning"] for delta in deltas if delta.get("reasoning")] == ["hello"]


async def test_the_policy_learns_from_answers_that_were_free_to_call(service: Service) -> None:
    """One that had to is drawn from a part of the vocabulary."""
    await service.ask(tools=[TOOL])
    await service.ask(**REQUIRED)
    free, forced = service.sink.completions
    limits = ModelLimits(vocabulary=100, context=100)
    (rollout,), _ = eligible_rollouts(free, [EOS], limits)
    assert rollout.token_ids == (11, 12, EOS)
    assert eligible_rollouts(forced, [EOS], limits) == ([], {"support": 1})


async def test_tools_without_a_parser_are_refused_by_the_settings_name(tmp_path: Path) -> None:
    async with running(tmp_path, engine={}) as service:
        status, reply = await service.ask(tools=[TOOL])
        assert (status, reply["error"]["param"], reply["error"]["code"]) == (400, "tools", "tools_unavailable")
        assert "engine.tool_call_parser" in reply["error"]["message"]
        assert service.engine.requests == []
        assert (await service.ask(tools=[TOOL], tool_choice="none"))[0] == 200


async def test_no_tools_are_as_good_as_none(service: Service) -> None:
    """vLLM refuses an empty array."""
    assert (await service.ask(tools=[], tool_choice="none", parallel_tool_calls=True))[0] == 200
    assert not {"tools", "tool_choice", "parallel_tool_calls"} & service.engine.requests[0].keys()
