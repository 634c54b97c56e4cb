"""Bad requests: a clear error in OpenAI's form; and which sampling keeps the whole distribution."""

import io
from typing import Any

import pytest
from pydantic import ValidationError

from rlhf_online.config import EngineSettings, LimitSettings
from rlhf_online.events import Message
from services.chat.bodies.api_error import ApiError
from services.chat.completions.chat_request import ChatCompletionRequest, parse_chat
from services.chat.completions.sampling_request import GenerationRequest
from tests.support.chat_service import Service

HI = [{"role": "user", "content": "secret words"}]


TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
CALL = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}


def parse(parser: str = "hermes", **fields: Any) -> GenerationRequest:
    engine = EngineSettings(max_model_len=512, tool_call_parser=parser)
    return parse_chat({"messages": HI, **fields}, LimitSettings.model_validate({}), engine)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"messages": None}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": ["secret words"]}, "messages[0]"),
        ({"messages": [{"role": "king", "content": "secret words"}]}, "messages[0].role"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages[0].content[0]"),
        ({"n": 17}, "n"),
        ({"n": 0}, "n"),
        ({"n": True}, "n"),
        ({"n": "2"}, "n"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"messages": [{"role": "user", "content": ""}] * 2049}, "messages"),
        ({"max_completion_tokens": 1.5}, "max_completion_tokens"),
        ({"temperature": -0.1}, "temperature"),
        ({"temperature": "hot"}, "temperature"),
        ({"n": 2, "temperature": 0}, "n"),
        ({"min_tokens": 9, "max_tokens": 8}, "min_tokens"),
        ({"top_p": 0}, "top_p"),
        ({"top_k": -2}, "top_k"),
        ({"min_p": 1.1}, "min_p"),
        ({"seed": 1.5}, "seed"),
        ({"stream": "yes"}, "stream"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"stream": True, "stream_options": {"include_usages": True}}, "stream_options.include_usages"),
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"stop": 5}, "stop"),
        ({"stop": ["a"] * 17}, "stop"),
        ({"logit_bias": {"x": 1}}, "logit_bias"),
        ({"logit_bias": {"²": 1}}, "logit_bias"),
        ({"logit_bias": {"7": 101}}, "logit_bias"),
        ({"frequency_penalty": 3}, "frequency_penalty"),
        ({"tools": [1]}, "tools[0]"),
        ({"tools": [{"type": "function"}]}, "tools[0].function"),
        ({"tools": [{"type": "custom", "custom": {"name": "f"}}]}, "tools[0].type"),
        (
            {"tools": [{"type": "function", "function": {"name": "f", "parameters": []}}]},
            "tools[0].function.parameters",
        ),
        ({"tool_choice": 1}, "tool_choice"),
        ({"tool_choice": "f", "tools": [TOOL]}, "tool_choice"),
        ({"tool_choice": "auto"}, "tool_choice"),
        ({"tool_choice": "required", "tools": []}, "tool_choice"),
        ({"tool_choice": {"type": "function", "function": {"name": "g"}}, "tools": [TOOL]}, "tool_choice"),
        ({"parser": "", "tools": [TOOL]}, "tools"),
        ({"parser": "", "tools": [TOOL], "tool_choice": "required"}, "tools"),
        ({"messages": [{"role": "assistant", "tool_calls": [1]}]}, "messages[0].tool_calls[0]"),
        (
            {"messages": [{"role": "assistant", "tool_calls": [{**CALL, "function": {"name": "f", "arguments": {}}}]}]},
            "messages[0].tool_calls[0].function.arguments",
        ),
        ({"messages": [{"role": "tool", "content": "x", "tool_call_id": 1}]}, "messages[0].tool_call_id"),
        ({"messages": [{"role": "user", "content": "x", "name": {"a": 1}}]}, "messages[0].name"),
        ({"reasoning_effort": "huge"}, "reasoning_effort"),
        ({"chat_template_kwargs": "x"}, "chat_template_kwargs"),
        ({"chat_template_kwargs": {"chat_template": "{{ 1 }}"}}, "chat_template_kwargs.chat_template"),
        ({"response_format": "json"}, "response_format"),
        ({"response_format": {}}, "response_format.type"),
        ({"response_format": {"type": "xml"}}, "response_format.type"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "x"}}}, "response_format.json_schema"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": "{"}}},
            "response_format.json_schema",
        ),
        ({"user": 5}, "user"),
        ({"user": "x" * 513}, "user"),
        ({"conversation_id": []}, "conversation_id"),
        ({"priority": -1}, "priority"),
        ({"chat_template": "{{ 1 }}"}, "chat_template"),
    ],
)
def test_a_wrong_field_is_named(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(ApiError) as caught:
        parse(**fields)
    assert caught.value.status == 400
    assert caught.value.param == param
    assert param in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "fields",
    [
        {"temperature": 0},
        {"top_p": 0.9},
        {"top_k": 5},
        {"min_p": 0.1},
        {"frequency_penalty": 0.1},
        {"presence_penalty": -0.1},
        {"repetition_penalty": 1.1},
        {"logit_bias": {"7": 1}},
        {"stop": "."},
        {"stop": ["."]},
        {"stop_token_ids": [4]},
        {"bad_words": ["x"]},
        {"min_tokens": 2},
        {"ignore_eos": True},
        {"response_format": {"type": "json_object"}},
        {"tools": [TOOL], "tool_choice": "required"},
        {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "f"}}},
        {"tools": [TOOL], "parallel_tool_calls": False},
        {"tools": [{"type": "function", "function": {"name": "f", "strict": True}}]},
        {"tools": [TOOL], "parser": "glm45"},
    ],
)
def test_sampling_that_changes_the_distribution(fields: dict[str, Any]) -> None:
    assert not parse(**fields).sampling.full_support


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"temperature": 0.7, "seed": 3, "n": 4, "max_tokens": 5},
        {"top_p": 1, "top_k": 0, "min_p": 0, "frequency_penalty": 0, "repetition_penalty": 1},
        {"top_k": -1, "stop": [], "logit_bias": {}, "tools": [], "tool_choice": "none", "min_tokens": 0},
        {"tools": [TOOL]},
        {"tools": [TOOL], "tool_choice": "auto", "parallel_tool_calls": True},
        {"tools": [TOOL], "tool_choice": "none", "parser": ""},
        {"reasoning_effort": "high", "chat_template_kwargs": {"enable_thinking": True}},
        {"response_format": {"type": "text"}, "logprobs": True, "top_logprobs": 5, "stream": True},
        {"stop": None, "temperature": None, "seed": None, "metadata": {"a": "b"}, "store": False},
    ],
)
def test_sampling_from_the_whole_distribution(fields: dict[str, Any]) -> None:
    assert parse(**fields).sampling.full_support


