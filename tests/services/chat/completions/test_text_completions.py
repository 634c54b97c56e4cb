"""`/v1/completions`: a text goes on as the engine sees it, and its answers are logged and judged as a chat's are."""

from typing import Any

import orjson
import pytest

from rlhf_online.models.limits import ModelLimits
from rlhf_online.rollout.eligibility import eligible_rollouts
from services.chat.completions.text_request import MAX_TOKENS
from tests.support.chat_service import Service
from tests.support.events import events
from tests.support.fake_generation import EOS, PROMPT
from tests.support.vllm_errors import PROMPT_TOO_LONG

TEXT = {"prompt": "Once upon a time"}


async def test_a_text_goes_on_and_is_logged(service: Service) -> None:
    status, reply = await service.post("/v1/completions", {**TEXT, "n": 2, "user": "ann"})
    assert status == 200, reply
    assert reply["object"] == "text_completion" and reply["id"].startswith("cmpl-")
    assert [(choice["text"], choice["finish_reason"]) for choice in reply["choices"]] == [("hello there", "stop")] * 2
    assert reply["choices"][0]["logprobs"] is None and "token_ids" not in reply["choices"][0]
    assert reply["rlhf"]["logged"] is True and reply["usage"]["prompt_tokens"] == len(PROMPT)
    [sent] = service.engine.requests
    assert sent["prompt"] == "Once upon a time" and sent["max_tokens"] == MAX_TOKENS
    assert (sent["temperature"], sent["top_p"], sent["top_k"]) == (1.0, 1.0, 0)
    [logged] = service.sink.completions
    assert (logged.messages, logged.asked) == ((), '{"prompt":"Once upon a time"}')
    assert logged.prompt_token_ids == tuple(PROMPT) and logged.person
    assert [answer.token_ids for answer in logged.answers] == [(11, 12, EOS)] * 2


async def test_the_policy_can_learn_from_it(service: Service) -> None:
    await service.post("/v1/completions", TEXT)
    rollouts, left_out = eligible_rollouts(service.sink.completions[0], [EOS], ModelLimits(vocabulary=100, context=100))
    assert [rollout.token_ids for rollout in rollouts] == [(11, 12, EOS)] and not left_out


async def test_its_answers_can_be_judged(service: Service) -> None:
    _, reply = await service.post("/v1/completions", TEXT)
    vote = {"thumb": {"answer": {"completion_id": reply["id"]}, "up": True}}
    assert (await service.post("/v1/feedback", vote))[0] == 200
    other = {"thumb": {"answer": {"completion_id": reply["id"], "index": 1}, "up": True}}
    assert (await service.post("/v1/feedback", other))[1]["error"]["code"] == "answer_not_found"


async def test_log_probs_and_tokens_for_those_who_ask(service: Service) -> None:
    _, reply = await service.post("/v1/completions", {**TEXT, "logprobs": 2, "return_token_ids": True})
    [choice] = reply["choices"]
    assert choice["logprobs"]["tokens"] == ["hello", " there", ""]
    assert choice["logprobs"]["token_logprobs"] == [-1.0, -1.0, -1.0]
    assert choice["token_ids"] == [11, 12, EOS] and choice["prompt_token_ids"] == PROMPT
    assert service.engine.requests[0]["logprobs"] == 2


@pytest.mark.parametrize("logprobs", [None, 0])
async def test_a_stream(service: Service, logprobs: int | None) -> None:
    body = orjson.dumps({**TEXT, "stream": True, "logprobs": logprobs, "stream_options": {"include_usage": True}})
    async with service.session.post(service.url + "/v1/completions", data=body) as response:
        said = events(await response.read())
    assert "".join(part["text"] for chunk in said for part in chunk["choices"]) == "hello there"
    assert {chunk["object"] for chunk in said} == {"text_completion"}
    for chunk in said:
        for part in chunk["choices"]:
            assert not part.keys() & {"token_ids", "prompt_token_ids", "stop_reason", "delta"}
            assert (part["logprobs"] is None) == (logprobs is None)
    assert said[-1]["usage"]["total_tokens"] == 6 and said[-1]["rlhf"]["logged"] is True
    assert service.sink.completions[0].answers[0].logprobs == (-1.0, -1.0, -1.0)


@pytest.mark.parametrize("prompt", ["a text", ["a text"], [5, 6, 7], [[5, 6, 7]]])
async def test_one_prompt_in_each_of_its_forms(service: Service, prompt: Any) -> None:
    assert (await service.post("/v1/completions", {"prompt": prompt}))[0] == 200
    assert service.engine.requests[0]["prompt"] in ("a text", [5, 6, 7])


@pytest.mark.parametrize(
    ("fields", "param", "code", "words"),
    [
        ({"prompt": None}, "prompt", "invalid_type", "a text, or an array of token ids"),
        ({"prompt": 7}, "prompt", "invalid_type", "got an integer"),
        ({"prompt": ""}, "prompt", "empty_prompt", "at least one"),
        ({"prompt": []}, "prompt", "empty_prompt", "at least one"),
        ({"prompt": ["a", "b"]}, "prompt", "one_prompt", "got 2"),
        ({"prompt": [[1], [2], [3]]}, "prompt", "one_prompt", "got 3"),
        ({"prompt": [1, "b"]}, "prompt", "invalid_type", "got an array"),
        ({"prompt": [True]}, "prompt", "invalid_type", "got an array"),
        ({"prompt": [-1]}, "prompt", "invalid_type", "got an array"),
        ({"prompt": [[[1]]]}, "prompt", "invalid_type", "got an array"),
        ({"prompt": [["a"]]}, "prompt", "invalid_type", "got an array"),
        ({"echo": True}, "echo", "invalid_value", "expected false"),
        ({"suffix": "The end."}, "suffix", "invalid_value", "does not fill in"),
        ({"best_of": 3, "n": 2}, "best_of", "invalid_value", "expected n, 2"),
        ({"logprobs": True}, "logprobs", "invalid_type", "got a boolean"),
        ({"logprobs": 21}, "logprobs", "invalid_value", "0 to 20"),
        ({"n": 2, "temperature": 0}, "n", "invalid_value", "temperature 0"),
        ({"messages": []}, "messages", "unknown_parameter", "unrecognized"),
        ({"response_format": {"type": "text"}}, "response_format", "unknown_parameter", "unrecognized"),
    ],
)
async def test_what_is_not_served_is_refused_by_name(
    service: Service, fields: dict[str, Any], param: str, code: str, words: str
) -> None:
    status, reply = await service.post("/v1/completions", {**TEXT, **fields})
    assert status == 400
    assert (reply["error"]["param"], reply["error"]["code"]) == (param, code)
    assert words in reply["error"]["message"]
    assert not service.engine.requests


async def test_what_asks_for_nothing_else_is_taken(service: Service) -> None:
    """Clients of the older API send its defaults."""
    fields = {"echo": False, "suffix": None, "best_of": 1, "logit_bias": {}, "max_tokens": None, "logprobs": None}
    assert (await service.post("/v1/completions", {**TEXT, **fields}))[0] == 200
    assert service.engine.requests[0]["max_tokens"] == MAX_TOKENS


async def test_the_engines_refusal_names_the_prompt(service: Service) -> None:
    service.engine.refuse = PROMPT_TOO_LONG
    status, reply = await service.post("/v1/completions", TEXT)
    assert (status, reply["error"]["param"]) == (400, "prompt")
    assert reply["error"]["code"] == "context_length_exceeded"
