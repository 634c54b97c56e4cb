"""Fresh answers for the trainer, sampled by the serving engine when people leave it room.

All answers of a reply come from one version: if the weights changed meanwhile they are sampled once more, then refused.
Nothing is logged: nobody read them.
"""

import asyncio
from collections.abc import Mapping
from typing import Annotated, Any

import orjson
from pydantic import AfterValidator, Field, ValidationInfo
from typing_extensions import TypedDict

from rlhf_online.config.engine_args import LOW_PRIORITY
from rlhf_online.errors import EngineUnavailable, RlhfError
from services.chat.bodies.api_error import ApiError
from services.chat.bodies.documented import documented
from services.chat.bodies.validation import Array, AtMost, Expected, Integer, Mistake, Model, Within, validate
from services.chat.completions import upstream
from services.chat.completions.engine import Engine
from services.chat.completions.gateway import Gateway
from services.chat.completions.in_flight import InFlight
from services.chat.completions.tools import Name

PROMPTS_A_REQUEST = 16
PARALLEL = 4
MAX_PROMPTS = 4096
MAX_N = 64
MAX_TOKENS = 64
PROMPTS = "a non-empty array of arrays of token ids"


def _fits(prompt: list[int], info: ValidationInfo) -> list[int]:
    longest = (info.context or {})["max_prompt"]
    if not 0 < len(prompt) <= longest:
        raise Mistake(f"expected 1 to {longest} tokens, got {len(prompt)}")
    return prompt


def _at_least_one(prompts: list[list[int]]) -> list[list[int]]:
    if not prompts:
        raise Mistake(f"expected {PROMPTS}", code="invalid_type")
    return prompts


Prompt = Annotated[
    Array[Annotated[int, Field(ge=0)]], Expected("an array of token ids", whole=True), AfterValidator(_fits)
]


class RolloutRequest(Model):
    """Fresh answers to prompts of the log."""

    prompts: Annotated[
        Array[Prompt],
        Expected(PROMPTS),
        AfterValidator(_at_least_one),
        AtMost(MAX_PROMPTS, "prompts"),
        Field(min_length=1),
    ] = Field(description="Token ids of each prompt.")
    n: Annotated[Integer, Within(1, MAX_N)] = Field(default=1, description="How many answers to each prompt.")
    max_tokens: Annotated[Integer, Within(1, "max_tokens")] | None = Field(
        default=None, description="Token limit of an answer; by default 64."
    )
    model: Name = Field(
        default="", description="A version that `/v1/models` lists, an audience's; by default the live one."
    )
    temperature: Annotated[float, Within(0.01, 2.0)] = Field(default=1.0, description="Nothing else may be cut off.")
    seed: Annotated[Integer, Within(0, 2**62)] | None = Field(
        default=None, description="For repeatable sampling; each prompt then is a request of its own to the engine."
    )


@documented
class RolloutAnswer(TypedDict):
    """One answer."""

    token_ids: list[int]
    """Its tokens, the end-of-sequence token included where it came."""
    logprobs: list[float]
    """log-probability of each token under the distribution sampled from."""
    finish_reason: str
    """ "stop" or "length"."""


@documented
class RolloutResults(TypedDict):
    """Answers by one version."""

    policy_version: str
    """The version that wrote all of them."""
    max_num_seqs: int
    """How many answers the engine writes together; more that are asked for at once wait."""
    results: list[list[RolloutAnswer]]
    """For each prompt, in order, its answers."""