def test_the_temperature_is_the_one_that_the_engine_samples_at() -> None:
    """vLLM samples at no lower one than .01 but for 0, and its log-probs are those of .01 then."""
    for asked, sampled in ((0, 0), (1e-9, 0.01), (0.005, 0.01), (0.01, 0.01), (0.02, 0.02)):
        request = parse(temperature=asked)
        assert request.sampling.temperature == request.upstream["temperature"] == sampled


def test_text_parts_and_tool_calls_become_plain_messages() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    request = parse(messages=[{"role": "assistant", "content": None}, {"role": "user", "content": parts}])
    assert request.messages == (Message(role="assistant", content=""), Message(role="user", content="a\nb"))


def test_the_token_limit_is_ones_own_or_else_the_services_which_it_may_not_exceed() -> None:
    assert parse().sampling.max_tokens == parse(max_tokens=512).sampling.max_tokens == 512
    with pytest.raises(ApiError, match=r"max_tokens: expected at most 512, as chat\.engine\.max_model_len says"):
        parse(max_tokens=513)
    with pytest.raises(ApiError, match="max_completion_tokens: expected at most 512"):
        parse(max_tokens=9, max_completion_tokens=600)
    assert parse(max_tokens=9).sampling.max_tokens == 9
    assert parse(max_tokens=9, max_completion_tokens=8).sampling.max_tokens == 8


def test_what_is_ignored_is_not_sent_on() -> None:
    upstream = parse(metadata={"a": "b"}, store=True, user="ann", safety_identifier="bob").upstream
    assert not {"metadata", "store", "user", "safety_identifier"} & upstream.keys()
    assert {"metadata", "store"} <= ChatCompletionRequest.model_fields.keys()


async def test_errors_over_http(service: Service) -> None:
    status, reply = await service.post("/v1/chat/completions", b"{not json")
    assert (status, reply["error"]["code"]) == (400, "invalid_json")
    assert (await service.post("/v1/chat/completions", b"[]"))[0] == 400
    status, reply = await service.ask(best_of=2)
    assert (status, reply["error"]["param"]) == (400, "best_of")
    assert reply["error"]["type"] == "invalid_request_error"
    assert set(reply["error"]) == {"message", "type", "param", "code"}
    assert (await service.get("/v1/nothing"))[0] == 404
    assert (await service.get("/v1/chat/completions"))[0] == 405
    assert await service.metric('rlhf_chat_requests_total{outcome="invalid"}') == 3


