"""What clients read of the engine's errors, as vLLM really sends them: whose mistake it is, and which field's."""

import asyncio
from typing import Any

import pytest

from tests.support import vllm_errors
from tests.support.chat_service import Service
from tests.support.vllm_errors import Refusal
from tests.support.waiting import eventually

TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "banana"}}}
SCHEMA = {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"$ref": "#"}}}}


@pytest.mark.parametrize(
    ("fields", "refusal", "param", "code"),
    [
        (SCHEMA, vllm_errors.NO_BASE_CASE, "response_format", "invalid_schema"),
        (SCHEMA, vllm_errors.NO_SUCH_DEFINITION, "response_format", "invalid_schema"),
        (SCHEMA, vllm_errors.BAD_PATTERN, "response_format", "invalid_schema"),
        (SCHEMA, vllm_errors.NOTHING_SATISFIES, "response_format", "invalid_schema"),
        ({}, vllm_errors.PROMPT_TOO_LONG, "messages", "context_length_exceeded"),
        ({}, vllm_errors.PROMPT_FILLS_THE_CONTEXT, "messages", "context_length_exceeded"),
        ({"tools": [TOOL], "tool_choice": "required"}, vllm_errors.BAD_TOOL_SCHEMA, "tools", "invalid_schema"),
        ({"logprobs": True, "top_logprobs": 20}, vllm_errors.TOO_MANY_LOGPROBS, "top_logprobs", "engine_refused"),
        ({"stop_token_ids": [99999]}, vllm_errors.NO_SUCH_STOP_TOKEN, "stop_token_ids", "engine_refused"),
        ({"logit_bias": {"99999": 1}}, vllm_errors.NO_SUCH_BIASED_TOKEN, "logit_bias", "engine_refused"),
        ({"bad_words": [""]}, vllm_errors.EMPTY_BAD_WORD, "bad_words", "engine_refused"),
        ({"min_tokens": 900}, vllm_errors.MIN_TOKENS_BEYOND_THE_ROOM, "min_tokens", "engine_refused"),
        ({}, vllm_errors.NAME_IS_AN_OBJECT, "messages", "engine_refused"),
        ({}, vllm_errors.CALL_WITHOUT_A_FUNCTION, "messages", "engine_refused"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_a_clients_mistake_is_a_400_about_its_own_field(
    service: Service, fields: dict[str, Any], refusal: Refusal, param: str, code: str, stream: bool
) -> None:
    """Streams too: their status is sent with the first token. Nothing is sent again."""
    service.engine.refuse = refusal
    status, reply = await service.ask(**fields, stream=stream)
    assert (status, reply["error"]["type"]) == (400, "invalid_request_error")
    assert (reply["error"]["param"], reply["error"]["code"]) == (param, code)
    for vllms_own in ("parameter=", "validation error", "Internal server error", "ParamDeveloper"):
        assert vllms_own not in reply["error"]["message"]
    assert len(service.engine.requests) == 1
    assert service.chat.gateway.active == 0
    assert not service.chat.gateway.flight.generations
    assert await service.metric('rlhf_chat_requests_total{outcome="invalid"}') == 1


@pytest.mark.parametrize("stream", [False, True])
async def test_a_request_that_fails_on_an_engine_that_lives_is_not_sent_again(service: Service, stream: bool) -> None:
    service.engine.refuse = vllm_errors.NO_BASE_CASE
    status, reply = await service.ask(stream=stream)
    assert (status, reply["error"]["code"]) == (500, "request_failed")
    assert len(service.engine.requests) == 1


@pytest.mark.parametrize("dead", [vllm_errors.DEAD, vllm_errors.DEAD_IN_STREAM], ids=lambda dead: dead.where)
@pytest.mark.parametrize("fields", [{}, {"stream": True}, SCHEMA])
async def test_a_request_whose_engine_is_lost_is_sent_again(
    service: Service, dead: Refusal, fields: dict[str, Any]
) -> None:
    service.engine.refuse, service.engine.healthy = dead, False
    asking = asyncio.create_task(service.session.post(f"{service.url}/v1/chat/completions", json=_ask(fields)))
    await service.engine.asked.wait()
    await eventually(lambda: not service.chat.gateway.active)
    service.engine.refuse, service.engine.healthy = None, True
    await service.host.restart()
    async with await asking as response:
        assert response.status == 200
        assert b"hello" in await response.read()
    assert len(service.engine.requests) == 2
    assert await service.metric("rlhf_chat_resent_total") == 1


def _ask(fields: dict[str, Any]) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": "hi"}], **fields}