class Rollouts:
    """Samples through the engine that serves.

    `max_tokens` bounds an answer, `max_model_len` prompt and answer together, `max_num_seqs` what is written at once.
    """

    def __init__(self, gateway: Gateway, *, max_tokens: int, max_model_len: int, max_num_seqs: int) -> None:
        self.gateway = gateway
        self.max_num_seqs = max_num_seqs
        self.limits = {"max_tokens": max_tokens, "max_prompt": max_model_len - 1}

    @property
    def engine(self) -> Engine:
        return self.gateway.engine

    @property
    def flight(self) -> InFlight:
        return self.gateway.flight

    async def sample(self, values: Mapping[str, Any]) -> RolloutResults:
        """Raises ApiError (409 if versions kept changing)."""
        request = validate(RolloutRequest, values, self.limits)
        for _ in range(2):
            if self.engine.state != "ready":
                raise self.gateway.not_ready()
            epoch, version, model = self.flight.epoch, self.flight.version(), self.engine.model_name
            if request.model and request.model != version:
                version, model = request.model, self._held(request.model)
            results = await self._results(request, model)
            if self.flight.epoch == epoch:
                tokens = sum(len(answer["token_ids"]) for answers in results for answer in answers)
                self.gateway.metrics.rollout_tokens.inc(tokens)
                return {"policy_version": version, "max_num_seqs": self.max_num_seqs, "results": results}
        raise ApiError(
            "the version changed while sampling, twice; ask again",
            status=409,
            type="conflict_error",
            code="version_changed",
            retry_after_s=1,
        )

    def _held(self, version: str) -> str:
        """The engine's name of a version that it holds. Raises ApiError (404)."""
        if (model := self.engine.models.get(version)) is None:
            message = f"model: {version!r} is not held here; there are {', '.join(self.engine.models)}"
            raise ApiError(message, status=404, param="model", code="model_not_found")
        return model

    async def _results(self, request: RolloutRequest, model: str) -> list[list[RolloutAnswer]]:
        room = asyncio.Semaphore(PARALLEL)
        # One seed for a request would give equal prompts equal answers, so a seeded prompt has a request of its own.
        size = PROMPTS_A_REQUEST if request.seed is None else 1

        async def part(start: int) -> list[list[RolloutAnswer]]:
            async with room:
                return await self._post(request, model, start, request.prompts[start : start + size])

        failures: list[Exception] = []
        tasks: list[asyncio.Task[list[list[RolloutAnswer]]]] = []
        try:
            async with asyncio.TaskGroup() as group:
                tasks += [group.create_task(part(start)) for start in range(0, len(request.prompts), size)]
        except* RlhfError as group_error:
            failures += group_error.exceptions
        if failures:
            raise failures[0]
        return [answers for task in tasks for answers in task.result()]

    async def _post(
        self, request: RolloutRequest, model: str, start: int, prompts: list[list[int]]
    ) -> list[list[RolloutAnswer]]:
        body: dict[str, Any] = {
            "model": model,
            "prompt": prompts,
            "n": request.n,
            "max_tokens": request.max_tokens or min(MAX_TOKENS, self.limits["max_tokens"]),
            "temperature": request.temperature,
            "top_p": 1.0,
            "top_k": 0,
            "min_p": 0.0,
            "presence_penalty": 0.0,
            "frequency_penalty": 0.0,
            "repetition_penalty": 1.0,
            "logprobs": 0,
            "return_token_ids": True,
            "add_special_tokens": False,
            "priority": LOW_PRIORITY,
        }
        if request.seed is not None:
            body["seed"] = request.seed + start * request.n  # the engine gives answer i of a prompt seed + i
        reply = await upstream.post(self.gateway.connections, self.engine, "/v1/completions", body)
        try:
            choices = orjson.loads(await reply.read())["choices"]
        except OSError as error:
            raise EngineUnavailable("the engine ended while sampling; try again") from error
        finally:
            reply.close()
        answers = [_answer(choice) for choice in sorted(choices, key=lambda choice: choice["index"])]
        if len(answers) != len(prompts) * request.n:
            raise EngineUnavailable(f"the engine gave {len(answers)} answers for {len(prompts)} × {request.n}")
        return [answers[i : i + request.n] for i in range(0, len(answers), request.n)]


def _answer(choice: dict[str, Any]) -> RolloutAnswer:
    token_ids, logprobs = choice["token_ids"], choice["logprobs"]["token_logprobs"]
    if len(token_ids) != len(logprobs):
        raise EngineUnavailable(f"the engine gave {len(logprobs)} log-probabilities for {len(token_ids)} tokens")
    return {"token_ids": token_ids, "logprobs": logprobs, "finish_reason": choice["finish_reason"]}