async def test_a_body_that_is_too_large(service: Service) -> None:
    huge = b" " * (service.chat.settings.limits.max_body_bytes + 1)
    async with service.session.post(service.url + "/v1/chat/completions", data=io.BytesIO(huge)) as response:
        assert response.status == 413
        assert (await response.json(content_type=None))["error"]["code"] == "body_too_large"

    async def pieces() -> Any:
        for _ in range(3):
            yield huge[: len(huge) // 2]

    async with service.session.post(service.url + "/v1/feedback", data=pieces()) as response:
        assert response.status == 413


async def test_model_names(service: Service) -> None:
    for name in ("", "rlhf-online", "base", "policy-000000"):
        assert (await service.ask(model=name))[0] == 200
    status, reply = await service.ask(model="gpt-4")
    assert (status, reply["error"]["code"]) == (404, "model_not_found")
    assert "rlhf-online" in reply["error"]["message"]
    _, models = await service.get("/v1/models")
    assert [model["id"] for model in models["data"]] == ["rlhf-online", "policy-000000", "base"]
    assert (await service.get("/v1/models/base"))[1]["object"] == "model"
    assert (await service.get("/v1/models/gpt-4"))[0] == 404


async def test_a_version_that_is_loaded_beside_the_live_one_can_be_asked_for(service: Service) -> None:
    """As with adapters: it writes the answer, and is what the log knows the answer by."""
    service.host.adapters, service.host.model_name = ("policy-000000", "policy-000001"), "policy-000002"
    service.host.serving = "policy-000002"
    for name, writes in {"rlhf-online": "policy-000002", "policy-000001": "policy-000001"}.items():
        _, reply = await service.ask(model=name)
        assert service.engine.requests[-1]["model"] == reply["system_fingerprint"] == writes
        assert service.sink.completions[-1].answers[0].spans[0].policy_version == writes
    _, models = await service.get("/v1/models")
    assert [model["id"] for model in models["data"]] == [
        *("rlhf-online", "policy-000002", "policy-000001", "policy-000000"),
    ]


@pytest.mark.parametrize("path", ["/v1/embeddings", "/v1/responses", "/v1/images/generations", "/v1/audio/speech"])
async def test_what_of_openais_is_not_served_is_refused_by_name(service: Service, path: str) -> None:
    """404, which OpenAI's clients raise at once; a 501 they would send three times."""
    status, reply = await service.post(path, {"input": "secret words"})
    assert (status, reply["error"]["type"], reply["error"]["code"]) == (404, "invalid_request_error", "not_found")
    assert path in reply["error"]["message"] and "/v1/chat/completions" in reply["error"]["message"]


def test_null_is_absent_whatever_the_field() -> None:
    assert parse(temperature=None, n=None, stream_options=None, best_of=None) == parse()


def test_minus_one_is_no_token_limit_of_ones_own() -> None:
    assert parse(max_tokens=-1).sampling.max_tokens == 512
    assert parse(max_tokens=9, max_completion_tokens=-1).sampling.max_tokens == 9


def test_an_integer_may_be_written_with_a_fraction_of_zero() -> None:
    request = parse(max_tokens=8.0, n=2.0)
    assert (request.sampling.max_tokens, request.n) == (8, 2)
    assert type(request.upstream["n"]) is int


def test_the_engine_is_sent_messages_as_they_came() -> None:
    call = {"role": "assistant", "content": None, "tool_calls": [CALL]}
    messages = [call, {"role": "tool", "content": "4", "tool_call_id": "1"}]
    assert parse(messages=messages).upstream["messages"] == messages


@pytest.mark.parametrize(
    "fields",
    [
        {"messages": [1] * 9},
        {"messages": [{"role": "user", "content": [1] * 9}]},
        {"messages": HI, "stop": [1] * 9},
        {"messages": HI, "tools": [1] * 9},
        {"messages": HI, "logit_bias": dict.fromkeys("abc", 1)},
        {"messages": HI, **dict.fromkeys("abc", 1)},
    ],
)
def test_of_many_mistakes_only_the_first_is_looked_for(fields: dict[str, Any]) -> None:
    """A body of a megabyte can hold half a million: collecting them would hold everybody up for a minute."""
    with pytest.raises(ValidationError) as caught:
        ChatCompletionRequest.model_validate(fields, context={"max_answers": 1})
    assert caught.value.error_count() == 1
