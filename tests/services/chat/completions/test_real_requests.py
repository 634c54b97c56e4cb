"""Tools, thoughts and what an engine refuses, with a real vLLM behind the gateway: one is started for the module."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
import pytest_asyncio
from transformers import AutoTokenizer

from rlhf_online.config import ChatSettings
from rlhf_online.state import StateDir
from services.chat.access.caller import ANYBODY
from services.chat.bodies.api_error import ApiError
from services.chat.completions.chat_request import parse_chat
from services.chat.completions.in_flight import Generation
from services.chat.completions.responses import completion
from services.chat.completions.text_request import parse_completion
from services.chat.completions.text_responses import text_completion
from services.chat.service import wire
from services.chat.transport.chat import Chat
from tests.support.byte_model import CONTEXT, write_byte_model
from tests.support.engine import publish, recompute, running_host
from tests.support.fake_sink import FakeSink
from tests.support.samples import value
from tests.support.waiting import ENGINE_TEST_S, eventually

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(ENGINE_TEST_S)]

TOOL = {
    "type": "function",
    "function": {
        "name": "look_up",
        "strict": True,
        "parameters": {
            "type": "object",
            "properties": {"word": {"enum": ["zinc"]}},
            "required": ["word"],
            "additionalProperties": False,
        },
    },
}
LOOSE = {"type": "function", "function": {"name": "look_up"}}
SILENT = {"chat_template_kwargs": {"enable_thinking": False}}
ENGINE = {"tool_call_parser": "hermes", "reasoning_parser": "qwen3", "chat_template_kwargs": {"enable_thinking": True}}


class Asked:
    """The service around the real engine; what it was asked and answered."""

    def __init__(self, chat: Chat, sink: FakeSink, model: Path) -> None:
        self.chat = chat
        self.sink = sink
        self.model = model
        self.tokenizer = AutoTokenizer.from_pretrained(model)

    async def ask(self, **fields: Any) -> Generation:
        settings = self.chat.settings
        content = fields.pop("content", "hi")
        body = {"messages": [{"role": "user", "content": content}], "max_tokens": 100, **fields}
        return await self.chat.gateway.complete(parse_chat(body, settings.limits, settings.engine), ANYBODY)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def asked(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Asked]:
    folder = tmp_path_factory.mktemp("requests")
    write_byte_model(folder / "model")
    async with running_host(folder, folder / "model", max_model_len=CONTEXT, **ENGINE) as host:
        await eventually(lambda: host.state != "starting")
        version = publish(host.registry, folder / "model")
        await eventually(lambda: host.serving == version)
        settings = ChatSettings.model_validate(
            {"state_dir": folder / "state", "engine": {"max_model_len": CONTEXT, **ENGINE}}
        )
        sink = FakeSink()
        yield Asked(wire(settings, StateDir(folder / "state"), host.registry, host, sink), sink, folder / "model")


async def test_a_forced_call(asked: Asked) -> None:
    reply = completion(await asked.ask(tools=[TOOL], tool_choice="required", **SILENT))
    (choice,) = reply["choices"]
    (call,) = choice["message"].get("tool_calls") or [{}]
    assert (call["function"]["name"], orjson.loads(call["function"]["arguments"])) == ("look_up", {"word": "zinc"})
    assert (choice["finish_reason"], choice["message"]["content"]) == ("tool_calls", None)
    event = asked.sink.completions[-1]
    (answer,) = event.answers
    written = asked.tokenizer.decode(answer.token_ids)
    assert written.startswith("<tool_call>") and written.endswith("</tool_call><end>")
    assert asked.tokenizer.decode(event.prompt_token_ids) == "look_up;user:hi<end><think></think>"
    assert answer.tool_calls[0].arguments == call["function"]["arguments"]
    assert len(answer.logprobs) == len(answer.token_ids)
    assert not event.sampling.full_support


@pytest.mark.parametrize("fields", [{}, {"tools": [LOOSE]}], ids=["no tools", "free to call"])
async def test_thoughts_are_tokens_like_all_others(asked: Asked, fields: dict[str, Any]) -> None:
    """Each has its log-prob under the whole distribution, also where the model may call tools: the policy can learn."""
    generation = await asked.ask(max_tokens=40, seed=3, temperature=0.9, **fields)
    event = asked.sink.completions[-1]
    (answer,) = event.answers
    assert answer.reasoning and not answer.text
    assert completion(generation)["choices"][0]["message"].get("reasoning") == answer.reasoning
    expected = recompute(asked.model, (*event.prompt_token_ids, *answer.token_ids), 0.9)
    expected = expected[len(event.prompt_token_ids) - 1 :]
    assert event.sampling.full_support
    assert np.abs(np.subtract(answer.logprobs, expected)).max() < 1e-3


async def test_the_lowest_temperature(asked: Asked) -> None:
    await asked.ask(max_tokens=8, temperature=0.001)
    event = asked.sink.completions[-1]
    prompt, (answer,) = event.prompt_token_ids, event.answers
    expected = recompute(asked.model, (*prompt, *answer.token_ids), event.sampling.temperature)[len(prompt) - 1 :]
    assert np.abs(np.subtract(answer.logprobs, expected)).max() < 1e-3


async def test_a_text_goes_on_as_it_is(asked: Asked) -> None:
    """No template; every token has its log-prob under the whole distribution: the policy can learn."""
    settings = asked.chat.settings
    for prompt in ("user:hi", asked.tokenizer("user:hi").input_ids):
        body = {"prompt": prompt, "n": 2, "logprobs": 1, "return_token_ids": True, "seed": 4}
        request = parse_completion(body, settings.limits, settings.engine)
        reply = text_completion(await asked.chat.gateway.complete(request, ANYBODY))
        event = asked.sink.completions[-1]
        assert asked.tokenizer.decode(event.prompt_token_ids) == "user:hi" and event.sampling.full_support
        for choice, answer in zip(reply["choices"], event.answers, strict=True):
            assert choice["text"] == answer.text and choice.get("token_ids") == list(answer.token_ids)
            assert choice["logprobs"] is not None and len(choice["logprobs"]["tokens"]) == len(answer.token_ids)
            expected = recompute(asked.model, (*event.prompt_token_ids, *answer.token_ids), 1.0)
            expected = expected[len(event.prompt_token_ids) - 1 :]
            assert np.abs(np.subtract(answer.logprobs, expected)).max() < 1e-3


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"prompt": "a" * CONTEXT}, "context_length_exceeded"),
        ({"prompt": "a" * (CONTEXT - 1), "max_tokens": 1}, ""),
        ({"prompt": [99999]}, "engine_refused"),
    ],
)
async def test_the_prompt_of_a_text_is_named(asked: Asked, fields: dict[str, Any], code: str) -> None:
    settings = asked.chat.settings
    request = parse_completion(fields, settings.limits, settings.engine)
    try:
        await asked.chat.gateway.complete(request, ANYBODY)
        said = ""
    except ApiError as error:
        said = error.code
        assert (error.status, error.param) == (400, "prompt"), str(error)
    assert said == code


def schema(**values: Any) -> dict[str, Any]:
    return {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": values}}, **SILENT}


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        (schema(**{"$ref": "#"}), "response_format", "invalid_schema"),
        (schema(**{"$ref": "#/$defs/nope"}), "response_format", "invalid_schema"),
        (schema(type="string", pattern="("), "response_format", "invalid_schema"),
        (schema(type="integer", minimum=5, maximum=1), "response_format", "invalid_schema"),
        (
            {"tools": [{"type": "function", "function": {"name": "f", "strict": True, "parameters": {"$ref": "#/x"}}}]},
            "tools",
            "invalid_schema",
        ),
        ({"content": "a" * CONTEXT}, "messages", "context_length_exceeded"),
        ({"content": "a" * (CONTEXT - 6)}, "messages", "context_length_exceeded"),
        ({"stop_token_ids": [99999]}, "stop_token_ids", "engine_refused"),
        ({"logit_bias": {"99999": 1}}, "logit_bias", "engine_refused"),
        ({"bad_words": [""]}, "bad_words", "engine_refused"),
        ({"content": "a" * 200, "min_tokens": 100}, "min_tokens", "engine_refused"),
    ],
)
async def test_a_mistake_is_a_400_at_once(asked: Asked, fields: dict[str, Any], param: str, code: str) -> None:
    with pytest.raises(ApiError) as caught:
        await asked.ask(**fields)
    assert (caught.value.status, caught.value.param, caught.value.code) == (400, param, code)
    assert "parameter=" not in str(caught.value)
    assert value(asked.chat.gateway.metrics.resent) == 0
